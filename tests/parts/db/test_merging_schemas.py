"""Two nodes change one schema at the same time: both have the same then, and neither stops."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import pytest

from harmonylite.db.snapshot import save_copy
from harmonylite.db.tracking.installed import Installed
from tests.parts.db.fix_replicas import PAIRED, Group, Member
from tests.parts.db.fix_schemas import BY_HAND, INDEXED, pair, rebuild, same, schema


@pytest.mark.parametrize("first", ["a", "b"])
def test_an_index_follows_its_table_under_a_name_that_another_node_gives_it(group: Group, first: str) -> None:
    a, b = pair(group)
    a.run("ALTER TABLE t RENAME TO u")
    b.run("CREATE UNIQUE INDEX i ON t(a)")
    for member in (a, b) if first == "a" else (b, a):
        member.send()
    group.settle()
    for member in (a, b):
        assert member.run("SELECT tbl_name FROM sqlite_schema WHERE name = 'i'") == [("u",)]
        assert member.run("SELECT a FROM u ORDER BY id") == [("x",), ("y",), ("z",)]
    same(group)


@pytest.mark.parametrize("mode", ["additive", "none"])
def test_a_table_that_is_made_strict_on_each_node_by_hand_stops_neither(group: Group, mode: str) -> None:
    a, b = group.several(2, "CREATE TABLE t(id INTEGER PRIMARY KEY, a, b TEXT)", apply_schema=mode)
    a.run("INSERT INTO t VALUES (1, 'x', 'a'), (2, '7', 'b'), (3, 2.5, 'c')")
    group.settle()
    for member in (a, b):
        for sql in rebuild("t", "id INTEGER PRIMARY KEY, a INTEGER, b TEXT", "id, length(a), b"):
            member.run(f"{sql} STRICT" if sql.startswith("CREATE") else sql)
        group.settle()
    assert group.equal("t")[0] == (1, 1, "a")


@pytest.mark.parametrize("end", ["STRICT", "WITHOUT ROWID, STRICT"])
def test_a_table_that_is_made_strict_with_converted_values_stops_nobody(group: Group, end: str) -> None:
    a, b = group.several(2, "CREATE TABLE t(id INT PRIMARY KEY NOT NULL, a, b, c)", apply_schema="all")
    a.run("INSERT INTO t VALUES (1, 'x', 'ten', '1'), (2, 'y', 20, 2)")
    group.settle()
    columns = "id INT PRIMARY KEY NOT NULL, a TEXT, b INTEGER, c ANY"
    for sql in rebuild("t", columns, "id, a, CASE b WHEN 'ten' THEN 10 ELSE b END, c"):
        a.run(f"{sql} {end}" if sql.startswith("CREATE") else sql)
    assert a.send() > 0
    b.run("INSERT INTO t VALUES (3, 'z', 30, '3')")
    same(group)
    assert b.run("SELECT * FROM t") == [(1, "x", 10, "1"), (2, "y", 20, 2), (3, "z", 30, "3")]
    listed = "SELECT strict FROM pragma_table_list('t') WHERE schema IN ('main', 'mirror')"
    for member in (a, b):
        assert member.replica.connection.execute(listed).fetchall() == [(1,), (1,)]


EXCHANGE = (
    "BEGIN",
    "ALTER TABLE t RENAME TO x",
    "ALTER TABLE k RENAME TO t",
    "ALTER TABLE x RENAME TO k",
    "COMMIT",
)
"""Exchanges the names of two tables."""

T, K = "t(id, a, b)", "k(id, n, m)"
EXCHANGED = "k(id, a, b) t(id, n, m)"

AT_ONCE: dict[str, tuple[tuple[str, ...], tuple[str, ...], str, str]] = {
    "both exchange names of tables": (EXCHANGE, EXCHANGE, EXCHANGED, EXCHANGED),
    "one exchanges names, one drops": (EXCHANGE, ("DROP TABLE k",), "k(id, a, b)", EXCHANGED),
    "one renames a table, one drops it": (
        ("ALTER TABLE t RENAME TO u",),
        ("DROP TABLE t",),
        K,
        f"{K} u(id, a, b)",
    ),
    "two tables get one name": (
        ("ALTER TABLE t RENAME TO u",),
        ("ALTER TABLE k RENAME TO u",),
        f"{K} u(id, a, b)",
        f"{T} u(id, n, m)",
    ),
    "one renames a column, one drops it": (
        ("ALTER TABLE t RENAME COLUMN a TO c",),
        ("ALTER TABLE t DROP COLUMN a",),
        f"{K} t(id, b)",
        f"{K} t(id, b)",
    ),
    "two columns get one name": (
        ("ALTER TABLE t RENAME COLUMN a TO c",),
        ("ALTER TABLE t RENAME COLUMN b TO c",),
        f"{K} t(id, c, b)",
        f"{K} t(id, a, c)",
    ),
    "a column gets the name of a new one": (
        ("ALTER TABLE t RENAME COLUMN a TO c",),
        ("ALTER TABLE t ADD COLUMN c INT DEFAULT 1",),
        f"{K} t(id, c, b, c_2)",
        f"{K} t(id, a, b, c)",
    ),
    "both add a column of one name with other types": (
        ("ALTER TABLE t ADD COLUMN e TEXT DEFAULT 'm'",),
        ("ALTER TABLE t ADD COLUMN e INT DEFAULT 1",),
        f"{K} t(id, a, b, e INT)",
        f"{K} t(id, a, b, e TEXT)",
    ),
    "both add a column of one name, one with a value in each row": (
        ("ALTER TABLE t ADD COLUMN e TEXT NOT NULL DEFAULT 'm'",),
        ("ALTER TABLE t ADD COLUMN e INT",),
        f"{K} t(id, a, b, e INT)",
        f"{K} t(id, a, b, e TEXT)",
    ),
    "one drops a column, one makes a unique index on it": (
        ("ALTER TABLE t DROP COLUMN a",),
        ("CREATE UNIQUE INDEX i ON t(a)",),
        f"{K} t(id, b)",
        f"{K} t(id, b)",
    ),
}
"""What two nodes do, and the tables then: by the order in which both are sent."""


@pytest.mark.parametrize("first", ["a", "b"])
@pytest.mark.parametrize("what", AT_ONCE)
def test_two_migrations_of_one_name_lead_to_one_schema(group: Group, what: str, first: str) -> None:
    a, b = pair(group)
    mine, theirs, *seen = AT_ONCE[what]
    for member, statements in ((a, mine), (b, theirs)):
        for sql in statements:
            member.run(sql)
    for member in (a, b) if first == "a" else (b, a):
        member.send()
    group.settle()
    same(group)
    assert " ".join(tables(a)) == seen["ab".index(first)]


def tables(member: Member) -> list[str]:
    """Return the application's tables with their columns; ``e`` with its type."""
    found: dict[str, list[str]] = {}
    for kind, name in sorted(key for key, sql in schema(member).items() if sql):
        if kind == "table":
            listed = member.run("SELECT name, type FROM pragma_table_info(?)", (name,))
            found[name] = [f"{column} {type_}" if column == "e" else column for column, type_ in listed]
    return [f"{name}({', '.join(columns)})" for name, columns in found.items()]


