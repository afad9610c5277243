"""Former names of tables and columns: the mirror's record of dropped and renamed ones.

Invariant: it changes only in the transaction that reshapes the mirror's tables.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import apsw

from harmonylite.db.mirror.state import history_of
from harmonylite.db.sqlite.connection import rows, transaction
from harmonylite.db.tracking import layout
from harmonylite.schema.names import folded
from harmonylite.schema.shape import TableShape
from harmonylite.schema.sql import PRIVATE, quote

FORMER = quote(PRIVATE + "former")
GONE = quote(PRIVATE + "gone")
"""The place in the order from which a name means no table, or another table than before."""
TABLES = PRIVATE + "tables"
"""In place of a table's name, if the name is a table's and not a column's; no application uses it, nor this:"""
UNSURE = PRIVATE + "unsure"
"""The new name of a column that was either dropped or renamed: one migration did both."""


LAYOUT = {
    FORMER: "(tbl TEXT, name TEXT, now TEXT, PRIMARY KEY(tbl, name)) WITHOUT ROWID",
    GONE: "(name TEXT, shard INTEGER, seq INTEGER, history TEXT, node TEXT, now TEXT,"
    " PRIMARY KEY(name, shard, seq, history)) WITHOUT ROWID",
}


def carry_over(connection: apsw.Connection) -> None:
    """Add the former names that ``base``, the mirror until now, knows to those of the new mirror."""
    with transaction(connection, "keep the names that were"):
        layout.make(connection, "mirror", LAYOUT)
        connection.execute(f"INSERT OR IGNORE INTO mirror.{FORMER} SELECT tbl, name, now FROM base.{FORMER}")
        connection.execute(f"INSERT OR IGNORE INTO mirror.{GONE} SELECT * FROM base.{GONE}")
        known = quote(TABLES)  # the mirror's list of tables, not the names of tables in `FORMER`
        dropped = f"SELECT name FROM base.{known} WHERE id = 0"
        # the numbers in a mirror that was filled beside another database belong to that database
        connection.execute(f"UPDATE mirror.{known} SET id = CASE WHEN name IN ({dropped}) THEN 0 END")


def columns_moved(
    connection: apsw.Connection,
    before: TableShape,
    after: TableShape,
    pairs: Sequence[tuple[str, str]],
    *,
    noted: bool = False,
) -> None:
    """Record what happened to a table's columns, in the transaction that reshapes the mirror's table.

    ``pairs``: old and new names of columns that keep their values, as far as known; ``noted``: the writer said so. A
    column was certainly renamed if only names differ, and certainly dropped if no column was added.
    """
    new = dict(pairs)
    renamed = _only_names_changed(before, after)
    came = set(after.names) - set(before.names)
    for name in (column.name for column in before.columns if not column.pseudo):
        if name not in after.names:
            sure = noted or renamed or name in new
            _moved(
                connection,
                after.name,
                name,
                new.get(name, None if noted else UNSURE) if sure else UNSURE if came else None,
            )
    here = [(after.name, column.name) for column in after.columns]
    connection.executemany(f"DELETE FROM mirror.{FORMER} WHERE tbl = ? AND name = ? ", here)


def table_moved(connection: apsw.Connection, old: str, new: str) -> None:
    """Record that a table was renamed, in the transaction that renames the mirror's."""
    _moved(connection, TABLES, old, new)


def name_gone(connection: apsw.Connection, name: str, at: Mapping[int, int], node: str, now: str | None) -> None:
    """Record that change sets written before ``at``, by shard, mean another table by ``name`` than later ones do:
    ``now``, or a dropped one. ``node``: the writer of that change.
    """
    connection.executemany(
        f"INSERT OR REPLACE INTO mirror.{GONE} VALUES (?, ?, ?, ?, ?, ?)",
        [(folded(name), shard, seq, history_of(connection, "mirror"), node, now) for shard, seq in at.items()],
    )


