"""Additions to the schema travel: made on one node, they are made on all, before the rows that need them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import apsw
import pytest

from harmonylite.db.snapshot import install_mirror, save_copy
from harmonylite.db.sqlite.introspection import TableRules
from harmonylite.errors import PoisonError
from harmonylite.schema.section import PLAIN, SECTION
from harmonylite.wire import KIND_ADDITIONS, VERSION, Envelope, TableBlock, encode_block, encode_envelope, encode_tables
from tests.parts.db.fix_replicas import PAIRED, Group, Member

ADDITIONS: dict[str, tuple[Sequence[str], str]] = {
    "a table": (("CREATE TABLE n(id INTEGER PRIMARY KEY, v)", "INSERT INTO n VALUES (1, 'x')"), "SELECT * FROM n"),
    "a table without rows": (("CREATE TABLE n(id INTEGER PRIMARY KEY, v)",), "SELECT * FROM n"),
    "a table without rowid": (
        ("CREATE TABLE n(k TEXT PRIMARY KEY, v) WITHOUT ROWID", "INSERT INTO n VALUES ('k', 1)"),
        "SELECT * FROM n",
    ),
    "an odd table": (
        (
            'CREATE TABLE "a ""b(,)"("x,y" TEXT DEFAULT \'),(\', [z(] INT, `w``` ANY) STRICT',
            'INSERT INTO "a ""b(,)"([z(]) VALUES (7)',
        ),
        'SELECT * FROM "a ""b(,)"',
    ),
    "a table that counts": (
        ("CREATE TABLE n(id INTEGER PRIMARY KEY AUTOINCREMENT, v)", "INSERT INTO n(v) VALUES ('x')"),
        "SELECT * FROM n",
    ),
    "tables that refer": (
        (
            "CREATE TABLE n(id INTEGER PRIMARY KEY, p REFERENCES m(id))",
            "CREATE TABLE m(id INTEGER PRIMARY KEY)",
            "INSERT INTO n VALUES (1, 2)",
        ),
        "SELECT * FROM n",
    ),
    "a column": (("ALTER TABLE t ADD COLUMN c", "UPDATE t SET c = 'new' WHERE id = 1"), "SELECT * FROM t"),
    "a column with a default": (
        ("ALTER TABLE t ADD COLUMN c TEXT NOT NULL DEFAULT 'it''s, ok)'", "UPDATE t SET c = 'new' WHERE id = 1"),
        "SELECT * FROM t",
    ),
    "columns": (
        ("ALTER TABLE t ADD COLUMN c INT", 'ALTER TABLE t ADD COLUMN "d e" COLLATE NOCASE', "UPDATE t SET c = id"),
        "SELECT * FROM t",
    ),
    "a computed column": (("ALTER TABLE t ADD COLUMN c AS (upper(a))",), "SELECT * FROM t"),
    "a column by a rebuild": (
        (
            "BEGIN",
            "CREATE TABLE u(id INTEGER PRIMARY KEY, a TEXT, b INT, c VARCHAR(9) NOT NULL)",
            "INSERT INTO u SELECT id, a, b, 'c' || id FROM t",
            "DROP TABLE t",
            "ALTER TABLE u RENAME TO t",
            "COMMIT",
        ),
        "SELECT * FROM t",
    ),
    "an index": (("CREATE INDEX t_a ON t(a)",), "SELECT sql FROM sqlite_schema WHERE name = 't_a'"),
    "a unique index": (
        ("CREATE UNIQUE INDEX t_a ON t(a) WHERE b > 1",),
        "SELECT sql FROM sqlite_schema WHERE name = 't_a'",
    ),
    "a view": (("CREATE VIEW w AS SELECT a FROM t",), "SELECT * FROM w"),
    "a full-text index": (
        (
            "CREATE VIRTUAL TABLE f USING fts5(a, content='t', content_rowid='id')",
            "INSERT INTO f(f) VALUES ('rebuild')",
            "CREATE TRIGGER f_i AFTER INSERT ON t BEGIN INSERT INTO f(rowid, a) VALUES (new.id, new.a); END",
            "INSERT INTO t VALUES (4, 'w', 40)",
        ),
        "SELECT rowid FROM f WHERE f MATCH 'x OR w' ORDER BY rowid",
    ),
    "numbers of the file": (("PRAGMA user_version = 7", "PRAGMA application_id = -3"), "PRAGMA user_version"),
}


def pair(group: Group) -> list[Member]:
    """Return two members that take over additions, with three rows in ``t``."""
    made = group.several(2, PAIRED, apply_schema="additive")
    made[0].run("INSERT INTO t VALUES (1, 'x', 10), (2, 'y', 20), (3, 'z', 30)")
    group.settle()
    return made


def schema(member: Member) -> set[tuple[str, ...]]:
    """Return the application's objects."""
    listed = member.run("SELECT type, name FROM sqlite_schema WHERE name NOT GLOB '__harmonylite__*'")
    return {tuple(row) for row in listed if "autoindex" not in row[1]}


