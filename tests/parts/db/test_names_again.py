"""A name that comes again is a new thing: a table that was dropped starts with what its maker put in."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from tests.parts.db.fix_replicas import Group, Member

OLD = "CREATE TABLE t(id TEXT PRIMARY KEY NOT NULL, v)"
DROP = ("DROP TABLE t",)
AGAIN: dict[str, tuple[Sequence[str], list[tuple[object, ...]]]] = {
    "the same": ((*DROP, OLD, "INSERT INTO t VALUES ('new', 2)"), [("new", 2)]),
    "the same row": ((*DROP, OLD, "INSERT INTO t VALUES ('old', 2)"), [("old", 2)]),
    "empty": ((*DROP, OLD), []),
    "other columns": (
        (*DROP, "CREATE TABLE t(id TEXT PRIMARY KEY NOT NULL, w)", "INSERT INTO t VALUES ('new', 2)"),
        [("new", 2)],
    ),
    "another key": (
        (*DROP, "CREATE TABLE t(n INTEGER PRIMARY KEY, v)", "INSERT INTO t VALUES (7, 'new')"),
        [(7, "new")],
    ),
    "more columns": (
        (*DROP, "CREATE TABLE t(id TEXT PRIMARY KEY NOT NULL, v, w NOT NULL)", "INSERT INTO t VALUES ('old', 2, 3)"),
        [("old", 2, 3)],
    ),
    "no rowid": (
        (*DROP, "CREATE TABLE t(id TEXT PRIMARY KEY NOT NULL, v) WITHOUT ROWID", "INSERT INTO t VALUES ('new', 2)"),
        [("new", 2)],
    ),
    "other letters": (
        (*DROP, "CREATE TABLE T(id TEXT PRIMARY KEY NOT NULL, v)", "INSERT INTO t VALUES ('new', 2)"),
        [("new", 2)],
    ),
    "renamed over": (
        (
            "CREATE TABLE u(id TEXT PRIMARY KEY NOT NULL, v)",
            "INSERT INTO u VALUES ('new', 2)",
            *DROP,
            "ALTER TABLE u RENAME TO t",
        ),
        [("new", 2)],
    ),
    "twice": (
        (*DROP, OLD, "INSERT INTO t VALUES ('between', 2)", *DROP, OLD, "INSERT INTO t VALUES ('new', 3)"),
        [("new", 3)],
    ),
}
PAUSES: dict[str, Callable[[int], Sequence[int]]] = {
    "each statement seen": range,
    "none seen before the end": lambda n: (n - 1,),
    "the drop seen": lambda n: (0, n - 1),
    "all but the insert seen": lambda n: (n - 2, n - 1),
}


def go(member: Member, statements: Sequence[str], seen: Sequence[int]) -> None:
    """Run an application's statements; the node looks after those at the places ``seen``."""
    for place, sql in enumerate(statements):
        member.run(sql)
        if place in seen:
            member.replica.reinstall()
            member.send()
            member.receive()


@pytest.mark.parametrize("pause", PAUSES)
@pytest.mark.parametrize("again", AGAIN)
def test_a_table_made_again_starts_with_what_its_maker_put_in(group: Group, again: str, pause: str) -> None:
    (a,) = group.several(1, OLD)
    a.run("INSERT INTO t VALUES ('old', 1), ('older', 0)")
    group.settle()
    statements, rows = AGAIN[again]
    go(a, statements, PAUSES[pause](len(statements)))
    name = next(name for name in ("t", "T") if name in a.replica.tables)
    assert a.run("SELECT * FROM t") == rows
    assert len(group.equal(name)) == len(rows)


@pytest.mark.parametrize("pause", PAUSES)
@pytest.mark.parametrize("again", [name for name in AGAIN if name != "renamed over"])
def test_it_does_so_on_every_node_that_makes_it_again_first(group: Group, again: str, pause: str) -> None:
    a, b = group.several(2, OLD, apply_schema="all")
    a.run("INSERT INTO t VALUES ('old', 1), ('older', 0)")
    group.settle()
    statements, rows = AGAIN[again]
    made = [sql for sql in statements if not sql.startswith("INSERT")]
    go(b, made, PAUSES[pause](len(made)))
    b.receive()
    go(a, statements, PAUSES[pause](len(statements)))
    group.settle()
    assert a.run("SELECT * FROM t") == b.run("SELECT * FROM t") == rows


@pytest.mark.parametrize("pause", [False, True])
def test_tables_that_change_places_keep_their_own_rows(group: Group, pause: bool) -> None:
    a, b = group.several(2, OLD, "CREATE TABLE u(id TEXT PRIMARY KEY NOT NULL, v)")
    a.run("INSERT INTO t VALUES ('t', 1)")
    a.run("INSERT INTO u VALUES ('u', 2)")
    group.settle()
    for member in (a, b):
        for sql in ("ALTER TABLE t RENAME TO x", "ALTER TABLE u RENAME TO t", "ALTER TABLE x RENAME TO u"):
            member.run(sql)
            if pause:
                member.replica.reinstall()
    assert group.equal("t") == [("u", 2)]
    assert group.equal("u") == [("t", 1)]


def test_a_table_that_was_dropped_while_the_node_was_down_and_made_again_is_a_new_one(group: Group) -> None:
    (a,) = group.several(1, OLD)
    a.run("INSERT INTO t VALUES ('old', 1)")
    group.settle()
    for sql in (*DROP, OLD, "INSERT INTO t VALUES ('new', 2)"):
        a.stop()
        a.run(sql)
        a.start()
        assert "t" in a.replica.tables or sql in DROP
    assert group.equal("t") == [("new", 2)]
