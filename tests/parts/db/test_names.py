"""Tables and columns that differ in the case of their names alone are one on every node."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from harmonylite.db.snapshot import save_copy
from tests.parts.db.fix_replicas import Group, Member


def rows(member: Member, schema: str) -> list[tuple[Any, ...]]:
    """Return the rows of the table of users, whose key can't hold NULL."""
    (table,) = member.replica.tables
    return [(row[0], row[-1]) for row in member.rows(table, schema)]


@pytest.mark.parametrize("shards", [1, 3])
def test_tables_whose_names_differ_in_case_hold_the_same_rows(make_group: Callable[[int], Group], shards: int) -> None:
    group = make_group(shards)
    a = group.member("CREATE TABLE Users(Id TEXT PRIMARY KEY, Name TEXT)")
    b = group.member("CREATE TABLE users(id TEXT PRIMARY KEY, name TEXT)", "INSERT INTO users VALUES ('of b', 'x')")
    a.run("INSERT INTO Users VALUES ('of a', 'y')")
    b.run("INSERT INTO users VALUES ('new', 'z')")
    group.settle()
    a.run("UPDATE Users SET Name = 'changed' WHERE Id = 'of b'")
    b.run("DELETE FROM users WHERE id = 'of a'")
    group.settle()
    for schema in ("main", "mirror"):
        assert rows(a, schema) == rows(b, schema) == [("new", "z"), ("of b", "changed")]
    assert set(a.replica.digests().values()) == set(b.replica.digests().values())
    a.run("UPDATE Users SET Name = 'left' WHERE Id = 'new'")
    b.run("UPDATE users SET name = 'right' WHERE id = 'new'")
    group.settle()
    assert rows(a, "main") == rows(b, "main") == rows(a, "mirror") == rows(b, "mirror")
    for name in ("USERS", "users", "Users"):
        assert [c.column.lower() for c in a.replica.conflicts(table=name)] == ["name"]


def test_names_that_differ_in_more_than_the_case_of_ascii_are_two(group: Group) -> None:
    ddl = "CREATE TABLE Ä(id INTEGER PRIMARY KEY, v)", "CREATE TABLE ä(id INTEGER PRIMARY KEY, w)"
    a, b = group.several(2, *ddl, apply_schema="additive")
    a.run("INSERT INTO Ä VALUES (1, 'large')")
    b.run("INSERT INTO ä VALUES (1, 'small')")
    group.settle()
    for name in ("é", "É"):
        a.run(f"ALTER TABLE ä ADD COLUMN {name}")
        a.run(f"UPDATE ä SET {name} = '{name}'")
        group.settle()
    copy = b.options.folder / "incoming.db"
    save_copy(a.options.mirror, copy)
    b.replica.adopt(copy)
    group.settle()
    for member in (a, b):
        assert member.run("SELECT * FROM Ä") == [(1, "large")]
        assert member.run("SELECT * FROM ä") == [(1, "small", "é", "É")]
