"""What becomes of the mirror's tables, and of the names of tables, when schema changes of the stream are made.

Invariant: what the mirror's shape can't show by itself (columns that have another name, tables that went) is written
down in the transaction that changes the database, and used when the mirror follows.
"""

from __future__ import annotations

from collections.abc import Mapping

import apsw

from harmonylite.db.mirror import former_names, mirror_file
from harmonylite.db.mirror.compare import unsent_keys
from harmonylite.db.sqlite.connection import value
from harmonylite.db.sqlite.introspection import find_shape
from harmonylite.db.tracking.installed import STALE
from harmonylite.db.tracking.tracked_table import TrackedTable
from harmonylite.db.tracking.triggers import trigger_tables
from harmonylite.schema.columns import columns_of
from harmonylite.schema.names import folded
from harmonylite.schema.sql import quote
from harmonylite.schema.table_text import Moves
from harmonylite.wire import decode_value, encode_value

NOTED = "moves"
"""The fact of the database that holds what was noted of columns and the mirror doesn't have yet."""


def noted_moves(connection: apsw.Connection) -> dict[str, dict[str, str | None]]:
    """Return what was noted of columns, by table, that the mirror's tables don't have yet."""
    if value(connection, "SELECT 1 FROM main.sqlite_schema WHERE name = '__harmonylite__state'") is None:
        return {}
    blob = mirror_file.get_state(connection, "main", NOTED)
    return {} if blob is None else {name: dict(moves) for name, moves in decode_value(blob)}


def note(connection: apsw.Connection, table: str, moves: Moves) -> None:
    """Write down what became of a table's columns; the transaction writes the database."""
    noted = noted_moves(connection)
    before = noted.get(table, {})
    later = {name: None if now is None else moves.get(now, now) for name, now in before.items()}
    noted[table] = later | {name: now for name, now in moves.items() if name not in before.values()}
    blob = encode_value([[name, list(each.items())] for name, each in noted.items()])
    connection.execute(f"INSERT OR REPLACE INTO main.{mirror_file.STATE} VALUES (?, ?)", (NOTED, blob))


def forget_noted(connection: apsw.Connection) -> None:
    """The mirror's tables have what was noted; the transaction writes the database."""
    if mirror_file.get_state(connection, "main", NOTED) is not None:
        mirror_file.set_state(connection, "main", NOTED, None)


def number_of(connection: apsw.Connection, table: str) -> int:
    """Return the number in the log of a table of the database, 0 where it carries none of our triggers."""
    return next((n for n, name in trigger_tables(connection).items() if folded(name) == folded(table)), 0)


def name_now(connection: apsw.Connection, name: str) -> str:
    """Return what a table that was called ``name`` is called in the database, "" where none was."""
    sql = f"SELECT now FROM mirror.{former_names.FORMER} WHERE tbl = ? AND name = ?"
    now = value(connection, sql, (former_names.TABLES, name))
    there = "SELECT name FROM main.sqlite_schema WHERE type = 'table' AND lower(name) = lower(?)"
    return "" if now is None else str(value(connection, there, (now,)) or "")


def resolved(
    connection: apsw.Connection, table: str, moves: dict[str, str | None], mine: str, new: str
) -> dict[str, str | None]:
    """Return ``moves`` with the names that columns have here by now, where they are neither here as noted nor new."""
    here, theirs = columns_of(mine), columns_of(new)
    found: dict[str, str | None] = {}
    known = {folded(k): v for k, v in former_names.renamed_columns(connection, table).items()}
    for name, now in moves.items():
        current = known.get(folded(name))
        if (
            folded(name) not in here
            and current is not None
            and folded(current) in here
            and folded(current) not in theirs
        ):
            found[current] = now
        else:
            found[name] = now
    return found


def any_pending(connection: apsw.Connection, name: str) -> bool:
    """Return whether a table of the database has rows that were never sent; deletions under way lose nothing."""
    shape, _ = find_shape(connection, name)
    there = "SELECT 1 FROM mirror.sqlite_schema WHERE type = 'table' AND name = ?"
    if shape is None or value(connection, there, (shape.name,)) is None:
        return False
    return value(connection, f"SELECT 1 FROM ({unsent_keys(TrackedTable(connection, 0, shape))}) LIMIT 1") is not None


def drop_from_mirror(connection: apsw.Connection, name: str, at: Mapping[int, int], node: str) -> None:
    """Take a table's rows out of the mirror: it was dropped at ``at`` in the order.

    What has its name here is a new table, of which everything is to be sent. The transaction writes both files.
    """
    there = value(
        connection, "SELECT name FROM mirror.sqlite_schema WHERE type = 'table' AND lower(name) = lower(?)", (name,)
    )
    here = value(
        connection, "SELECT name FROM main.sqlite_schema WHERE type = 'table' AND lower(name) = lower(?)", (name,)
    )
    if there is not None and here is None:
        connection.execute(f"DROP TABLE mirror.{quote(there)}")
        mirror_file.set_table_id(connection, there, mirror_file.DROPPED)
    elif there is not None:
        connection.execute(f"DELETE FROM mirror.{quote(there)}")
        number = number_of(connection, str(here))
        stale = set(str(mirror_file.get_state(connection, "main", STALE) or "").split()) | {str(number)}
        mirror_file.set_state(connection, "main", STALE, " ".join(sorted(stale - {"0"})))
    former_names.name_gone(connection, name, at, node, None)


def rename_in_history(connection: apsw.Connection, old: str, new: str, at: Mapping[int, int], node: str) -> None:
    """Write down that a table is called otherwise from ``at`` in the order on."""
    former_names.name_gone(connection, old, at, node, new)


def made_twice(connection: apsw.Connection, old: str | None, new: str, base: Mapping[int, int]) -> bool:
    """Return whether a rename whose writer knew the order up to ``base`` was made elsewhere, too, and came first."""
    return old is not None and former_names.renamed_since(connection, old, new, base)
