"""Change sets of an older schema: what was written before a migration arrives after it, under today's names."""

from __future__ import annotations

import pytest

from harmonylite.db.mirror.former_names import take_for_gone
from harmonylite.db.snapshot import save_copy
from harmonylite.errors import SchemaWaitError
from tests.parts.db.fix_replicas import Group, Member

MIGRATIONS = [
    (["ALTER TABLE t RENAME COLUMN b TO number"], "t"),
    (["ALTER TABLE t RENAME COLUMN b TO number", "ALTER TABLE t RENAME COLUMN number TO amount"], "t"),
    (["ALTER TABLE t DROP COLUMN b"], "t"),
    (["ALTER TABLE t RENAME COLUMN b TO number", "ALTER TABLE t DROP COLUMN number"], "t"),
    (["ALTER TABLE t RENAME COLUMN id TO number"], "t"),
    (["ALTER TABLE t RENAME TO people"], "people"),
    (["ALTER TABLE t RENAME TO people", "ALTER TABLE people RENAME TO folk"], "folk"),
    (["ALTER TABLE t RENAME TO people", "ALTER TABLE people RENAME COLUMN a TO name"], "people"),
]
WRITES = (
    "UPDATE t SET a = 'a ' || id, b = b + 1 WHERE id = 1",
    "UPDATE t SET b = 21 WHERE id = 2",
    "INSERT INTO t VALUES (4, 'w', 40), (5, 'v', 50)",
    "DELETE FROM t WHERE id = 3",
)


def change(member: Member, migration: list[str]) -> None:
    """Let an application migrate, seen by its node step by step."""
    for ddl in migration:
        member.run(ddl)
        member.replica.reinstall()


@pytest.mark.parametrize(("migration", "table"), MIGRATIONS)
def test_what_was_written_before_a_migration_arrives_after_it(group: Group, migration: list[str], table: str) -> None:
    a, b = group.pair()
    for sql in WRITES:
        b.run(sql)
        b.send()  # under way: it comes back to b itself after its own migration, too
        b.drop()
    b.run("INSERT INTO t VALUES (6, 'u', 60)")
    b.send()
    change(a, migration)
    change(b, migration)
    assert len(group.equal(table)) == 5
    assert a.run(f"SELECT * FROM {table} ORDER BY 1") == b.run(f"SELECT * FROM {table} ORDER BY 1")
    assert a.rows(table, "mirror") == b.rows(table, "mirror") == a.rows(table)


@pytest.mark.parametrize(("migration", "table"), MIGRATIONS)
def test_a_migrated_node_goes_on_receiving_from_one_that_is_not(group: Group, migration: list[str], table: str) -> None:
    a, b = group.pair()
    change(a, migration)
    for sql in WRITES:
        b.run(sql)
        b.send()
        a.receive()
        b.receive()
    assert a.run(f"SELECT count(*) FROM {table}") == [(4,)]
    a.stop()
    a.start()
    b.run("INSERT INTO t VALUES (6, 'u', 60)")
    b.send()
    a.receive()
    change(b, migration)
    assert len(group.equal(table)) == 5
    assert a.rows(table, "mirror") == b.rows(table, "mirror") == a.rows(table)


def test_a_pending_row_of_a_migrated_node_keeps_what_was_written_here(group: Group) -> None:
    a, b = group.pair()
    a.run("UPDATE t SET a = 'mine' WHERE id = 1")
    a.send()
    change(a, ["ALTER TABLE t RENAME COLUMN a TO name", "ALTER TABLE t RENAME TO people"])
    a.run("UPDATE people SET b = 99 WHERE id = 1")
    b.run("UPDATE t SET a = 'theirs', b = 11 WHERE id = 1")
    b.send()
    a.receive()
    assert a.run("SELECT * FROM people WHERE id = 1") == [(1, "theirs", 99)]
    b.receive()
    change(b, ["ALTER TABLE t RENAME COLUMN a TO name", "ALTER TABLE t RENAME TO people"])
    assert group.equal("people")[0] == (1, "theirs", 99)


def test_a_column_that_a_writer_has_by_the_new_name_too_is_that_one(group: Group) -> None:
    a, b = group.pair()
    change(a, ["ALTER TABLE t RENAME COLUMN b TO number"])
    change(b, ["ALTER TABLE t ADD COLUMN number INT"])
    b.run("UPDATE t SET b = 11, number = 12 WHERE id = 1")
    b.send()
    a.receive()
    assert a.run("SELECT * FROM t WHERE id = 1") == [(1, "x", 12)]


def test_a_column_that_is_there_again_is_filled_again(group: Group) -> None:
    a, b = group.pair()
    change(a, ["ALTER TABLE t DROP COLUMN b", "ALTER TABLE t ADD COLUMN b INT"])
    b.run("UPDATE t SET b = 11 WHERE id = 1")
    b.send()
    a.receive()
    assert a.run("SELECT * FROM t WHERE id = 1") == [(1, "x", 11)]