@pytest.mark.parametrize("seen", ["at the end", "each statement"])
@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("what", ADDITIONS)
def test_what_one_node_adds_the_other_gets_before_its_rows(
    make_group: Callable[[int], Group], what: str, shards: int, seen: str
) -> None:
    group = make_group(shards)
    a, b = pair(group)
    statements, question = ADDITIONS[what]
    for sql in statements:
        a.run(sql)
        if seen == "each statement" and not a.app.in_transaction:
            group.settle()
    group.settle()
    assert b.run(question) == a.run(question)
    assert schema(b) == schema(a)
    assert a.run("PRAGMA user_version") == b.run("PRAGMA user_version")
    for member in (a, b):
        for table in member.replica.tables:
            assert member.rows(table) == member.rows(table, "mirror")
    before = group.world.last(0)
    group.settle()
    assert group.world.last(0) == before, "nothing more is to be said"
    assert not b.replica.warnings.keys() & {"schema"}


@pytest.mark.parametrize("what", ADDITIONS)
def test_both_nodes_may_add_the_same(group: Group, what: str) -> None:
    a, b = pair(group)
    statements, question = ADDITIONS[what]
    for member in (a, b):
        for sql in statements:
            member.run(sql)
        member.send()
    group.settle()
    assert b.run(question) == a.run(question)
    assert schema(b) == schema(a)
    before = group.world.last(0)
    group.settle()
    assert group.world.last(0) == before


def test_additions_of_both_stay(group: Group) -> None:
    a, b = pair(group)
    a.run("ALTER TABLE t ADD COLUMN c")
    a.run("CREATE TABLE n(id INTEGER PRIMARY KEY, v)")
    a.run("INSERT INTO n VALUES (1, 'a')")
    a.run("UPDATE t SET c = 'c'")
    b.run("ALTER TABLE t ADD COLUMN d")
    b.run("CREATE TABLE n(id INTEGER PRIMARY KEY, w)")
    b.run("INSERT INTO n VALUES (2, 'b')")
    b.run("UPDATE t SET d = 'd'")
    a.send()
    b.send()
    group.settle()
    for member in (a, b):
        assert member.run("SELECT id, c, d FROM t ORDER BY 1") == [(1, "c", "d"), (2, "c", "d"), (3, "c", "d")]
        assert member.run("SELECT id, v, w FROM n ORDER BY 1") == [(1, "a", None), (2, None, "b")]
    before = group.world.last(0)
    group.settle()
    assert group.world.last(0) == before


def test_a_node_with_a_pending_table_of_that_name_gets_the_other_columns(group: Group) -> None:
    a, b = pair(group)
    a.run("CREATE TABLE n(id INTEGER PRIMARY KEY, v TEXT NOT NULL)")
    a.run("INSERT INTO n VALUES (1, 'a')")
    b.run("CREATE TABLE n(id INTEGER PRIMARY KEY, w)")
    b.run("INSERT INTO n VALUES (2, 'b')")
    group.settle()
    assert a.run("SELECT id, v, w FROM n ORDER BY 1") == b.run("SELECT id, v, w FROM n ORDER BY 1")


