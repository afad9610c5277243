"""An index, a view or a trigger that one node makes over what another one renames or drops: both have one schema."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.parts.db.fix_replicas import Group
from tests.parts.db.fix_schemas import at_once, pair, rebuild, same, schema

OBJECTS = {
    "an index": "CREATE INDEX o ON t(a)",
    "a unique index": "CREATE UNIQUE INDEX o ON t(a)",
    "an index on two columns": "CREATE INDEX o ON t(b DESC, a COLLATE NOCASE)",
    "an index on an expression": "CREATE INDEX o ON t(lower(a)) WHERE a <> 'a'",
    "a view": "CREATE VIEW o AS SELECT id, a FROM t",
    "a trigger": "CREATE TRIGGER o AFTER INSERT ON t WHEN NEW.a <> 'a' BEGIN UPDATE k SET m = NEW.a; END",
    "a trigger on one column": "CREATE TRIGGER o AFTER UPDATE OF a, b ON t BEGIN UPDATE k SET m = NEW.a; END",
    "a trigger on another table": "CREATE TRIGGER o AFTER INSERT ON k BEGIN UPDATE t SET a = NEW.m; END",
}
CHANGES: dict[str, tuple[str, ...]] = {
    "renames the column": ("ALTER TABLE t RENAME COLUMN a TO c",),
    "renames the table": ("ALTER TABLE t RENAME TO u",),
    "renames both": ("ALTER TABLE t RENAME COLUMN a TO c", "ALTER TABLE t RENAME TO u"),
    "exchanges columns": (
        "BEGIN",
        "ALTER TABLE t RENAME COLUMN a TO x",
        "ALTER TABLE t RENAME COLUMN b TO a",
        "ALTER TABLE t RENAME COLUMN x TO b",
        "COMMIT",
    ),
    "exchanges tables": (
        "BEGIN",
        "ALTER TABLE t RENAME TO x",
        "ALTER TABLE k RENAME TO t",
        "ALTER TABLE x RENAME TO k",
        "COMMIT",
    ),
    "drops the column": ("ALTER TABLE t DROP COLUMN a",),
    "drops the table": ("DROP TABLE t",),
    "makes it in another way": rebuild("t", "id INTEGER PRIMARY KEY, a BLOB, b INT", "id, a, b"),
    "makes it without the column": rebuild("t", "id INTEGER PRIMARY KEY, b INT", "id, b"),
    "makes another one": ("DROP TABLE t", "CREATE TABLE t(id INTEGER PRIMARY KEY, b)"),
}
LOSE = ("drops", "makes it without", "makes another")
"""What a trigger on another table waits for on the node that did it: a person says which of both is wanted."""


@pytest.mark.parametrize("under_way", [True, False])
@pytest.mark.parametrize("first", ["a", "b"])
@pytest.mark.parametrize(
    ("what", "change"),
    [(o, c) for o in OBJECTS for c in CHANGES if o != "a trigger on another table" or not c.startswith(LOSE)],
)
def test_what_is_made_over_a_table_that_changes_meanwhile_waits_nowhere(
    make_group: Callable[[int], Group], what: str, change: str, first: str, under_way: bool
) -> None:
    group = make_group(3 if first == "a" else 1)
    a, b = pair(group)
    for member in at_once(a, b, CHANGES[change], (OBJECTS[what],), first=first, under_way=under_way):
        member.receive()
    for _ in range(4):  # a section may be all that is said
        group.settle()
    for member in group.members:  # what is the same everywhere may be said
        said = member.replica._schema.left_out
        member.replica._schema.left_out = {key: why for key, why in said.items() if "does not fit" not in why}
    same(group)
    if change.startswith("renames"):
        assert any(name == "o" for _, name in schema(a))