def renamed_since(connection: apsw.Connection, old: str, new: str, base: Mapping[int, int]) -> bool:
    """Return whether the table ``old`` became ``new`` after ``base``, by shard."""
    sql = f"SELECT now FROM mirror.{GONE} WHERE name = ? AND shard = ? AND seq > ? AND history = ? AND now NOT NULL"
    found = (rows(connection, sql, (folded(old), s, seq, history_of(connection, "mirror"))) for s, seq in base.items())
    return any(folded(now) == folded(new) for each in found for (now,) in each)


def moves_of(
    connection: apsw.Connection, table: str, old: Sequence[str], new: Sequence[str], schema: str = "mirror"
) -> dict[str, str | None]:
    """Return the present names, or None, of those columns ``old`` that a table with the columns ``new`` lacks."""
    here = {folded(name): name for name in new}
    known = {folded(name): now for name, now in columns_of(connection, table, schema).items()}
    taken = {folded(name) for name in old}
    found: dict[str, str | None] = {}
    for name in old:
        if folded(name) not in here:
            now = known.get(folded(name))
            fits = now is not None and now != UNSURE and folded(now) in here and folded(now) not in taken
            found[name] = here[folded(now)] if fits and now is not None else None
    return found


def also_called(connection: apsw.Connection, table: str, names: Mapping[str, str | None]) -> None:
    """Record that the stream has another name for columns whose rename or drop this node has yet to send.

    ``names``: the stream's name by the older one.
    """
    known = columns_of(connection, table)
    for old, now in names.items():
        if now is not None and old in known and known[old] != now:
            _moved(connection, table, now, known[old])


def columns_follow(connection: apsw.Connection, old: str, new: str) -> None:
    """Move the record of a table's columns to the table's new name."""
    connection.execute(f"UPDATE OR REPLACE mirror.{FORMER} SET tbl = ? WHERE tbl = ?", (new, old))


def _only_names_changed(before: TableShape, after: TableShape) -> bool:
    """Return whether two shapes of a table have the same columns under other names."""
    return [replace(c, name="") for c in before.columns] == [replace(c, name="") for c in after.columns]


def _moved(connection: apsw.Connection, table: str, old: str, new: str | None) -> None:
    connection.execute(f"UPDATE mirror.{FORMER} SET now = ? WHERE tbl = ? AND now = ?", (new, table, old))
    connection.execute(f"INSERT OR REPLACE INTO mirror.{FORMER} VALUES (?, ?, ?)", (table, old, new))


def gone_columns(connection: apsw.Connection, table: str) -> set[str]:
    """Return the names of a table's dropped columns."""
    return {name for name, now in columns_of(connection, table).items() if now is None}


def renamed_columns(connection: apsw.Connection, table: str) -> dict[str, str]:
    """Return the present names of a table's renamed columns, by their former ones."""
    found = columns_of(connection, table).items()
    return {name: now for name, now in found if now is not None and now != UNSURE}


def former_columns(connection: apsw.Connection, table: str) -> list[str]:
    """Return the former names of a table's columns."""
    return list(columns_of(connection, table))


def take_for_gone(connection: apsw.Connection) -> list[tuple[str, str]]:
    """Count the columns that may have been dropped as dropped; return table and name of each."""
    with transaction(connection, "take columns for gone"):
        found = rows(connection, f"SELECT tbl, name FROM mirror.{FORMER} WHERE now = ?", (UNSURE,))
        connection.execute(f"UPDATE mirror.{FORMER} SET now = NULL WHERE now = ?", (UNSURE,))
    return found


def columns_of(connection: apsw.Connection, table: str, schema: str = "mirror") -> dict[str, str | None]:
    """Return the present name of each former name of a column, None for dropped ones."""
    return dict(rows(connection, f"SELECT name, now FROM {schema}.{FORMER} WHERE tbl = ?", (table,)))
