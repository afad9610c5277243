"""Rows of a table without a key that two nodes insert in turn: no value goes without a trace; a warning says why."""

from __future__ import annotations

import pytest

from tests.parts.db.fix_replicas import Group

COUNT = 20


@pytest.mark.parametrize("ddl", ["CREATE TABLE nokey(a, b)", "CREATE TABLE nokey(a TEXT, b INT UNIQUE)"])
def test_rows_that_count_the_same_rowid_are_rows_or_in_the_journal(group: Group, ddl: str) -> None:
    members = group.several(2, ddl)
    for number in range(COUNT):
        for member in members:
            member.run("INSERT INTO nokey VALUES (?, ?)", (member.options.node, number * 2 + members.index(member)))
    rows = group.equal("nokey")
    journals = [conflict for member in members for conflict in member.replica.conflicts(limit=1_000)]
    seen = {repr(value) for row in rows for value in row} | {repr(c.overruled) for c in journals}
    assert {repr(number) for number in range(2 * COUNT)} <= seen
    assert len(rows) == COUNT
    for member in members:
        assert "nodes that insert count the same rowids" in member.replica.warnings["nokey"]
        assert "VACUUM may renumber" in member.replica.warnings["nokey"]
