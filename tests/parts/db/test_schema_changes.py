"""Tables made, dropped, renamed, altered and rebuilt while the node runs: captured at once, and none rewritten."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from harmonylite.errors import SchemaWaitError
from harmonylite.schema.section import SECTION
from harmonylite.wire import decode_block, decode_envelope
from tests.parts.db.fix_replicas import PAIRED, Group, Member


def sent(group: Group) -> int:
    """Return how many change sets with rows were published: a schema section alone moves no row."""
    found = 0
    for message in group.world.streams[0]:
        envelope = decode_envelope(message, 1)
        found += any(part.table != SECTION for part in decode_block(envelope.body, packed=envelope.packed))
    return found


def test_a_table_made_later_is_captured_from_its_first_row(group: Group) -> None:
    a, b = group.pair()
    for member in (a, b):
        member.run("CREATE TABLE later(k TEXT PRIMARY KEY NOT NULL, v) WITHOUT ROWID")
    a.run("INSERT INTO later VALUES ('before the node looked', 1)")
    group.settle()
    b.run("INSERT INTO later VALUES ('after', 2)")
    assert group.equal("later") == [("after", 2), ("before the node looked", 1)]


@pytest.mark.parametrize(
    ("ddl", "write"),
    [
        ("ALTER TABLE t ADD COLUMN c DEFAULT 'd'", "UPDATE t SET c = 'e' WHERE id = 1"),
        ("ALTER TABLE t DROP COLUMN b", "UPDATE t SET a = 'new' WHERE id = 1"),
        ("ALTER TABLE t RENAME COLUMN b TO renamed", "UPDATE t SET renamed = -1 WHERE id = 1"),
        ("CREATE UNIQUE INDEX t_a ON t(a)", "INSERT OR REPLACE INTO t VALUES (9, 'y', 9)"),
    ],
)
def test_an_altered_table_goes_on_and_makes_no_row_traffic_by_itself(group: Group, ddl: str, write: str) -> None:
    a, b = group.pair()
    before = sent(group)
    a.run(ddl)
    b.run(ddl)
    a.run("DELETE FROM t WHERE id = 3")  # the triggers still work before the node has noticed
    group.settle()
    assert sent(group) == before + 1
    b.run(write)
    group.settle()
    assert sent(group) == before + 2
    assert group.equal("t")
    assert a.run("SELECT * FROM t ORDER BY 1") == b.run("SELECT * FROM t ORDER BY 1")


def test_a_renamed_table_keeps_its_rows_and_its_triggers(group: Group) -> None:
    a, b = group.pair()
    before = sent(group)
    for member in (a, b):
        member.run("ALTER TABLE t RENAME TO people")
    a.run("UPDATE people SET a = 'changed' WHERE id = 1")
    assert len(group.equal("people")) == 3
    assert sent(group) == before + 1
    assert "t" not in a.replica.tables


def rebuild(member: Member) -> None:
    """Rebuild ``t`` as migration tools do: create, copy, drop, rename."""
    member.run("BEGIN")
    member.run("CREATE TABLE t_new(id INTEGER PRIMARY KEY, a TEXT NOT NULL DEFAULT '', b INT, c TEXT)")
    member.run("INSERT INTO t_new(id, a, b) SELECT id, a, b FROM t")
    member.run("DROP TABLE t")
    member.run("ALTER TABLE t_new RENAME TO t")
    member.run("COMMIT")


def test_a_rebuilt_table_gets_its_triggers_back_and_is_not_rewritten(group: Group) -> None:
    a, b = group.pair()
    before = sent(group)
    rebuild(a)
    rebuild(b)
    group.settle()
    assert sent(group) == before
    a.run("UPDATE t SET c = 'new' WHERE id = 2")
    assert group.equal("t") == [(1, "x", 10, None), (2, "y", 20, "new"), (3, "z", 30, None)]


def test_what_a_migration_changed_on_its_way_is_found(group: Group) -> None:
    a, b = group.pair()
    rebuild(a)
    a.run("UPDATE t SET b = b + 1 WHERE id = 1")
    a.run("DELETE FROM t WHERE id = 3")
    rebuild(b)
    assert group.equal("t") == [(1, "x", 11, None), (2, "y", 20, None)]


def test_a_dropped_table_loses_no_row_elsewhere_until_another_one_has_its_name(group: Group) -> None:
    a, b = group.pair()
    a.run("DROP TABLE t")
    b.run("UPDATE t SET a = 'still here' WHERE id = 1")
    b.run("INSERT INTO t VALUES (4, 'more', 40), (5, 'more', 50)")
    group.settle()
    b.run("DELETE FROM t WHERE id IN (2, 5)")
    group.settle()
    assert a.replica.positions() == b.replica.positions()
    assert b.run("SELECT count(*) FROM t") == [(3,)]
    a.run(PAIRED)
    a.run("INSERT INTO t VALUES (7, 'new', 70)")
    assert group.equal("t") == [(7, "new", 70)]


def test_a_change_set_that_needs_a_column_waits_and_goes_on_once_it_is_there(group: Group) -> None:
    a, b = group.pair()
    a.run("ALTER TABLE t ADD COLUMN c")
    a.replica.reinstall()
    a.run("UPDATE t SET c = 'new' WHERE id = 1")
    a.send()
    with pytest.raises(SchemaWaitError, match="with the column c"):
        b.receive()
    assert b.rows("t") == [(1, "x", 10), (2, "y", 20), (3, "z", 30)]
    b.run("ALTER TABLE t ADD COLUMN c")
    b.replica.reinstall()
    b.reassembler = type(b.reassembler)(b.replica.positions())
    assert group.equal("t")[0] == (1, "x", 10, "new")


def test_a_change_set_without_a_column_that_is_here_leaves_that_alone(group: Group) -> None:
    a, b = group.pair()
    b.run("ALTER TABLE t ADD COLUMN c DEFAULT 'kept'")
    b.replica.reinstall()
    b.run("UPDATE t SET c = 'own' WHERE id = 1")
    a.run("UPDATE t SET a = 'from a'")
    a.run("INSERT INTO t VALUES (4, 'w', 40)")
    a.send()
    b.receive()
    assert b.rows("t") == [
        (1, "from a", 10, "own"),
        (2, "from a", 20, "kept"),
        (3, "from a", 30, "kept"),
        (4, "w", 40, "kept"),
    ]


def test_a_row_that_comes_without_a_column_gets_its_default_also_beside_one_that_is_there(group: Group) -> None:
    a, b = group.pair()
    b.run("ALTER TABLE t ADD COLUMN c DEFAULT 'given'")
    b.replica.reinstall()
    b.run("INSERT INTO t VALUES (5, 'b', 50, 'own')")
    b.send()
    b.receive()
    a.run("INSERT INTO t VALUES (4, 'a', 40), (5, 'a', 51), (6, 'a', 60)")
    a.send()
    b.receive()
    wanted = [(4, "a", 40, "given"), (5, "a", 51, "own"), (6, "a", 60, "given")]
    assert b.rows("t")[3:] == b.rows("t", "mirror")[3:] == wanted


def test_a_restart_after_a_schema_change_leaves_the_application_writing(group: Group) -> None:
    a, b = group.pair()
    a.stop()
    a.run("ALTER TABLE t ADD COLUMN c")
    a.run("ALTER TABLE t DROP COLUMN b")
    a.run("INSERT INTO t VALUES (4, 'w', 'while the node was down')")
    a.start()
    b.run("ALTER TABLE t ADD COLUMN c")
    b.run("ALTER TABLE t DROP COLUMN b")
    assert group.equal("t")[-1] == (4, "w", "while the node was down")


def test_a_table_that_was_written_while_its_triggers_were_gone_is_compared(group: Group) -> None:
    a, _ = group.pair()
    for (name,) in a.run("SELECT name FROM sqlite_schema WHERE type = 'trigger' AND tbl_name = 't'"):
        a.run(f'DROP TRIGGER "{name}"')
    a.run("UPDATE t SET a = 'unseen' WHERE id = 1")
    a.run("DELETE FROM t WHERE id = 2")
    assert group.equal("t") == [(1, "unseen", 10), (3, "z", 30)]


@pytest.mark.parametrize("running", [True, False])
def test_a_column_that_went_while_another_came_is_no_rename(group: Group, running: bool) -> None:
    a, b = group.pair()
    for member in (a, b):
        if not running:
            member.stop()
        member.run("ALTER TABLE t ADD COLUMN c DEFAULT 'new'")
        member.run("ALTER TABLE t DROP COLUMN b")
        if not running:
            member.start()
    a.run("INSERT INTO t VALUES (4, 'w', 'written')")
    assert group.equal("t")[2:] == [(3, "z", "new"), (4, "w", "written")]


def test_a_renamed_column_keeps_the_values_that_were_written_before_the_node_noticed(group: Group) -> None:
    a, b = group.pair()
    for member in (a, b):
        member.stop()
        member.run("ALTER TABLE t RENAME COLUMN b TO renamed")
    a.run("UPDATE t SET renamed = 11 WHERE id = 1")
    before = sent(group)
    a.start()
    b.start()
    assert group.equal("t") == [(1, "x", 11), (2, "y", 20), (3, "z", 30)]
    assert sent(group) == before + 1


def test_a_unique_index_that_rows_of_the_mirror_break_leaves_the_same_rows_everywhere(group: Group) -> None:
    """The file on one node has its rows in another order, as after years of deletes; the mirrors must not differ."""
    a, b = group.several(2, "CREATE TABLE w(k TEXT PRIMARY KEY NOT NULL, u TEXT)")
    a.run("INSERT INTO w VALUES ('late', 'same'), ('early', 'same')")
    group.settle()
    b.replica.connection.execute("UPDATE mirror.w SET rowid = rowid + 10 WHERE k = 'early'")
    for member in (a, b):
        member.run("DELETE FROM w WHERE k = 'early'")
        member.run("CREATE UNIQUE INDEX w_u ON w(u)")
        member.replica.reinstall()
    assert a.rows("w", "mirror") == b.rows("w", "mirror")


def rename_in_capitals(member: Member) -> None:
    """Change the case of the table's name, by way of another one."""
    member.run("ALTER TABLE t RENAME TO aside")
    member.run("ALTER TABLE aside RENAME TO T")


