"""A mirror's table is changed in place where SQLite can, and is then the same as one that was made once more."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from harmonylite.db.mirror import table_shapes
from tests.parts.db.fix_replicas import Group, Member
from tests.parts.db.fix_schemas import rebuild

TABLE = (
    "CREATE TABLE t(id TEXT NOT NULL PRIMARY KEY, a, b INT DEFAULT 7 CHECK (b <> a), c, g AS (b + 1), CHECK (b > 0))",
    "CREATE UNIQUE INDEX t_a ON t(a)",
    "CREATE INDEX t_b ON t(b)",
)
IN_PLACE: dict[str, tuple[str, ...]] = {
    "a column": ("ALTER TABLE t ADD COLUMN d TEXT",),
    "a column with a default": ("ALTER TABLE t ADD COLUMN d TEXT DEFAULT 'it''s'",),
    "a column that must have its default": ("ALTER TABLE t ADD COLUMN d REAL NOT NULL DEFAULT -1.5",),
    "a column that refers": ("ALTER TABLE t ADD COLUMN d TEXT REFERENCES t(id)",),
    "a computed column": ("ALTER TABLE t ADD COLUMN d AS (c)",),
    "two columns": ("ALTER TABLE t ADD COLUMN d", "ALTER TABLE t ADD COLUMN [e e]"),
    "a new column that is unique": ("ALTER TABLE t ADD COLUMN d", "CREATE UNIQUE INDEX t_d ON t(d)"),
    "another name": ("ALTER TABLE t RENAME COLUMN c TO d",),
    "another name of an indexed column": ('ALTER TABLE t RENAME COLUMN a TO "the a"',),
    "another name of a checked column": ("ALTER TABLE t RENAME COLUMN b TO d",),
    "another name of the key": ("ALTER TABLE t RENAME COLUMN id TO d",),
    "a column less": ("ALTER TABLE t DROP COLUMN c",),
    "an index less": ("DROP INDEX t_a",),
    "an index more": ("CREATE UNIQUE INDEX t_c ON t(c)",),
}
POURED: dict[str, tuple[str, ...]] = {
    "a column made again": ("ALTER TABLE t DROP COLUMN c", "ALTER TABLE t ADD COLUMN c DEFAULT 5"),
    "a column less, one more": ("ALTER TABLE t DROP COLUMN c", "ALTER TABLE t ADD COLUMN d DEFAULT 5"),
    "columns that exchange their names": (
        "ALTER TABLE t RENAME COLUMN c TO x",
        "ALTER TABLE t RENAME COLUMN a TO c",
        "ALTER TABLE t RENAME COLUMN x TO a",
    ),
    "another default": rebuild("t", "id TEXT PRIMARY KEY NOT NULL, a TEXT, b INT DEFAULT 8, c", "id, a, b, c")[1:-1],
    "a column in the middle": rebuild("t", "id TEXT PRIMARY KEY NOT NULL, a TEXT, d, b, c", "id, a, 1, b, c")[1:-1],
}


def _change(group: Group, statements: tuple[str, ...]) -> Member:
    """Let one member make a change in one transaction, with a row under way; return the other one when all is done."""
    one, other = group.several(2, *TABLE, apply_schema="all")
    one.run("INSERT INTO t(id, a, b, c) VALUES ('x', 'p', 1, 1.5), ('y', 'q', 2, NULL), ('z', NULL, 3, x'00')")
    group.settle()
    other.run("INSERT INTO t(id, a, b, c) VALUES ('w', 'r', 4, 'under way')")
    other.send()
    for sql in ("BEGIN", *statements, "COMMIT"):
        one.run(sql)
    return other


def _root(member: Member) -> object:
    return member.replica.connection.execute("SELECT rootpage FROM mirror.sqlite_schema WHERE name = 't'").fetchall()


def _all(member: Member) -> object:
    schema = "SELECT type, name, sql FROM mirror.sqlite_schema WHERE tbl_name = 't' ORDER BY name"
    return member.replica.connection.execute(schema).fetchall(), member.rows("t", "mirror")


@pytest.mark.parametrize("statements", [*IN_PLACE.values(), *POURED.values()], ids=[*IN_PLACE, *POURED])
def test_a_table_that_is_changed_in_place_is_as_one_that_is_poured(
    make_group: Callable[[int], Group], monkeypatch: pytest.MonkeyPatch, statements: tuple[str, ...]
) -> None:
    found = []
    for poured in (False, True):
        group = make_group(1)
        if poured:
            monkeypatch.setattr(table_shapes, "steps_between", lambda *_: None)
        other = _change(group, statements)
        before = [_root(member) for member in group.members]
        group.equal("t")
        moved = [_root(member) for member in group.members] != before
        assert poured or moved == (statements in POURED.values())
        found.append([_all(member) for member in group.members])
        assert other.replica.waiting_schema() == []
    assert found[0] == found[1]