def test_a_snapshot_of_a_node_that_renamed_a_table_and_made_another_has_what_the_stream_knows(
    group: Group, tmp_path: Path
) -> None:
    """The mirror's tables have this node's names; both changes are still to be sent."""
    a, _ = pair(group)
    a.run("ALTER TABLE t RENAME TO u")
    a.run("CREATE TABLE t(id TEXT PRIMARY KEY, own)")
    a.replica.reinstall()
    save_copy(a.options.mirror, tmp_path / "copy.db")
    with closing(apsw.Connection(str(tmp_path / "copy.db"))) as copy:
        assert copy.execute("SELECT id, a FROM t ORDER BY id").fetchall() == [(1, "x"), (2, "y"), (3, "z")]
        assert copy.execute("SELECT count(*) FROM sqlite_schema WHERE name = 'u'").get == 0
    same(group)


def test_a_unique_index_that_is_not_sent_yet_does_not_decide_what_rows_of_others_are_filled_with(group: Group) -> None:
    a, b = group.several(2, "CREATE TABLE t(id INTEGER PRIMARY KEY, a)", apply_schema="all")
    a.run("ALTER TABLE t ADD COLUMN p DEFAULT 'dp'")
    a.run("CREATE UNIQUE INDEX t_p ON t(p)")
    a.replica.reinstall()
    b.run("INSERT INTO t VALUES (1, 'x')")
    b.send()
    a.receive()
    assert a.rows("t", "mirror") == [(1, "x", "dp")]
    same(group)
    assert b.run("SELECT * FROM t") == [(1, "x", "dp")]


def test_a_unique_index_that_rows_violate_is_made_once_they_do_not(group: Group) -> None:
    a, b = pair(group)
    b.run("INSERT INTO t VALUES (4, 'x', 40)")
    a.run("CREATE UNIQUE INDEX i ON t(a)")
    a.send()
    b.receive()
    (waits,) = b.replica.waiting_schema()
    assert "UNIQUE" in waits.why
    assert not b.replica.retry_schema()
    group.settle()
    assert b.replica.retry_schema()
    same(group)
    assert b.run("SELECT id FROM t WHERE a = 'x'") == [(4,)]
    assert b.run("SELECT name FROM sqlite_schema WHERE name = 'i'") == [("i",)]


