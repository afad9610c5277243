"""What removes, renames or rebuilds travels: changed on one node, it is changed on all, and their rows stay."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from harmonylite.db.snapshot import save_copy
from tests.parts.db.fix_replicas import PAIRED, Group
from tests.parts.db.fix_schemas import KEYED, pair, rebuild, same

CHANGES: dict[str, tuple[str, ...]] = {
    "drop a table": ("DROP TABLE t",),
    "drop a table with an index and a view": (
        "CREATE INDEX t_a ON t(a)",
        "CREATE VIEW w AS SELECT 1",
        "DROP VIEW w",
        "DROP TABLE t",
    ),
    "rename a table": ("ALTER TABLE t RENAME TO u", "INSERT INTO u VALUES (9, 'n', 90)"),
    "rename a table and make another": (
        "ALTER TABLE t RENAME TO u",
        PAIRED,
        "INSERT INTO t VALUES (1, 'new', 1)",
        "UPDATE u SET a = 'old'",
    ),
    "swap two tables": (
        "BEGIN",
        "ALTER TABLE t RENAME TO x",
        "ALTER TABLE k RENAME TO t",
        "ALTER TABLE x RENAME TO k",
        "COMMIT",
        "INSERT INTO k VALUES (9, 'n', 90)",
        "INSERT INTO t VALUES ('z', 1, 'm')",
    ),
    "rename a column": ("ALTER TABLE t RENAME COLUMN a TO c", "UPDATE t SET c = 'new' WHERE id = 1"),
    "rename a key": ("ALTER TABLE t RENAME COLUMN id TO key", "INSERT INTO t VALUES (9, 'n', 90)"),
    "rename columns in a circle": (
        "BEGIN",
        "ALTER TABLE t RENAME COLUMN a TO x",
        "ALTER TABLE t RENAME COLUMN b TO a",
        "ALTER TABLE t RENAME COLUMN x TO b",
        "COMMIT",
    ),
    "drop a column": ("ALTER TABLE t DROP COLUMN b", "INSERT INTO t VALUES (9, 'n')"),
    "drop a column and add another": (
        "BEGIN",
        "ALTER TABLE t DROP COLUMN b",
        "ALTER TABLE t ADD COLUMN c",
        "UPDATE t SET c = 'c' || id",
        "COMMIT",
    ),
    "drop a column and add it again": (
        "BEGIN",
        "ALTER TABLE t DROP COLUMN b",
        "ALTER TABLE t ADD COLUMN b DEFAULT 'new'",
        "COMMIT",
    ),
    "another type": rebuild("t", "id INTEGER PRIMARY KEY, a TEXT, b TEXT", "id, a, 'n' || b"),
    "another default": rebuild("t", "id INTEGER PRIMARY KEY, a TEXT DEFAULT 'x', b INT", "id, a, b"),
    "another order of columns": rebuild("t", "id INTEGER PRIMARY KEY, b INT, a TEXT", "id, b, a"),
    "a constraint": rebuild("t", "id INTEGER PRIMARY KEY, a TEXT NOT NULL, b INT CHECK (b > 0), UNIQUE(a)", "id, a, b"),
    "a unique column that must have a value": rebuild(
        "t", "id INTEGER PRIMARY KEY, a TEXT, b INT, slug TEXT NOT NULL UNIQUE", "id, a, b, 'slug-' || id"
    ),
    "a renamed column at another place": rebuild("t", "id INTEGER PRIMARY KEY, b INT, name TEXT", "id, b, a"),
    "a longer key": rebuild("k", "id TEXT NOT NULL, n INT NOT NULL, m TEXT, PRIMARY KEY(id, n)", "id, n, m"),
    "another key": rebuild("k", "id TEXT NOT NULL, n INT PRIMARY KEY NOT NULL, m TEXT", "id, n, m"),
    "a strict table": rebuild("k", "id TEXT PRIMARY KEY NOT NULL, n INT, m TEXT", "*", "CREATE INDEX k_n ON k(n)"),
    "without rowid": (
        "BEGIN",
        "CREATE TABLE x(id TEXT PRIMARY KEY NOT NULL, n INT, m TEXT) WITHOUT ROWID",
        "INSERT INTO x SELECT * FROM k",
        "DROP TABLE k",
        "ALTER TABLE x RENAME TO k",
        "COMMIT",
    ),
    "a table that counts": rebuild("t", "id INTEGER PRIMARY KEY AUTOINCREMENT, a TEXT, b INT", "id, a, b"),
    "fewer rows": rebuild("t", "id INTEGER PRIMARY KEY, a TEXT UNIQUE, b INT", "*", "DELETE FROM t WHERE id = 2"),
    "an index": ("CREATE INDEX t_a ON t(a)", "DROP INDEX t_a", "CREATE INDEX t_a ON t(a, b)"),
    "no index": ("CREATE INDEX t_a ON t(a)", "DROP INDEX t_a"),
    "a view": ("CREATE VIEW w AS SELECT a FROM t", "DROP VIEW w", "CREATE VIEW w AS SELECT b FROM t"),
    "a trigger": (
        "CREATE TABLE l(id INTEGER PRIMARY KEY, a)",
        "CREATE TRIGGER g AFTER INSERT ON t BEGIN INSERT INTO l(a) VALUES (new.a); END",
        "DROP TRIGGER g",
        "CREATE TRIGGER g AFTER INSERT ON t BEGIN INSERT INTO l(a) VALUES (new.b); END",
        "INSERT INTO t VALUES (9, 'n', 90)",
    ),
    "a view becomes a table": (
        "CREATE VIEW w AS SELECT a FROM t",
        "DROP VIEW w",
        "CREATE TABLE w(id INTEGER PRIMARY KEY)",
        "INSERT INTO w VALUES (5)",
    ),
    "a column of an index": (
        "CREATE INDEX t_b ON t(b)",
        "DROP INDEX t_b",
        "ALTER TABLE t DROP COLUMN b",
    ),
    "a table made again": ("DROP TABLE t", PAIRED, "INSERT INTO t VALUES (1, 'new', 1), (7, 'seven', 7)"),
    "a table made again with other columns": (
        "DROP TABLE t",
        "CREATE TABLE t(id INTEGER PRIMARY KEY, c, d, e)",
        "INSERT INTO t VALUES (1, 'new', 1, 2)",
    ),
    "a full-text index goes": (
        "CREATE VIRTUAL TABLE f USING fts5(a, content='t', content_rowid='id')",
        "CREATE TRIGGER f_i AFTER INSERT ON t BEGIN INSERT INTO f(rowid, a) VALUES (new.id, new.a); END",
        "INSERT INTO t VALUES (9, 'n', 90)",
        "DROP TRIGGER f_i",
        "DROP TABLE f",
    ),
}


@pytest.mark.parametrize("seen", ["at the end", "each statement", "each statement, sent late"])
@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("what", CHANGES)
def test_what_one_node_changes_all_have(make_group: Callable[[int], Group], what: str, shards: int, seen: str) -> None:
    group = make_group(shards)
    a, _ = pair(group)
    for sql in CHANGES[what]:
        a.run(sql)
        if seen != "at the end" and not a.app.in_transaction:
            if seen == "each statement":
                group.settle()
            elif a.replica.schema_changed():
                a.replica.reinstall()
    same(group)


@pytest.mark.parametrize("what", CHANGES)
def test_both_may_make_the_same_change(group: Group, what: str) -> None:
    for member in pair(group):
        for sql in CHANGES[what]:
            member.run(sql)
    for member in group.members:
        member.send()
    same(group)


@pytest.mark.parametrize("what", CHANGES)
def test_rows_that_the_other_node_wrote_meanwhile_arrive(group: Group, what: str) -> None:
    a, b = pair(group)
    for sql in CHANGES[what]:
        a.run(sql)
    a.send()
    b.run("INSERT INTO k VALUES ('mine', 5, 'm')")
    b.run("UPDATE k SET m = 'changed' WHERE id = 'a'")
    b.send()
    same(group)
    if "swap" not in what:
        assert a.run("SELECT m FROM k WHERE id IN ('mine', 'a') ORDER BY 1") == [("changed",), ("m",)]


FILLS = {
    "a value, with a default": (
        "UPDATE t SET a = 'filled' WHERE a IS NULL",
        *rebuild("t", "id INTEGER PRIMARY KEY, a TEXT NOT NULL DEFAULT 'd', b INT", "id, a, b"),
    ),
    "a value": (
        "UPDATE t SET a = 'filled' WHERE a IS NULL",
        *rebuild("t", "id INTEGER PRIMARY KEY, a TEXT NOT NULL, b INT", "id, a, b"),
    ),
    "a value, with a default, among other columns": rebuild(
        "t", "id INTEGER PRIMARY KEY, a TEXT NOT NULL DEFAULT 'd', c INT DEFAULT 7", "id, ifnull(a, 'filled'), 7"
    ),
    "no value twice": (
        "UPDATE t SET b = id",
        *rebuild("t", "id INTEGER PRIMARY KEY, a TEXT, b INT UNIQUE", "id, a, b"),
    ),
    "what a check wants": (
        "UPDATE t SET b = 100",
        *rebuild("t", "id INTEGER PRIMARY KEY, a TEXT, b INT CHECK (b >= 100)", "id, a, b"),
    ),
}
"""A migration fills a column, then demands something of it."""


@pytest.mark.parametrize("seen", ["at the end", "each statement"])
@pytest.mark.parametrize("what", FILLS)
def test_a_migration_may_fill_what_it_then_demands(group: Group, what: str, seen: str) -> None:
    a, _ = pair(group)
    a.run("INSERT INTO t VALUES (4, NULL, 'text'), (5, NULL, 'text')")
    group.settle()
    for sql in FILLS[what]:
        a.run(sql)
        if seen == "each statement" and not a.app.in_transaction:
            group.settle()
    same(group)


def test_a_node_that_adds_only_lets_the_rest_wait_until_somebody_accepts_it(group: Group) -> None:
    a, b = (group.member(PAIRED, KEYED, apply_schema=mode) for mode in ("all", "additive"))
    a.run("INSERT INTO t VALUES (1, 'x', 10)")
    group.settle()
    a.run("ALTER TABLE t RENAME COLUMN a TO c")
    a.run("CREATE TABLE n(id INTEGER PRIMARY KEY)")
    a.run("DROP TABLE k")
    a.send()
    b.receive()
    assert [w.object for w in b.replica.waiting_schema()] == ["drop table k", "table t: a to c"]
    assert b.run("SELECT a FROM t") == [("x",)]
    b.run("INSERT INTO t VALUES (2, 'mine', 20)")
    b.send()
    a.receive()
    assert a.run("SELECT c FROM t WHERE id = 2") == [("mine",)], "what waits here holds nothing up"
    b.stop()
    b.start()
    assert b.replica.accept_schema() == ["drop table k", "table t: a to c"]
    same(group)
    assert b.run("SELECT c FROM t ORDER BY 1") == [("mine",), ("x",)]


def test_what_waits_may_be_made_by_hand(group: Group) -> None:
    a, b = (group.member(PAIRED, KEYED, apply_schema=mode) for mode in ("all", "additive"))
    a.run("INSERT INTO t VALUES (1, 'x', 10)")
    group.settle()
    changes = ("ALTER TABLE t RENAME COLUMN a TO c", "DROP TABLE k", "ALTER TABLE t DROP COLUMN b")
    for sql in changes:
        a.run(sql)
        a.send()
        a.receive()
    b.receive()
    assert len(b.replica.waiting_schema()) == 3
    for sql in changes:
        b.run(sql)
    same(group)


def test_rows_that_were_never_sent_of_a_table_that_is_dropped_are_in_the_journal(group: Group) -> None:
    a, b = pair(group)
    b.run("INSERT INTO t VALUES (4, 'mine', 40)")
    a.run("DROP TABLE t")
    a.send()
    b.receive()
    assert b.replica.waiting_schema() == []
    found = {(c.kind, c.table, c.key["id"], c.column, c.overruled) for c in b.replica.conflicts()}
    assert found == {("dropped", "t", 4, "a", "mine"), ("dropped", "t", 4, "b", 40)}
    group.settle()
    same(group)


def test_a_table_with_rows_under_way_makes_way_for_one_of_its_name(group: Group) -> None:
    a, b = pair(group)
    for sql in ("DROP TABLE t", PAIRED, "INSERT INTO t VALUES (1, 'new', 1)"):
        a.run(sql)
        a.send()
        a.receive()
    b.run("INSERT INTO t VALUES (4, 'mine', 40)")
    b.send()
    b.run("INSERT INTO t VALUES (5, 'unsent', 50)")
    b.receive()
    group.settle()
    assert b.run("SELECT id, a FROM t") == [(1, "new")]
    found = {(c.key["id"], c.overruled) for c in b.replica.conflicts() if c.kind == "dropped" and c.column == "a"}
    assert found == {(4, "mine"), (5, "unsent")}
    same(group)


def test_rows_for_a_table_that_was_dropped_are_in_the_journal(group: Group) -> None:
    a, b = pair(group)
    b.run("INSERT INTO t VALUES (4, 'mine', 40)")
    b.capture()
    a.run("DROP TABLE t")
    a.send()
    b.publish()
    a.receive()
    b.receive()
    found = {(c.kind, c.column, c.overruled) for c in a.replica.conflicts(table="t")}
    assert {("dropped", "a", "mine"), ("dropped", "b", 40)} <= found


def test_a_table_that_is_dropped_and_made_again_is_new_to_rows_under_way(group: Group) -> None:
    a, b = pair(group)
    b.run("UPDATE t SET a = 'late'")
    b.capture()
    for sql in ("DROP TABLE t", PAIRED, "INSERT INTO t VALUES (1, 'new', 1)"):
        a.run(sql)
        a.send()
        a.receive()
    b.publish()
    b.receive()
    group.settle()
    assert a.run("SELECT * FROM t") == b.run("SELECT * FROM t") == [(1, "new", 1)]


@pytest.mark.parametrize("first", ["a", "b"])
@pytest.mark.parametrize(
    ("mine", "theirs"),
    [
        ("ALTER TABLE t RENAME COLUMN a TO c", "ALTER TABLE t RENAME COLUMN b TO d"),
        ("ALTER TABLE t RENAME COLUMN a TO c", "ALTER TABLE t DROP COLUMN b"),
        ("ALTER TABLE t RENAME COLUMN a TO c", "ALTER TABLE t ADD COLUMN e"),
        ("ALTER TABLE t DROP COLUMN b", "ALTER TABLE t ADD COLUMN e"),
        ("ALTER TABLE t RENAME TO u", "ALTER TABLE t ADD COLUMN e"),
        ("ALTER TABLE t RENAME TO u", "ALTER TABLE t RENAME COLUMN a TO c"),
        ("ALTER TABLE t RENAME TO u", "DROP TABLE k"),
        ("ALTER TABLE t RENAME COLUMN a TO c", "ALTER TABLE t RENAME COLUMN a TO e"),
        ("ALTER TABLE t RENAME TO u", "ALTER TABLE t RENAME TO x"),
        ("DROP TABLE t", "ALTER TABLE t ADD COLUMN e"),
        ("CREATE INDEX i ON t(a)", "CREATE INDEX i ON t(b)"),
        ("CREATE VIEW w AS SELECT a FROM t", "CREATE VIEW w AS SELECT b FROM t"),
        ("CREATE TABLE n(id INTEGER PRIMARY KEY, v TEXT)", "CREATE TABLE n(id INTEGER PRIMARY KEY, v INT, w)"),
    ],
)
def test_two_nodes_may_change_at_once(group: Group, mine: str, theirs: str, first: str) -> None:
    a, b = pair(group)
    a.run(mine)
    b.run(theirs)
    for member in (a, b) if first == "a" else (b, a):
        member.send()
    group.settle()
    same(group)


NAMES_AGAIN = {
    "a name that another column had": ("RENAME COLUMN a TO c", "RENAME COLUMN b TO a"),
    "names that are exchanged": ("RENAME COLUMN a TO c", "RENAME COLUMN b TO a", "RENAME COLUMN c TO b"),
    "a name that was dropped": ("DROP COLUMN a", "ADD COLUMN a DEFAULT 'new'"),
    "a name that was dropped, by another": ("DROP COLUMN a", "RENAME COLUMN b TO a"),
    "a name that was renamed, new": ("RENAME COLUMN a TO c", "ADD COLUMN a DEFAULT 'new'"),
}


@pytest.mark.parametrize("late", [0, 1, 2, None])
@pytest.mark.parametrize("steps", NAMES_AGAIN.values(), ids=NAMES_AGAIN)
def test_a_column_may_get_the_name_of_another_that_the_stream_still_knows(
    group: Group, steps: tuple[str, ...], late: int | None
) -> None:
    a, b = pair(group)
    b.run("UPDATE t SET a = 'late', b = 99 WHERE id = 2")
    b.capture()
    for place, step in enumerate(steps):
        if place == late:  # a row under the older names arrives in between
            b.publish()
            a.receive()
        a.run(f"ALTER TABLE t {step}")
        a.replica.reinstall()
    if late is None or late >= len(steps):
        a.send()
        b.publish()
    same(group)


@pytest.mark.parametrize("what", CHANGES)
def test_a_node_that_was_away_takes_the_changes_from_a_snapshot(group: Group, what: str) -> None:
    a, b = pair(group)
    b.run("UPDATE k SET m = 'mine' WHERE id = 'a'")
    for sql in CHANGES[what]:
        a.run(sql)
        if not a.app.in_transaction:
            a.send()
            a.receive()
    snapshot = group.folder / "snapshot.db"
    save_copy(a.options.mirror, snapshot)
    b.replica.adopt(snapshot)
    b.reassembler = type(b.reassembler)(b.replica.positions())
    same(group)