def rebuild_in_capitals(member: Member) -> None:
    """Make the table again under a name that SQLite holds equal to the old one."""
    member.run("CREATE TABLE again(id INTEGER PRIMARY KEY, a TEXT, b INT)")
    member.run("INSERT INTO again SELECT * FROM t")
    member.run("DROP TABLE t")
    member.run("ALTER TABLE again RENAME TO T")


@pytest.mark.parametrize("change", [rename_in_capitals, rebuild_in_capitals])
def test_a_table_whose_name_changes_its_case_stays_replicated_with_its_rows(
    group: Group, change: Callable[[Member], None]
) -> None:
    a, b = group.pair()
    before = sent(group)
    for member in (a, b):
        change(member)
    a.run("UPDATE T SET a = 'changed' WHERE id = 1")
    group.settle()
    assert sent(group) == before + 1
    b.run("INSERT INTO T VALUES (4, 'new', 40)")
    assert group.equal("T") == [(1, "changed", 10), (2, "y", 20), (3, "z", 30), (4, "new", 40)]


def test_a_column_whose_name_changes_its_case_keeps_its_values(group: Group) -> None:
    a, b = group.pair()
    for member in (a, b):
        member.run("ALTER TABLE t RENAME COLUMN a TO A")
    a.run("UPDATE t SET A = 'changed' WHERE id = 1")
    assert group.equal("t") == [(1, "changed", 10), (2, "y", 20), (3, "z", 30)]


