"""Members that take over every change of the schema, and what they must have in common."""

from __future__ import annotations

from collections.abc import Sequence

from tests.parts.db.fix_replicas import PAIRED, Group, Member

KEYED = "CREATE TABLE k(id TEXT PRIMARY KEY NOT NULL, n INT, m TEXT)"


def rebuild(table: str, columns: str, select: str, *after: str) -> tuple[str, ...]:
    """Return the statements by which migration tools make a table in another way."""
    return (
        "BEGIN",
        f"CREATE TABLE new_{table}({columns})",
        f"INSERT INTO new_{table} SELECT {select} FROM {table}",
        f"DROP TABLE {table}",
        f"ALTER TABLE new_{table} RENAME TO {table}",
        *after,
        "COMMIT",
    )


INDEXED = (PAIRED, KEYED, "CREATE UNIQUE INDEX t_b ON t(b)", "CREATE VIEW seen AS SELECT n FROM k")
BY_HAND = {
    "rename a column": ("ALTER TABLE t RENAME COLUMN a TO c",),
    "drop a column": ("ALTER TABLE t DROP COLUMN a",),
    "rename a table": ("ALTER TABLE t RENAME TO u",),
    "rename both": ("ALTER TABLE t RENAME TO u", "ALTER TABLE u RENAME COLUMN a TO c"),
    "drop a table": ("DROP TABLE t",),
    "drop an index": ("DROP INDEX t_b",),
    "drop a view": ("DROP VIEW seen",),
    "another index": ("DROP INDEX t_b", "CREATE INDEX t_b ON t(b, a)"),
    "another type": rebuild("t", "id INTEGER PRIMARY KEY, a INT, b INT", "id, a, b"),
    "a constraint": rebuild("t", "id INTEGER PRIMARY KEY, a TEXT NOT NULL, b INT, UNIQUE(a)", "id, a, b"),
    "a table of one's own": ("CREATE TABLE own(id INTEGER PRIMARY KEY, v)", "INSERT INTO own VALUES (1, 'kept')"),
    "an old name again": ("ALTER TABLE t RENAME COLUMN a TO c", "ALTER TABLE t ADD COLUMN a"),
    "a table again": ("DROP TABLE t", "CREATE TABLE t(id INTEGER PRIMARY KEY, b, z)"),
    "a table again, without its index": (
        *rebuild("t", "id INTEGER PRIMARY KEY, a TEXT", "id, a"),
        "ALTER TABLE t ADD COLUMN z",
    ),
    "exchange names": (
        "ALTER TABLE t RENAME COLUMN a TO x",
        "ALTER TABLE t RENAME COLUMN b TO a",
        "ALTER TABLE t RENAME COLUMN x TO b",
    ),
    "set the number": ("PRAGMA user_version = 7",),
}
"""Migrations of these tables, as a person or a tool types them."""


def pair(group: Group) -> list[Member]:
    """Return two members that take over everything, with rows in ``t`` and ``k``."""
    made = group.several(2, PAIRED, KEYED, apply_schema="all")
    made[0].run("INSERT INTO t VALUES (1, 'x', 10), (2, 'y', 20), (3, 'z', 30)")
    made[0].run("INSERT INTO k VALUES ('a', 1, 'p'), ('b', 2, 'q')")
    group.settle()
    return made


def at_once(
    a: Member, b: Member, mine: Sequence[str], theirs: Sequence[str], *, first: str, under_way: bool = True
) -> tuple[Member, Member]:
    """Let two members run statements at the same moment and send them, ``first`` ("a" or "b") first; return them so.

    ``under_way``: the other one's are captured before it hears of the first one's.
    """
    for member, statements in ((a, mine), (b, theirs)):
        for sql in statements:
            member.run(sql)
    one, other = (a, b) if first == "a" else (b, a)
    if under_way:
        other.capture()
    one.send()
    other.publish()
    return one, other


def schema(member: Member) -> dict[tuple[str, str], object]:
    """Return the application's objects: of tables, the columns as SQLite reads them; of others, the text."""
    found: dict[tuple[str, str], object] = {}
    listed = "SELECT type, name, sql FROM sqlite_schema WHERE sql NOT NULL AND name NOT GLOB '__harmonylite__*'"
    for kind, name, sql in member.run(listed):
        if not name.startswith("f_"):
            found[kind, name] = member.run("SELECT * FROM pragma_table_xinfo(?)", (name,)) if kind == "table" else sql
    return found


def same(group: Group) -> None:
    """Check that all members have one schema and the same rows, in both files, and nothing more to say."""
    group.settle()
    first, *others = group.members
    for other in others:
        assert schema(other) == schema(first)
        assert other.replica.tables.keys() == first.replica.tables.keys()
    group.equal(*sorted(first.replica.tables))
    for member in group.members:
        assert member.run("PRAGMA integrity_check") == [("ok",)]
        assert member.replica.waiting_schema() == []
        assert not {said for said in member.replica.warnings if said.startswith("schema")}
    before = group.world.last(0)
    group.settle()
    assert group.world.last(0) == before, "nothing more is to be said"
