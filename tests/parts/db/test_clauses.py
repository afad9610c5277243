"""The conflict clauses of a table's own definition never decide for the node: all goes as in a table without them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from harmonylite.errors import PoisonError
from tests.parts.db.fix_replicas import Group, Member

CLAUSES = ["ROLLBACK", "ABORT", "FAIL", "IGNORE", "REPLACE"]
UNIQUE = {
    "UNIQUE": "CREATE TABLE t(id INTEGER PRIMARY KEY, u TEXT UNIQUE{}, v)",
    "UNIQUE of two columns": "CREATE TABLE t(id INTEGER PRIMARY KEY, u TEXT, v, UNIQUE (v, u){})",
    "text key": "CREATE TABLE t(id TEXT PRIMARY KEY{0}, u TEXT UNIQUE{0}, v)",
    "integer key": "CREATE TABLE t(id INTEGER PRIMARY KEY{0}, u TEXT UNIQUE{0}, v)",
    "without rowid": "CREATE TABLE t(id TEXT, u TEXT UNIQUE{0}, v, PRIMARY KEY (id){0}) WITHOUT ROWID",
    "key and value": "CREATE TABLE t(id INTEGER, u TEXT, v, UNIQUE (u){0}, UNIQUE (id){0})",
}
OTHER = {
    "NOT NULL": "CREATE TABLE t(id INTEGER PRIMARY KEY, u TEXT NOT NULL{}, v)",
    "NOT NULL with a default": "CREATE TABLE t(id INTEGER PRIMARY KEY, u TEXT NOT NULL{} DEFAULT 'd', v)",
    "CHECK": "CREATE TABLE t(id INTEGER PRIMARY KEY, u TEXT, v, CHECK (u IS NOT NULL){})",
}
LOOSE = "CREATE TABLE t(id INTEGER PRIMARY KEY, u TEXT, v)"

Scenario = Callable[[Group, str], tuple[Member, Member]]


def inserts(group: Group, ddl: str) -> tuple[Member, Member]:
    """Both nodes insert a row with the same unique value."""
    a, b = group.several(2, ddl)
    a.run("INSERT INTO t VALUES (1, 'x', 0)")
    b.run("INSERT INTO t VALUES (2, 'x', 0)")
    return a, b


def updates(group: Group, ddl: str) -> tuple[Member, Member]:
    """Both nodes set a row of theirs to the same unique value."""
    a, b = group.several(2, ddl)
    a.run("INSERT INTO t VALUES (1, 'one', 0), (2, 'two', 0), (3, 'three', 0)")
    group.settle()
    a.run("UPDATE t SET u = 'x' WHERE id = 1")
    b.run("UPDATE t SET u = 'x' WHERE id = 2")
    b.run("UPDATE t SET v = 5 WHERE id = 3")
    return a, b


def exchange(group: Group, ddl: str) -> tuple[Member, Member]:
    """One node lets rows exchange their unique values, the other changes other columns of them."""
    a, b = group.several(2, ddl)
    a.run("INSERT INTO t VALUES (1, 'x', 0), (2, 'y', 0)")
    group.settle()
    for u, key in (("-", 1), ("x", 2), ("y", 1)):
        a.run("UPDATE t SET u = ? WHERE id = ?", (u, key))
    b.run("UPDATE t SET v = 0.5 WHERE id = 1")
    return a, b


def same_key(group: Group, ddl: str) -> tuple[Member, Member]:
    """Both nodes insert a row of one key."""
    a, b = group.several(2, ddl)
    a.run("INSERT INTO t VALUES (1, 'x', 0)")
    b.run("INSERT INTO t VALUES (1, 'y', 0)")
    return a, b


def joining(group: Group, ddl: str) -> tuple[Member, Member]:
    """A file joins whose rows clash with the cluster's."""
    a = group.member(ddl, "INSERT INTO t VALUES (1, 'x', 0), (3, 'z', 0)")
    b = group.member(ddl, "INSERT INTO t VALUES (2, 'x', 0), (4, 'z', 0), (5, 'w', 0)")
    return a, b


