"""Two nodes give one name to two things at the same time: both are there then, on every node, with their rows."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import apsw
import pytest

from tests.parts.db.fix_replicas import Group, copied
from tests.parts.db.fix_schemas import at_once, pair, same, schema

RENAMED = ("ALTER TABLE t RENAME TO u",)
AWAY = ("ALTER TABLE t RENAME TO v", "ALTER TABLE k RENAME TO u")
INDEX = ("CREATE INDEX u ON k(m)",)
VIEW = ("CREATE VIEW u AS SELECT id FROM k",)
MADE = ("CREATE TABLE u(id TEXT PRIMARY KEY NOT NULL, own)", "INSERT INTO u VALUES ('b', 1)")

ONE_NAME: dict[str, tuple[tuple[str, ...], tuple[str, ...], set[str], set[str]]] = {
    "a table is renamed, one is made": (RENAMED, MADE, {"k", "u", "u_2"}, {"k", "t", "u"}),
    "two tables are renamed, one is made": (AWAY, MADE, {"v", "u", "u_2"}, {"k", "v", "u"}),
    "a view is made, and a table": (VIEW, MADE, {"k", "t", "u", "u_2"}, {"k", "t", "u"}),
    "an index is made, and a table": (INDEX, MADE, {"k", "t", "u", "u_2"}, {"k", "t", "u"}),
    "a table is renamed, a view is made": (RENAMED, VIEW, {"k", "u"}, {"k", "t", "u"}),
    "a table is renamed, an index is made": (RENAMED, INDEX, {"k", "u"}, {"k", "t", "u"}),
    "a view is made, and an index": (VIEW, INDEX, {"k", "t", "u"}, {"k", "t", "u"}),
}
"""What two nodes do, and the names of what there is then: by the order in which both are sent."""


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("under_way", [True, False])
@pytest.mark.parametrize("first", ["a", "b"])
@pytest.mark.parametrize("what", ONE_NAME)
def test_two_things_of_one_name_are_both_there_with_their_rows(
    make_group: Callable[[int], Group], tmp_path: Path, what: str, first: str, under_way: bool, shards: int
) -> None:
    group = make_group(shards)
    a, b = pair(group)
    renames, makes, *seen = ONE_NAME[what]
    at_once(a, b, renames, makes, first=first, under_way=under_way)
    for member in (a, b):
        member.receive()
    same(group)
    names = {name for _, name in schema(a)}
    assert names == seen[0 if first == "a" else 1] or not under_way
    rows = [row for name in names & a.replica.tables.keys() for row in a.run(f"SELECT * FROM {name}")]
    assert len(rows) == 5 + ("INSERT" in makes[-1])
    with closing(apsw.Connection(str(copied(a, tmp_path / "copy")))) as copy:
        assert {name for (name,) in copy.execute("SELECT name FROM sqlite_schema WHERE sql NOT NULL")} >= names