@pytest.mark.parametrize(
    "change",
    [
        ("ALTER TABLE t RENAME TO u",),
        ("ALTER TABLE t RENAME COLUMN a TO c",),
        ("ALTER TABLE t DROP COLUMN b",),
        ("DROP TABLE t",),
    ],
)
def test_what_removes_or_renames_is_left_to_each_nodes_own_migration(group: Group, change: Sequence[str]) -> None:
    a, b = pair(group)
    before = schema(b), b.run("SELECT sql FROM sqlite_schema WHERE name = 't'")
    for sql in change:
        a.run(sql)
    group.settle()
    assert (schema(b), b.run("SELECT sql FROM sqlite_schema WHERE name = 't'")) == before
    for sql in change:
        b.run(sql)
    a.run("CREATE TABLE n(id INTEGER PRIMARY KEY)")
    group.settle()
    assert schema(a) == schema(b)


def test_a_column_added_after_a_rename_that_both_did_travels(group: Group) -> None:
    a, b = pair(group)
    for member in (a, b):
        member.run("ALTER TABLE t RENAME COLUMN a TO c")
    group.settle()
    a.run("ALTER TABLE t ADD COLUMN d")
    a.run("UPDATE t SET d = c")
    group.settle()
    assert b.run("SELECT c, d FROM t WHERE id = 1") == [("x", "x")]


def test_what_this_sqlite_cannot_make_is_left_out_and_named(group: Group) -> None:
    a, b = pair(group)
    a.run("CREATE TABLE n(id INTEGER PRIMARY KEY, v TEXT)")
    b.run("CREATE TABLE other(id INTEGER PRIMARY KEY)")
    a.run("ALTER TABLE t ADD COLUMN c")
    b.run("INSERT INTO t VALUES (4, 'x', 40), (5, 'x', 50)")
    a.run("CREATE UNIQUE INDEX t_a ON t(a)")
    a.send()
    group.settle()
    assert "t_a" not in {name for _, name in schema(b)}
    assert any("t_a" in said for said in b.replica.warnings.values())
    assert ("table", "n") in schema(b)


def test_tables_that_are_left_out_stay_local(group: Group) -> None:
    rules = TableRules(exclude=("local_*",))
    a, b = group.several(2, PAIRED, apply_schema="additive", rules=rules)
    a.run("CREATE TABLE local_n(id INTEGER PRIMARY KEY)")
    a.run("CREATE INDEX local_i ON local_n(id)")
    a.run("CREATE TABLE n(id INTEGER PRIMARY KEY)")
    group.settle()
    assert {name for _, name in schema(b)} == {"t", "n"}


def test_a_node_that_takes_over_nothing_waits_as_before(group: Group) -> None:
    a, b = group.several(2, PAIRED)
    a.run("CREATE INDEX t_a ON t(a)")
    a.run("INSERT INTO t VALUES (1, 'x', 10)")
    group.settle()
    assert b.run("SELECT * FROM t") == [(1, "x", 10)]
    assert schema(b) == {("table", "t")}


def test_an_addition_made_while_the_node_was_down_travels(group: Group) -> None:
    a, b = pair(group)
    a.stop()
    a.run("CREATE TABLE n(id INTEGER PRIMARY KEY, v)")
    a.run("INSERT INTO n VALUES (1, 'x')")
    a.run("PRAGMA user_version = 3")
    a.start()
    group.settle()
    assert b.run("SELECT * FROM n") == [(1, "x")]
    assert b.run("PRAGMA user_version") == [(3,)]


def test_a_voided_change_set_is_captured_with_its_section_again(group: Group) -> None:
    a, b = pair(group)
    a.run("CREATE TABLE n(id INTEGER PRIMARY KEY, v)")
    a.capture()
    a.drop()
    a.run("INSERT INTO n VALUES (1, 'x')")
    group.settle()
    assert b.run("SELECT * FROM n") == [(1, "x")]


