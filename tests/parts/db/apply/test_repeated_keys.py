"""A key that may be NULL is one key, however often it was folded: merging takes no longer for its repetitions."""

from __future__ import annotations

import pytest

from harmonylite.db.apply.pending import Pending
from harmonylite.db.sqlite.connection import value
from harmonylite.db.tracking.tracked_table import TrackedTable
from tests.parts.db.fix_replicas import Group, Member

COUNTER = "CREATE TABLE counter(name TEXT PRIMARY KEY, n INTEGER)"
ADD = "UPDATE counter SET n = n + 1 WHERE name = ?"


@pytest.fixture
def merged(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many keys each merge of pending rows was about."""
    seen: list[int] = []
    find = Pending.find

    def found(self: Pending, table: TrackedTable) -> bool:
        seen.append(int(value(self._connection, f"SELECT count(*) FROM {table.scratch('touched')}")))
        return find(self, table)

    monkeypatch.setattr(Pending, "find", found)
    return seen


def begun(group: Group) -> tuple[Member, Member]:
    a, b = group.several(2, COUNTER)
    a.run("INSERT INTO counter VALUES ('a', 0), ('b', 0)")
    group.settle()
    return a, b


def same(a: Member, b: Member, rows: list[tuple[str, int]]) -> None:
    assert all(member.run("SELECT name, n FROM counter ORDER BY name") == rows for member in (a, b))


def test_others_change_sets_that_are_folded_together_are_one_key_to_merge(group: Group, merged: list[int]) -> None:
    a, b = begun(group)
    for _ in range(5):
        b.run(ADD, ("b",))
        b.send()
        b.receive()
    a.run(ADD, ("b",))
    a.receive()
    assert merged[-1] == 1
    group.settle()
    same(a, b, [("a", 0), ("b", 1)])


def test_what_came_back_of_ones_own_change_sets_is_not_merged_again_later(group: Group, merged: list[int]) -> None:
    a, b = begun(group)
    for _ in range(5):
        a.run(ADD, ("a",))
        a.send()
        a.receive()
    b.receive()
    b.run(ADD, ("b",))
    b.send()
    a.run(ADD, ("a",))
    a.receive()
    assert merged[-1] == 1, "only the row that the other node changed"
    group.settle()
    same(a, b, [("a", 6), ("b", 1)])