def repaired(group: Group, ddl: str) -> tuple[Member, Member]:
    """A file whose rows were changed behind the node's back takes the mirror's again."""
    a, b = group.several(2, ddl)
    a.run("INSERT INTO t VALUES (1, 'x', 0), (2, 'y', 0), (3, 'z', 0)")
    group.settle()
    b.stop()
    for (name,) in b.run("SELECT name FROM sqlite_schema WHERE type = 'trigger'"):
        b.run(f'DROP TRIGGER "{name}"')
    b.run("DELETE FROM t WHERE id = 1")
    b.run("UPDATE t SET u = 'x' WHERE id = 2")
    b.run("INSERT INTO t VALUES (9, 'y', 0)")
    b.start()
    b.replica.reconcile(first=False)
    return a, b


SCENARIOS: dict[str, Scenario] = {
    each.__name__: each for each in (inserts, updates, exchange, same_key, joining, repaired)
}


def outcome(group: Group, scenario: Scenario, ddl: str) -> tuple[Any, ...]:
    """Return all rows at the end, and what the nodes' journals say."""
    members = scenario(group, ddl)
    found = group.equal("t")
    told = [
        sorted((c.kind, repr(c.key), c.column, repr(c.overruled), repr(c.winning)) for c in m.replica.conflicts())
        for m in members
    ]
    return found, told, [m.replica.held_rows() for m in members]


@pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=SCENARIOS)
@pytest.mark.parametrize("ddl", UNIQUE.values(), ids=UNIQUE)
def test_a_clause_of_a_unique_constraint_decides_nothing(
    make_group: Callable[[int], Group], ddl: str, scenario: Scenario
) -> None:
    expected = outcome(make_group(1), scenario, ddl.format(""))
    for clause in CLAUSES:
        assert outcome(make_group(1), scenario, ddl.format(f" ON CONFLICT {clause}")) == expected, clause


@pytest.mark.parametrize("clause", ["", *(f" ON CONFLICT {each}" for each in CLAUSES)])
@pytest.mark.parametrize("change", ["insert", "update"])
@pytest.mark.parametrize("ddl", [each for name, each in OTHER.items() if name != "CHECK"])
def test_a_clause_of_not_null_neither_drops_nor_changes_a_row(group: Group, ddl: str, change: str, clause: str) -> None:
    writer, reader = group.member(LOOSE), group.member(ddl.format(clause))
    if change == "update":
        writer.run("INSERT INTO t VALUES (1, 'x', 0)")
        group.settle()
        writer.run("UPDATE t SET u = NULL")
    else:
        writer.run("INSERT INTO t VALUES (1, NULL, 0)")
    writer.send()
    with pytest.raises(PoisonError, match=r"of table t with the key 1, .*NOT NULL constraint failed: t\.u"):
        reader.receive()


def test_a_null_beside_a_row_that_displaces_another_is_refused_too(group: Group) -> None:
    writer = group.member("CREATE TABLE t(id INTEGER PRIMARY KEY, u TEXT UNIQUE, v)")
    reader = group.member("CREATE TABLE t(id INTEGER PRIMARY KEY, u TEXT UNIQUE, v NOT NULL DEFAULT 7)")
    writer.run("INSERT INTO t VALUES (1, 'x', 0)")
    group.settle()
    writer.run("INSERT OR REPLACE INTO t VALUES (2, 'x', 0), (3, 'y', NULL)")
    writer.send()
    with pytest.raises(PoisonError, match=r"of table t with the key 3, .*NOT NULL constraint failed: t\.v"):
        reader.receive()


@pytest.mark.parametrize("clause", ["", *(f" ON CONFLICT {each}" for each in CLAUSES)])
@pytest.mark.parametrize("change", ["insert", "update"])
def test_a_row_that_a_check_of_this_node_would_refuse_comes_all_the_same(
    group: Group, change: str, clause: str
) -> None:
    writer, reader = group.member(LOOSE), group.member(OTHER["CHECK"].format(clause))
    if change == "update":
        writer.run("INSERT INTO t VALUES (1, 'x', 0)")
        group.settle()
    writer.run("INSERT OR REPLACE INTO t VALUES (1, NULL, 0)")
    assert group.equal("t") == reader.run("SELECT * FROM t") == [(1, None, 0)]