@pytest.mark.parametrize("mode", ["all", "additive"])
@pytest.mark.parametrize(
    "migration",
    [
        "ALTER TABLE t RENAME COLUMN a TO heading",
        "ALTER TABLE t RENAME COLUMN b TO mine",
        "ALTER TABLE t ADD COLUMN mine",
        "CREATE TABLE mine(id INTEGER PRIMARY KEY)",
        "CREATE INDEX t_b ON t(b)",
        "PRAGMA user_version = 7",
    ],
)
def test_a_migration_that_commits_right_before_a_change_of_another_node_is_merged_is_seen(
    group: Group, monkeypatch: pytest.MonkeyPatch, mode: str, migration: str
) -> None:
    """The node has looked at its schema, and is about to take the lock for the merge."""
    a, b = group.several(2, PAIRED, apply_schema=mode)
    a.run("INSERT INTO t VALUES (1, 'x', 10)")
    group.settle()
    theirs = "heading" if mode == "all" else "theirs"
    b.run("ALTER TABLE t RENAME COLUMN a TO heading" if mode == "all" else "ALTER TABLE t ADD COLUMN theirs")
    b.send()
    wait, look = a.replica.others.wait, a.replica.reinstall
    events: list[str] = []

    def migrates_last(*given: Any, **named: Any) -> None:
        wait(*given, **named)
        if not events:
            events.append("migration")
            a.run(migration)

    def looks() -> Installed:
        events.append("look")
        return look()

    monkeypatch.setattr(a.replica.others, "wait", migrates_last)
    monkeypatch.setattr(a.replica, "reinstall", looks)
    a.receive()
    assert events[:2] == ["migration", "look"]
    group.settle()
    group.equal("t")
    assert a.run("SELECT count(*) FROM pragma_table_info('t') WHERE name = ?", (theirs,)) == [(1,)]


ANOTHER_KEY = "CREATE TABLE n(id TEXT PRIMARY KEY NOT NULL, a TEXT, b INT) WITHOUT ROWID"


@pytest.mark.parametrize("first", ["a", "b"])
@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("other", ["ALTER TABLE t RENAME TO v", "CREATE TABLE t_2(id TEXT PRIMARY KEY)", "SELECT 1"])
@pytest.mark.parametrize("own", ["ALTER TABLE k RENAME TO u", "CREATE TABLE u(id TEXT PRIMARY KEY NOT NULL, own)"])
def test_a_table_that_is_renamed_and_gets_another_key_at_once_keeps_its_rows_in_the_mirror(
    make_group: Callable[[int], Group], own: str, other: str, shards: int, first: str
) -> None:
    """The file's table has no triggers, by which it is known, until it is looked at again."""
    group = make_group(shards)
    a, b = pair(group)
    for sql in ("BEGIN", ANOTHER_KEY, "INSERT INTO n SELECT * FROM t", "DROP TABLE t", "ALTER TABLE n RENAME TO t"):
        a.run(sql)
    for sql in ("COMMIT", "ALTER TABLE t RENAME TO u", "CREATE TABLE t(id TEXT PRIMARY KEY NOT NULL, a)"):
        a.run(sql)
        a.replica.reinstall()
    b.run(own)
    b.run(other)
    b.run("INSERT INTO u(id) VALUES ('own')")
    for member in (a, b) if first == "a" else (b, a):
        member.capture()
    for member in (a, b) if first == "a" else (b, a):
        member.publish()
    for _ in range(4):
        group.settle()
    same(group)
    rows = [row for name in a.replica.tables for row in a.run(f"SELECT * FROM {name}")]
    assert len(rows) == 6


@pytest.mark.parametrize("first", ["a", "b"])
@pytest.mark.parametrize("mine", ["a", "a TEXT", "a INTEGER", "a REAL"])
@pytest.mark.parametrize("theirs", ["a", "a TEXT", "a INTEGER", "a REAL"])
def test_values_are_one_where_two_nodes_give_a_column_another_type(
    group: Group, theirs: str, mine: str, first: str
) -> None:
    a, b = group.several(2, "CREATE TABLE t(id INTEGER PRIMARY KEY, a NUMERIC)", apply_schema="all")
    a.run("INSERT INTO t VALUES (1, 2.5), (2, '7'), (3, 'x'), (4, 3)")
    group.settle()
    for member, column in ((a, theirs), (b, mine)):
        for sql in rebuild("t", f"id INTEGER PRIMARY KEY, {column}", "id, a"):
            member.run(sql)
    one, other = (a, b) if first == "a" else (b, a)
    other.capture()
    one.send()
    other.publish()
    for _ in range(4):
        group.settle()
    same(group)