def test_a_unique_index_that_went_lets_its_column_go(group: Group) -> None:
    a, b = group.pair("CREATE UNIQUE INDEX t_b ON t(b)")
    for member in (a, b):
        member.run("DROP INDEX t_b")
    group.settle()
    for member in (a, b):
        member.run("ALTER TABLE t DROP COLUMN b")
        member.run("UPDATE t SET a = a || '!' WHERE id = 1")
    assert group.equal("t") == [(1, "x!"), (2, "y"), (3, "z")]


def test_a_table_that_was_renamed_the_old_way_is_written_again_once_the_node_looked(group: Group) -> None:
    a, b = group.pair("CREATE UNIQUE INDEX t_b ON t(b)")
    for member in (a, b):
        member.run("PRAGMA legacy_alter_table = ON")
        member.run("ALTER TABLE t RENAME TO people")
    group.settle()
    a.run("SELECT count(*) FROM people")  # a connection that prepares no other statement keeps the schema that it knows
    a.run("INSERT OR REPLACE INTO people VALUES (9, 'new', 10)")
    assert group.equal("people") == [(2, "y", 20), (3, "z", 30), (9, "new", 10)]


MIXED = {
    "renamed, and another dropped": ("ALTER TABLE t RENAME COLUMN a TO c", "ALTER TABLE t DROP COLUMN b"),
    "dropped, and another renamed": ("ALTER TABLE t DROP COLUMN a", "ALTER TABLE t RENAME COLUMN b TO c"),
    "renamed, and another added": ("ALTER TABLE t RENAME COLUMN a TO c", "ALTER TABLE t ADD COLUMN d DEFAULT 'd'"),
    "both renamed": ("ALTER TABLE t RENAME COLUMN a TO b2", "ALTER TABLE t RENAME COLUMN b TO a"),
}


@pytest.mark.parametrize("seen", ["each", "together"])
@pytest.mark.parametrize("mode", ["none", "additive", "all"])
@pytest.mark.parametrize("changes", MIXED.values(), ids=MIXED)
def test_a_mirror_holds_what_the_database_does_after_columns_went_and_came(
    group: Group, changes: tuple[str, ...], mode: str, seen: str
) -> None:
    a, b = group.several(2, PAIRED, apply_schema=mode)
    a.run("INSERT INTO t VALUES (1, 'x', 10), (2, 'y', 20)")
    group.settle()
    for member in group.members if mode != "all" else [a]:
        for sql in changes:
            member.run(sql)
            if seen == "each":
                member.replica.reinstall()
    group.settle()
    group.equal("t")
    assert not any(
        difference.rows for member in (a, b) for difference in member.replica.compare() if difference.different
    )