def test_a_database_that_joins_brings_its_tables_and_gets_the_others(group: Group) -> None:
    (a,) = group.several(1, PAIRED, apply_schema="additive")
    a.run("INSERT INTO t VALUES (1, 'x', 10)")
    group.settle()
    b = group.member(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT, b INT, c)",
        "CREATE TABLE n(id INTEGER PRIMARY KEY)",
        "INSERT INTO n VALUES (5)",
        apply_schema="additive",
    )
    group.settle()
    assert a.run("SELECT * FROM n") == b.run("SELECT * FROM n") == [(5,)]
    assert a.run("SELECT * FROM t") == b.run("SELECT * FROM t") == [(1, "x", 10, None)]


def test_a_node_that_goes_on_from_a_snapshot_gets_what_was_added_meanwhile(group: Group) -> None:
    a, b = pair(group)
    b.run("CREATE TABLE own(id INTEGER PRIMARY KEY)")
    group.settle()
    a.run("CREATE TABLE n(id INTEGER PRIMARY KEY, v)")
    a.run("ALTER TABLE t ADD COLUMN c")
    a.run("INSERT INTO n VALUES (1, 'x')")
    a.run("UPDATE t SET c = 'c'")
    a.run("CREATE INDEX n_v ON n(v)")
    a.send()
    a.receive()
    b.run("DROP TABLE own")
    b.run("ALTER TABLE t RENAME COLUMN b TO d")
    b.replica.reinstall()
    snapshot = group.folder / "snapshot.db"
    save_copy(a.options.mirror, snapshot)
    b.replica.adopt(snapshot)
    b.reassembler = type(b.reassembler)(b.replica.positions())
    assert b.run("SELECT * FROM n") == [(1, "x")]
    assert b.run("SELECT id, c FROM t") == [(1, "c"), (2, "c"), (3, "c")]
    assert schema(b) == {("table", "t"), ("table", "n"), ("index", "n_v")}, "what was dropped here stays so"
    assert [name for _, name, *_ in b.run("PRAGMA table_info(t)")] == ["id", "a", "d", "c"]


def test_an_older_backup_of_the_file_gets_the_column_back_with_its_values(group: Group) -> None:
    a, b = pair(group)
    copy = group.folder / "backup.db"
    b.run("VACUUM INTO ?", (str(copy),))
    a.run("ALTER TABLE t ADD COLUMN c")
    a.run("UPDATE t SET c = 'hello' WHERE id = 1")
    group.settle()
    snapshot = group.folder / "snapshot.db"
    save_copy(a.options.mirror, snapshot)
    b.stop()
    b.app.close()
    for path in (b.options.database, b.options.mirror):
        for side in ("", "-wal", "-shm"):
            path.with_name(path.name + side).unlink(missing_ok=True)
    copy.rename(b.options.database)
    b.app = apsw.Connection(str(b.options.database))
    b.app.pragma("journal_mode", "wal")
    b.start()
    b.replica.must_fit(snapshot)
    b.stop()
    install_mirror(b.options, snapshot)
    b.start()
    b.replica.reconcile(first=False)
    b.reassembler = type(b.reassembler)(b.replica.positions())
    assert group.equal("t")[0] == (1, "x", 10, "hello")