@pytest.mark.parametrize("who", ["a", "b", "ab"])
@pytest.mark.parametrize("what", BY_HAND)
def test_whoever_runs_a_migration_all_have_its_result_once(group: Group, what: str, who: str) -> None:
    """Each node's own, at the same moment, is the same migration: none waits, and none is made twice."""
    notes = "CREATE TABLE note(name TEXT PRIMARY KEY NOT NULL)"
    a, b = group.several(2, *INDEXED, notes, apply_schema="all")
    a.run("INSERT INTO t VALUES (1, 'x', 10), (2, 'y', 20), (3, 'z', 30)")
    group.settle()
    for member in (m for m in (a, b) if m.options.node in who):
        member.run("INSERT INTO k(id, n) VALUES (?, 1)", (member.options.node,))
        for sql in BY_HAND[what]:
            member.run(sql)
        member.run("INSERT INTO note VALUES ('0002_changes')")
        wanted = schema(member)
    group.settle()
    same(group)
    assert schema(a) == wanted
    assert b.run("SELECT name FROM note") == [("0002_changes",)]


KEYS = {
    "a text": "id TEXT PRIMARY KEY NOT NULL, v TEXT",
    "a text, without rowid": "id TEXT PRIMARY KEY NOT NULL, v TEXT) WITHOUT ROWID",
    "a text that may be NULL": "id TEXT PRIMARY KEY, v TEXT",
    "two columns": "id TEXT NOT NULL, v TEXT, w DEFAULT 1 NOT NULL, PRIMARY KEY(w, id)",
}
UNIQUE = {
    "an index": ("CREATE UNIQUE INDEX u ON t(v)",),
    "of some rows": ("CREATE UNIQUE INDEX u ON t(v) WHERE v <> 'z'",),
    "on an expression": ("CREATE UNIQUE INDEX u ON t(lower(v))",),
    "with a collation, downwards": (
        "CREATE UNIQUE INDEX u ON t(v COLLATE NOCASE DESC) WHERE v IN ('same', 'z') AND NOT (v IS NULL)",
    ),
}


def table(key: str) -> str:
    """Return the definition of ``t`` with a key of `KEYS`."""
    return (
        f"CREATE TABLE t({KEYS[key]})"
        if ")" not in KEYS[key] or "PRIMARY KEY(" in KEYS[key]
        else f"CREATE TABLE t({KEYS[key]}"
    )


@pytest.mark.parametrize("unique", UNIQUE)
@pytest.mark.parametrize("key", KEYS)
def test_of_rows_that_a_new_unique_index_has_no_room_for_the_same_one_stays_on_every_node(
    make_group: Callable[[int], Group], key: str, unique: str
) -> None:
    """They come from the shards in another order on each node, and only the writer's own table has the index."""
    group = make_group(2)
    a, b, c, d = group.several(4, table(key), apply_schema="all")
    for sql in UNIQUE[unique]:
        a.run(sql)
    for row in ("1", "2", "3", "4", "5", "6"):
        b.run("INSERT INTO t(id, v) VALUES (?, 'same')", (row,))
        b.send()
        b.receive()
    receive_shards(c, (0, 1))
    receive_shards(d, (1, 0))
    stored = [each.replica.connection.execute("SELECT id FROM mirror.t NOT INDEXED").fetchall() for each in (c, d)]
    assert "rowid" in key or stored[0] != stored[1], "they are stored in another order"
    a.send()
    for member in (a, b, c, d):
        member.receive()
    assert {tuple(member.rows("t", "mirror")) for member in (a, b, c, d)} == {tuple(a.rows("t", "mirror"))}
    assert len(a.rows("t", "mirror")) == 1


@pytest.mark.parametrize("unique", UNIQUE)
@pytest.mark.parametrize("key", KEYS)
def test_a_new_unique_index_that_others_rows_violate_ends_on_every_node(group: Group, key: str, unique: str) -> None:
    a, b, c = group.several(3, table(key), apply_schema="all")
    a.run("INSERT INTO t(id, v) VALUES ('0', 'same')")
    for sql in UNIQUE[unique]:
        a.run(sql)
    b.run("INSERT INTO t(id, v) VALUES ('1', 'same'), ('2', 'same'), ('3', 'other')")
    for member in (b, a):
        member.send()
    for _ in range(3):
        group.settle()
        for member in (a, b, c):
            member.replica.retry_schema()
    same(group)
    assert [row[-1] for row in group.equal("t")].count("same") == 1
    assert {tuple(member.rows("t", "mirror")) for member in (a, b, c)} == {tuple(a.rows("t"))}


def receive_shards(member: Member, shards: tuple[int, ...]) -> None:
    """Apply all that is in the streams, one shard after the other."""
    for shard in shards:
        for message in member.world.after(shard, member.reassembler.read_up_to(shard), 1_000_000):
            member.reassembler.add(message)
        while (batch := member.reassembler.take(own=(member.options.node, member.replica.options.session))) is not None:
            member.replica.apply(batch)
            batch.close()
