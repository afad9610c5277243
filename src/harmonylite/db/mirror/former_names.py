"""What became of the names of tables and columns: the mirror's table of those that went or are called otherwise.

Invariant: it changes in the transaction that reshapes the mirror's tables.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import apsw

from harmonylite.db.sqlite.connection import rows, transaction
from harmonylite.schema.shape import TableShape
from harmonylite.schema.sql import PRIVATE, quote

FORMER = quote(PRIVATE + "former")
TABLES = PRIVATE + "tables"
"""The table itself, where the name is a table's own; no application's table is called like this, nor a column so:"""
UNSURE = PRIVATE + "unsure"
"""The new name of a column that may have gone, or may have been renamed: a migration did both."""


def prepare(connection: apsw.Connection, schema: str) -> None:
    """Make the mirror's table of names that were, where it is missing."""
    connection.execute(
        f"CREATE TABLE IF NOT EXISTS {schema}.{FORMER}(tbl TEXT, name TEXT, now TEXT, PRIMARY KEY(tbl, name))"
        " WITHOUT ROWID"
    )


def carry_over(connection: apsw.Connection) -> None:
    """Keep what ``base``, the mirror until now, knows of names that were, beside what the new mirror does."""
    with transaction(connection, "keep the names that were"):
        prepare(connection, "mirror")
        connection.execute(f"INSERT OR IGNORE INTO mirror.{FORMER} SELECT tbl, name, now FROM base.{FORMER}")
        known = quote(TABLES)  # the mirror's list of tables, not the key of table names here
        dropped = f"SELECT name FROM base.{known} WHERE id = 0"
        # the numbers in a mirror that was filled beside another database are of that one
        connection.execute(f"UPDATE mirror.{known} SET id = CASE WHEN name IN ({dropped}) THEN 0 END")


def columns_moved(
    connection: apsw.Connection, before: TableShape, after: TableShape, pairs: Sequence[tuple[str, str]]
) -> None:
    """Remember what became of a table's columns, in the transaction that reshapes the mirror's table.

    ``pairs``: old and new names of those whose values stay, as far as is known. A column is known to be renamed when
    nothing but names is another, known to be gone when no column came.
    """
    new = dict(pairs)
    renamed = _only_names_changed(before, after)
    came = set(after.names) - set(before.names)
    for name in (column.name for column in before.columns if not column.pseudo):
        if name not in after.names:
            _moved(connection, after.name, name, new.get(name, UNSURE) if renamed else UNSURE if came else None)
    here = [(after.name, column.name) for column in after.columns]
    connection.executemany(f"DELETE FROM mirror.{FORMER} WHERE tbl = ? AND name = ?", here)


def table_moved(connection: apsw.Connection, old: str, new: str) -> None:
    """Remember that a table was renamed, in the transaction that renames the mirror's."""
    connection.execute(f"UPDATE mirror.{FORMER} SET tbl = ? WHERE tbl = ?", (new, old))
    _moved(connection, TABLES, old, new)


def _only_names_changed(before: TableShape, after: TableShape) -> bool:
    """Return whether two shapes of a table have the same columns under other names."""
    return [replace(c, name="") for c in before.columns] == [replace(c, name="") for c in after.columns]


def _moved(connection: apsw.Connection, table: str, old: str, new: str | None) -> None:
    connection.execute(f"UPDATE mirror.{FORMER} SET now = ? WHERE tbl = ? AND now = ?", (new, table, old))
    connection.execute(f"INSERT OR REPLACE INTO mirror.{FORMER} VALUES (?, ?, ?)", (table, old, new))


def gone_columns(connection: apsw.Connection, table: str) -> set[str]:
    """Return the names of a table's columns that went."""
    return {name for name, now in columns_of(connection, table).items() if now is None}


def former_columns(connection: apsw.Connection, table: str) -> list[str]:
    """Return the names that a table's columns had here and have no more."""
    return list(columns_of(connection, table))


def take_for_gone(connection: apsw.Connection) -> list[tuple[str, str]]:
    """Take the columns that may have gone for gone; return table and name of each."""
    with transaction(connection, "take columns for gone"):
        found = rows(connection, f"SELECT tbl, name FROM mirror.{FORMER} WHERE now = ?", (UNSURE,))
        connection.execute(f"UPDATE mirror.{FORMER} SET now = NULL WHERE now = ?", (UNSURE,))
    return found


def columns_of(connection: apsw.Connection, table: str) -> dict[str, str | None]:
    """Return what became of each name that a column of the table had: None where it went."""
    return dict(rows(connection, f"SELECT name, now FROM mirror.{FORMER} WHERE tbl = ?", (table,)))