SECTIONS: dict[str, list[object]] = {
    "another statement": ["table", "n", "n", None, "DROP TABLE t"],
    "two statements": ["table", "n", "n", None, "CREATE TABLE n(a); DROP TABLE t"],
    "a select": ["table", "n", "n", None, "CREATE TABLE n AS SELECT * FROM t"],
    "another name": ["table", "n", "n", None, "CREATE TABLE m(a)"],
    "another kind": ["index", "n", "t", None, "CREATE TABLE n(a)"],
    "an unknown kind": ["function", "n", "n", None, "CREATE TABLE n(a)"],
    "a name of ours": ["table", "__harmonylite__n", "__harmonylite__n", None, 'CREATE TABLE "__harmonylite__n"(a)'],
    "a name of SQLite's": ["table", "sqlite_n", "sqlite_n", None, "CREATE TABLE sqlite_n(a)"],
    "a number": ["pragma", "user_version", "", "0", "1; DROP TABLE t"],
    "another number": ["pragma", "journal_mode", "", None, "1"],
    "a large number": ["pragma", "user_version", "", "0", str(2**40)],
    "no text": ["table", 7, "n", None, "CREATE TABLE n(a)"],
    "too short": ["table", "n"],
    "bytes": ["table", "n", "n", b"", "CREATE TABLE n(a)"],
}


@pytest.mark.parametrize("line", SECTIONS)
def test_a_section_that_is_no_addition_pauses_the_node_and_changes_nothing(group: Group, line: str) -> None:
    _, b = pair(group)
    part = TableBlock(SECTION, PLAIN, 2, [], [SECTIONS[line]])
    body, packed = encode_block([encode_tables(part)], compress=False)
    made = Envelope(VERSION, KIND_ADDITIONS, "x", "s", 1, 0, False, True, [0], 0.0, {}, packed, body)
    group.world.publish(0, "x", encode_envelope(made))
    before = b.run("SELECT type, name, sql FROM sqlite_schema")
    refused = False
    try:
        b.receive()
    except PoisonError:
        refused = True
    assert refused or b.replica.warnings
    assert b.run("SELECT type, name, sql FROM sqlite_schema") == before
    assert b.run("PRAGMA user_version") == [(0,)]


@pytest.mark.parametrize(
    "text",
    ["c; DROP TABLE t", "c, d", "c) STRICT; --", "c -- ", "c /* ", "c DEFAULT (load_extension('x'))", "c UNIQUE", ")"],
)
def test_a_column_brings_nothing_else_along(group: Group, text: str) -> None:
    _, b = pair(group)
    old = "CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT, b INT)"
    part = TableBlock(SECTION, PLAIN, 2, [], [["table", "t", "t", old, f"{old[:-1]}, {text})"]])
    body, packed = encode_block([encode_tables(part)], compress=False)
    made = Envelope(VERSION, KIND_ADDITIONS, "x", "s", 1, 0, False, True, [0], 0.0, {}, packed, body)
    group.world.publish(0, "x", encode_envelope(made))
    b.receive()
    assert b.run("SELECT * FROM t ORDER BY 1")[0][:3] == (1, "x", 10)
    b.run("INSERT INTO t(id) VALUES (9)") if "load_extension" not in text else None
    assert {name for _, name in schema(b)} == {"t"}


def test_what_a_node_does_not_make_by_itself_waits_until_a_person_accepts_it(group: Group) -> None:
    a, b = group.several(2, PAIRED)
    a.run("CREATE TABLE n(id INTEGER PRIMARY KEY, v)")
    a.run("ALTER TABLE t ADD COLUMN c")
    a.run("PRAGMA user_version = 4")
    a.send()
    b.receive()
    assert {(w.object, w.node) for w in b.replica.waiting_schema()} == {
        ("table n", "a"),
        ("table t: columns c", "a"),
        ("pragma user_version = 4", "a"),
    }
    b.stop()
    b.start()
    b.run("CREATE TABLE n(id INTEGER PRIMARY KEY, v)")
    assert len(b.replica.waiting_schema()) == 2, "made by hand"
    assert b.replica.accept_schema() == ["table t: columns c", "pragma user_version = 4"]
    assert b.replica.waiting_schema() == []
    a.run("UPDATE t SET c = 'c'")
    a.run("INSERT INTO n VALUES (1, 'x')")
    group.settle()
    assert group.equal("t", "n") == [(1, "x")]
    assert a.run("PRAGMA user_version") == b.run("PRAGMA user_version") == [(4,)]
