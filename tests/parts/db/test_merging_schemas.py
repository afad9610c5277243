"""Two nodes change one schema at the same time: both have the same then, and neither stops."""

from __future__ import annotations

import pytest

from tests.parts.db.fix_replicas import Group
from tests.parts.db.fix_schemas import pair, same


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