def test_a_table_that_was_made_and_dropped_at_once_holds_nobody_up_who_saw_it(group: Group) -> None:
    a, b = group.pair()
    for member in (a, b):
        change(member, ["CREATE TABLE passing(id INTEGER PRIMARY KEY, v)"])
    a.run("INSERT INTO passing VALUES (1, 'x')")
    a.send()
    a.run("DROP TABLE passing")
    a.run("UPDATE t SET a = 'after' WHERE id = 1")
    b.run("DROP TABLE passing")
    assert group.equal("t")[0] == (1, "after", 10)


def test_a_node_that_dropped_a_column_goes_on_from_a_snapshot_that_has_it(group: Group) -> None:
    a, b = group.pair()
    change(a, ["ALTER TABLE t DROP COLUMN b"])
    b.run("UPDATE t SET a = 'newer', b = 11 WHERE id = 1")
    b.send()
    b.receive()
    snapshot = group.folder / "snapshot.db"
    save_copy(b.options.mirror, snapshot)
    a.replica.adopt(snapshot)
    a.reassembler = type(a.reassembler)(a.replica.positions())
    assert a.run("SELECT * FROM t WHERE id = 1") == [(1, "newer")]
    b.run("UPDATE t SET a = 'newest', b = 12 WHERE id = 1")
    b.send()
    a.receive()
    assert a.run("SELECT * FROM t WHERE id = 1") == [(1, "newest")]


def test_a_column_that_went_while_others_came_may_be_one_of_those_and_is_waited_for(group: Group) -> None:
    a, b = group.pair()
    b.run("UPDATE t SET a = 'late', b = 11 WHERE id = 1")
    b.send()
    mixed = [
        "CREATE TABLE t_new(id INTEGER PRIMARY KEY, a TEXT, c INT NOT NULL DEFAULT 0, d TEXT)",
        "INSERT INTO t_new SELECT id, a, b, '' FROM t",
        "DROP TABLE t",
        "ALTER TABLE t_new RENAME TO t",
    ]
    for member in (a, b):
        for sql in ("BEGIN", *mixed, "COMMIT"):
            member.run(sql)
        member.replica.reinstall()
    with pytest.raises(SchemaWaitError, match="with the column b") as told:
        a.receive()
    assert told.value.unsure
    for member in (a, b):
        assert take_for_gone(member.replica.connection) == [("t", "b")]
        member.reassembler = type(member.reassembler)(member.replica.positions())
    assert group.equal("t")[0] == (1, "late", 11, "")


@pytest.mark.parametrize("strict", ["", " STRICT"])
def test_a_dropped_table_that_others_migrate_holds_nobody_up_and_is_new_when_it_is_made_again(
    group: Group, strict: str
) -> None:
    table = "CREATE TABLE u(id INTEGER PRIMARY KEY, a TEXT)" + strict
    a, b = group.pair(table)
    b.run("INSERT INTO u VALUES (1, 'x'), (2, 'y')")
    group.settle()
    a.run("DROP TABLE u")
    a.replica.reinstall()
    b.run("INSERT INTO u VALUES (3, 'z')")
    b.send()
    b.receive()
    change(b, ["ALTER TABLE u ADD COLUMN n INT", "ALTER TABLE u ADD COLUMN m TEXT"])
    b.run("INSERT INTO u VALUES (4, 'w', 4, 'four')")
    b.run("UPDATE u SET n = 2 WHERE id = 2")
    group.settle()
    assert a.replica.positions() == b.replica.positions()
    for sql in (table, "ALTER TABLE u ADD COLUMN n INT", "ALTER TABLE u ADD COLUMN m TEXT"):
        a.run(sql)
    a.run("INSERT INTO u VALUES (5, 'v', 5, 'five')")
    assert group.equal("u") == [(5, "v", 5, "five")]


def test_what_a_mirror_knew_of_names_is_kept_when_it_goes_on_from_another(group: Group) -> None:
    a, b = group.pair()
    change(a, ["ALTER TABLE t ADD COLUMN c TEXT", "ALTER TABLE t RENAME COLUMN c TO d"])
    change(b, ["ALTER TABLE t ADD COLUMN d TEXT"])
    snapshot = group.folder / "snapshot.db"
    save_copy(b.options.mirror, snapshot)
    a.replica.adopt(snapshot)
    c = a.replica.connection.execute("SELECT name, now FROM mirror.__harmonylite__former").fetchall()
    assert c == [("c", "d")]


def test_a_column_in_other_letters_is_the_same(group: Group) -> None:
    a, b = group.pair()
    change(a, ["ALTER TABLE t RENAME COLUMN b TO B", "ALTER TABLE t ADD COLUMN c"])
    b.run("UPDATE t SET b = 11 WHERE id = 1")
    b.send()
    a.receive()
    assert a.run("SELECT * FROM t WHERE id = 1") == [(1, "x", 11, None)]
