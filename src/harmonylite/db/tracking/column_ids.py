"""Which column of a file is which of the stream's: the identities of columns, in the database and in its mirror.

Invariant: a column keeps its identity under any name; one that the stream does not know yet has a number of its own
until it does.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import apsw

from harmonylite.db.sqlite.connection import rows, value
from harmonylite.schema.columns import REMEMBERED
from harmonylite.schema.names import folded
from harmonylite.schema.shape import TableShape
from harmonylite.schema.sql import PRIVATE, quote

COLUMNS = quote(PRIVATE + "columns")
LAYOUT = {COLUMNS: "(tbl, name TEXT, number INTEGER, id TEXT, PRIMARY KEY(tbl, name)) WITHOUT ROWID"}
"""``tbl``: a number in the log, or the name of a mirror's table."""


@dataclass(frozen=True)
class ColumnId:
    """One column of a file. ``number``: its own, in this file; ``id``: the stream's, "" where it knows none yet."""

    number: int
    id: str = ""

    def is_same(self, other: ColumnId) -> bool:
        """Return whether two files' columns are one."""
        return self.id == other.id if self.id and other.id else self.number == other.number


Columns = dict[str, ColumnId]
"""By name (folded)."""
_column = lru_cache(maxsize=16 * REMEMBERED)(ColumnId)


def read(connection: apsw.Connection, schema: str, table: int | str) -> Columns:
    """Return the columns of a table: of ``main`` by its number, of ``mirror`` by its name."""
    listed = rows(connection, f"SELECT name, number, id FROM {schema}.{COLUMNS} WHERE tbl = ? AND name <> ''", (table,))
    return {name: _column(number, id_) for name, number, id_ in listed}


def read_all(connection: apsw.Connection, schema: str = "main") -> dict[Any, Columns]:
    """Return the columns of all tables: of ``main`` by number, of ``mirror`` by name."""
    found: dict[Any, Columns] = {}
    listed = f"SELECT tbl, name, number, id FROM {schema}.{COLUMNS} WHERE name <> ''"
    for table, name, number, id_ in rows(connection, listed):
        found.setdefault(table, {})[name] = _column(number, id_)
    return found


def write(connection: apsw.Connection, schema: str, table: int | str, columns: Mapping[str, ColumnId]) -> None:
    """Write the columns of a table where they are others; the transaction writes the file."""
    if read(connection, schema, table) != dict(columns):
        put(connection, schema, table, columns)


def write_all(
    connection: apsw.Connection, schema: str, tables: Mapping[Any, Columns], there: Mapping[Any, Columns]
) -> None:
    """Write the columns of several tables where they are others than ``there``; the transaction writes the file."""
    for table, columns in tables.items():
        if there.get(table, {}) != columns:
            put(connection, schema, table, columns)


def put(connection: apsw.Connection, schema: str, table: int | str, columns: Mapping[str, ColumnId]) -> None:
    """Write the columns of a table in place of those that were read."""
    connection.execute(f"DELETE FROM {schema}.{COLUMNS} WHERE tbl = ? AND name <> ''", (table,))
    connection.executemany(
        f"INSERT INTO {schema}.{COLUMNS} VALUES (?, ?, ?, ?)",
        [(table, name, column.number, column.id) for name, column in columns.items()],
    )


def keep_only(connection: apsw.Connection, numbers: Container[int], there: Iterable[int]) -> None:
    """Forget the columns of other tables of ``main``; ``there``: those that it has."""
    gone = [(table,) for table in there if table not in numbers]
    connection.executemany(f"DELETE FROM main.{COLUMNS} WHERE tbl = ?", gone)


def forget_all(connection: apsw.Connection) -> None:
    """Forget the columns of all tables, of ``main`` and of the mirror, where no merge keeps them up to date."""
    for file in ("main", "mirror"):
        if value(connection, f"SELECT 1 FROM {file}.{COLUMNS} LIMIT 1"):
            connection.execute(f"DELETE FROM {file}.{COLUMNS}")


def next_number(connection: apsw.Connection) -> int:
    """Return a number that no column of the file, or of its mirror, has."""
    there = "SELECT 1 FROM {}.sqlite_schema WHERE name = ?"
    files = [s for s in ("main", "mirror") if value(connection, there.format(s), (PRIVATE + "columns",))]
    return 1 + max(int(value(connection, f"SELECT max(number) FROM {file}.{COLUMNS}") or 0) for file in files)


def set_tables(connection: apsw.Connection, ids: Mapping[str, str]) -> None:
    """Write which tables of the stream's tables of the mirror are, by name, "" for none."""
    there = dict(rows(connection, f"SELECT tbl, id FROM mirror.{COLUMNS} WHERE name = ''"))
    connection.executemany(
        f"INSERT OR REPLACE INTO mirror.{COLUMNS} VALUES (?, '', 0, ?)",
        [(name, id_) for name, id_ in ids.items() if (there.get(name) or "") != id_],
    )


def table_of(connection: apsw.Connection, name: str) -> str:
    """Return which table of the stream's a table of the mirror is, "" for none."""
    return str(value(connection, f"SELECT id FROM mirror.{COLUMNS} WHERE tbl = ? AND name = ''", (name,)) or "")


def mirrors(connection: apsw.Connection) -> dict[str, str]:
    """Return the names of the mirror's tables that are the stream's, with their identities."""
    return dict(rows(connection, f"SELECT tbl, id FROM mirror.{COLUMNS} WHERE name = '' AND id <> ''"))


def renamed(connection: apsw.Connection, old: str, new: str) -> None:
    """Let a table of the mirror be known under its new name."""
    connection.execute(f"DELETE FROM mirror.{COLUMNS} WHERE tbl = ?", (new,))
    connection.execute(f"UPDATE mirror.{COLUMNS} SET tbl = ? WHERE tbl = ?", (new, old))


def forget(connection: apsw.Connection, name: str) -> None:
    """Forget a table of the mirror."""
    connection.execute(f"DELETE FROM mirror.{COLUMNS} WHERE tbl = ?", (name,))


def pairs(
    before: TableShape, there: Mapping[str, ColumnId], after: TableShape, here: Mapping[str, ColumnId]
) -> list[tuple[str, str]]:
    """Return the names of columns in a mirror's table, and of the same ones in the database's table."""
    found = []
    for new in (c.name for c in after.columns if not c.pseudo):
        mine = here.get(folded(new))
        for old in (c.name for c in before.columns if not c.pseudo):
            theirs = there.get(folded(old))
            if mine is not None and theirs is not None and mine.is_same(theirs):
                found.append((old, new))
    if before.rowid and after.rowid and not after.integer_key:
        found.append((before.rowid, after.rowid))
    return found
