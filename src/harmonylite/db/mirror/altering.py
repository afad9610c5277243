"""Change a mirror's table in place, where that gives the same as making it once more and pouring the rows over.

Invariant: it ends with exactly the wanted definition and indexes, and no value has changed but those of columns that
came or went; or nothing has changed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import apsw

from harmonylite.db.mirror.redeclaring import redeclared
from harmonylite.db.mirror.stream_shapes import index_name
from harmonylite.db.sqlite.connection import rows
from harmonylite.schema.columns import ColumnText, is_one
from harmonylite.schema.names import folded
from harmonylite.schema.sql import quote
from harmonylite.schema.table_text import parts_of

_PLAIN = re.compile(r"[A-Za-z_][A-Za-z_0-9]*")
"""A name that needs no quotes, if SQLite took it without them before."""


@dataclass(frozen=True)
class Steps:
    """What leads from one definition to another: names in it, and the new columns as they are declared."""

    renames: tuple[tuple[str, str], ...] = ()
    drops: tuple[str, ...] = ()
    adds: tuple[str, ...] = ()


def steps_between(old: str, new: str, pairs: Iterable[tuple[str, str]]) -> Steps | None:
    """Return the steps from one definition to another, None where SQLite can't take them in place.

    ``pairs``: old and new names of the columns that keep their values.
    """
    before, after = parts_of(old), parts_of(new)
    if before is None or after is None:
        return None
    kept = {folded(a): folded(b) for a, b in pairs if folded(a) in before.columns and folded(b) in after.columns}
    for name in before.columns.keys() & after.columns.keys() - kept.keys():
        rest = before.rest(name)
        if rest == after.rest(name) and rest is not None and "as" in rest:  # it is computed, and never poured
            kept[name] = name
    renames = [(before.columns[a], after.columns[b]) for a, b in kept.items() if a != b]
    came = [name for name in after.columns if name not in kept.values()]
    in_order = [kept[name] for name in before.columns if name in kept] + came == list(after.columns)
    if not in_order or any(folded(b.name) in before.columns for _, b in renames):
        return None
    drops = tuple(column.name for name, column in before.columns.items() if name not in kept)
    same = before.around == after.around and all(before.rest(a) == after.rest(b) for a, b in kept.items())
    # to drop a column writes every row, so first see that no other declaration demands a new table anyway
    if (drops and not (same or renames)) or not all(is_one(after.columns[name].text) for name in came):
        return None
    return Steps(
        tuple((a.name, _token(b)) for a, b in renames), drops, tuple(after.columns[name].text for name in came)
    )


def _token(column: ColumnText) -> str:
    """Return the name as it is written: SQLite keeps its quotes in the definition that it renames a column in."""
    written = column.text[: column.after]
    return written if _PLAIN.fullmatch(written) else quote(column.name)


def altered(connection: apsw.Connection, table: str, sql: str, indexes: Sequence[str], steps: Steps) -> bool:
    """Give a mirror's table the definition ``sql`` and the unique ``indexes`` by ``steps``; return whether it has them.

    The caller holds a transaction.
    """
    connection.execute("SAVEPOINT in_place")
    try:
        done = _alter(connection, table, sql, indexes, steps)
    except (apsw.SQLError, apsw.ConstraintError):
        done = False
    if not done:
        connection.execute("ROLLBACK TO in_place")
    connection.execute("RELEASE in_place")
    return done


def _alter(connection: apsw.Connection, table: str, sql: str, indexes: Sequence[str], steps: Steps) -> bool:
    alter = f"ALTER TABLE mirror.{quote(table)}"
    connection.execute("PRAGMA legacy_alter_table = ON")
    for old, new in steps.renames:
        connection.execute(f"{alter} RENAME COLUMN {quote(old)} TO {new}")
    there = MirrorTables.read(connection, table).indexes.get(table, {})
    missing = [index for index in indexes if index not in there]
    if missing and steps.adds:  # the rows' values in it depend on the index
        return False
    for index in there.keys() - set(indexes):
        connection.execute(f"DROP INDEX mirror.{quote(there[index])}")
    for name in steps.drops:
        connection.execute(f"{alter} DROP COLUMN {quote(name)}")
    for column in steps.adds:
        connection.execute(f"{alter} ADD COLUMN {column}")
    for index in missing:
        make_index(connection, index)
    after = MirrorTables.read(connection, table)
    if after.indexes.get(table, {}).keys() != set(indexes):
        return False
    now = after.tables.get(table)
    return now == sql or (now is not None and redeclared(connection, table, now, sql))


@dataclass
class MirrorTables:
    """What is in the mirror's catalogue. ``tables``: definitions by name; ``indexes``: by table, names by definition.

    SQLite reads all of it to find one table, so who asks for many reads it once.
    """

    tables: dict[str, str] = field(default_factory=dict)
    indexes: dict[str, dict[str, str]] = field(default_factory=dict)

    @classmethod
    def read(cls, connection: apsw.Connection, table: str | None = None) -> MirrorTables:
        """Return what is there, of one table or of all."""
        found = cls()
        listed = "SELECT type, name, tbl_name, sql FROM mirror.sqlite_schema WHERE sql IS NOT NULL"
        one = "" if table is None else " AND tbl_name = ?"
        for kind, name, of, sql in rows(connection, listed + one, () if table is None else (table,)):
            if kind == "table":
                found.tables[name] = sql
            elif kind == "index":
                found.indexes.setdefault(of, {})[sql] = name
        return found


def make_index(connection: apsw.Connection, sql: str) -> None:
    """Make a unique index of a mirror's table; another table that had one of its name has it no more."""
    connection.execute(f"DROP INDEX IF EXISTS mirror.{quote(index_name(sql))}")
    connection.execute(into_mirror(sql, "CREATE UNIQUE INDEX "))


def into_mirror(sql: str, start: str) -> str:
    """Direct a CREATE statement, as SQLite stores it, to the mirror: ``start`` is right before the name."""
    if not sql.startswith(start):
        raise ValueError(f"SQLite keeps a statement that does not start with {start!r}: {sql[:60]!r}")
    return f"{start}mirror.{sql[len(start) :]}"
