"""Effects of the stream's schema changes on the mirror's tables and on the names of tables.

Invariant: changes that the mirror's shape can't show (renamed columns, dropped tables) are recorded in the transaction
that changes the database, and used when the mirror follows.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import apsw

from harmonylite.db.mirror import former_names, mirror_file
from harmonylite.db.mirror.altering import MirrorTables
from harmonylite.db.mirror.compare import unsent_rows
from harmonylite.db.mirror.conflict_journal import ConflictJournal
from harmonylite.db.mirror.state import get_state, set_state
from harmonylite.db.mirror.table_shapes import drop_gone
from harmonylite.db.sqlite.connection import value
from harmonylite.db.sqlite.introspection import find_shape
from harmonylite.db.tracking import column_ids
from harmonylite.db.tracking.installed import STALE
from harmonylite.db.tracking.tracked_table import TrackedTable
from harmonylite.db.tracking.triggers import trigger_name, trigger_tables
from harmonylite.schema.columns import added, columns_of
from harmonylite.schema.names import folded
from harmonylite.schema.section import SchemaChange
from harmonylite.schema.sql import quote
from harmonylite.schema.table_text import Moves
from harmonylite.wire import decode_value, encode_value

REBUILT = "rebuilt"
"""The fact of the database with the numbers that tables had before a merge made them once more."""
NOTED = "moves"
"""The fact of the database with recorded column changes that the mirror has not applied yet."""


def noted_moves(connection: apsw.Connection) -> dict[str, dict[str, str | None]]:
    """Return the recorded column changes, by table, that the mirror has not applied yet."""
    if value(connection, "SELECT 1 FROM main.sqlite_schema WHERE name = '__harmonylite__state'") is None:
        return {}
    blob = get_state(connection, "main", NOTED)
    return {} if blob is None else {name: dict(moves) for name, moves in decode_value(blob)}


def note(connection: apsw.Connection, table: str, moves: Moves) -> None:
    """Record the changes of a table's columns; the transaction writes the database."""
    noted = noted_moves(connection)
    before = noted.get(table, {})
    later = {name: None if now is None else moves.get(now, now) for name, now in before.items()}
    noted[table] = later | {name: now for name, now in moves.items() if name not in before.values()}
    blob = encode_value([[name, list(each.items())] for name, each in noted.items()])
    set_state(connection, "main", NOTED, blob)


def forget_noted(connection: apsw.Connection) -> None:
    """Forget the record, once the mirror has applied it; the transaction writes the database."""
    if get_state(connection, "main", NOTED) is not None:
        set_state(connection, "main", NOTED, None)


def note_rebuilt(connection: apsw.Connection, table: str, number: int) -> None:
    """Record the number of a table that a merge changed, where it has no triggers any more by which it is known."""
    ours = "SELECT 1 FROM main.sqlite_schema WHERE type = 'trigger' AND name GLOB ?"
    if value(connection, ours, (trigger_name(number, "*"),)):
        return
    blob = encode_value([list(each) for each in {**rebuilt(connection), folded(table): number}.items()])
    set_state(connection, "main", REBUILT, blob)


def rebuilt(connection: apsw.Connection) -> dict[str, int]:
    """Return the numbers of tables that a merge made once more since the last install, by name (folded)."""
    blob = get_state(connection, "main", REBUILT)
    return {} if blob is None else dict(decode_value(blob))


def forget_rebuilt(connection: apsw.Connection) -> None:
    """Forget them, once they are known by numbers of their own; the transaction writes the database."""
    if get_state(connection, "main", REBUILT) is not None:
        set_state(connection, "main", REBUILT, None)


def number_of(connection: apsw.Connection, table: str) -> int:
    """Return the number in the log of a table of the database, 0 if it has none of our triggers."""
    return next((n for n, name in trigger_tables(connection).items() if folded(name) == folded(table)), 0)


def name_now(connection: apsw.Connection, name: str) -> str:
    """Return the database's present name of the table that was called ``name``, "" if there is none."""
    sql = f"SELECT now FROM mirror.{former_names.FORMER} WHERE tbl = ? AND name = ?"
    now = value(connection, sql, (former_names.TABLES, name))
    there = "SELECT name FROM main.sqlite_schema WHERE type = 'table' AND lower(name) = lower(?)"
    return "" if now is None else str(value(connection, there, (now,)) or "")


def was_dropped(connection: apsw.Connection, change: SchemaChange) -> bool:
    """Return whether this database had a table or column that ``change`` adds, and dropped it."""
    if change.kind != "table":
        return False
    if change.old is None:
        return mirror_file.table_ids(connection).get(change.name) == mirror_file.DROPPED
    gone = {folded(name) for name in former_names.gone_columns(connection, change.name)}
    return any(folded(column.name) in gone for column in added(change.old, change.new or ""))


def resolved(
    connection: apsw.Connection, table: str, moves: dict[str, str | None], mine: str, new: str
) -> dict[str, str | None]:
    """Return ``moves`` with the columns' present names here, if they are neither the recorded ones nor new."""
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


def journal_unsent(connection: apsw.Connection, node: str, name: str) -> None:
    """Journal the rows of a table that only the database has, which is to be dropped, as another node dropped it."""
    shape, _ = find_shape(connection, name)
    if shape is not None and shape.name in MirrorTables.read(connection, shape.name).tables:
        table = TrackedTable(connection, 0, shape)
        ConflictJournal(connection, node).write_unsent(table, unsent_rows(table))


def take_from_mirror(connection: apsw.Connection, ids: Collection[str]) -> None:
    """Drop the mirror's tables of identities that the stream has no more; the transaction writes the mirror."""
    for name, id_ in column_ids.mirrors(connection).items() if ids else ():
        if id_ in ids:
            drop_gone(connection, name)


def empty_in_mirror(connection: apsw.Connection, name: str) -> None:
    """Take the rows of a table out of the mirror: all that is in the database's is to be sent."""
    there = "SELECT name FROM mirror.sqlite_schema WHERE type = 'table' AND lower(name) = lower(?)"
    if (found := value(connection, there, (name,))) is not None:
        connection.execute(f"DELETE FROM mirror.{quote(found)}")
    compare_later(connection, number_of(connection, name))


def compare_later(connection: apsw.Connection, number: int) -> None:
    """Have a table compared whole once database and mirror are at one position."""
    stale = set(str(get_state(connection, "main", STALE) or "").split()) | {str(number)}
    set_state(connection, "main", STALE, " ".join(sorted(stale - {"0"})))


def drop_from_mirror(connection: apsw.Connection, name: str, at: Mapping[int, int], node: str) -> None:
    """Delete a table's rows from the mirror: it was dropped at ``at`` in the order.

    A table of that name here is a new one, of which all rows must be sent. The transaction writes both files.
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
        empty_in_mirror(connection, str(here))
    former_names.name_gone(connection, name, at, node, None)


def rename_in_history(connection: apsw.Connection, old: str, new: str, at: Mapping[int, int], node: str) -> None:
    """Record that a table has another name from ``at`` in the order on."""
    former_names.name_gone(connection, old, at, node, new)


def made_twice(connection: apsw.Connection, old: str | None, new: str, base: Mapping[int, int]) -> bool:
    """Return whether another node's equal rename came before this one, whose writer knew the order up to ``base``."""
    return old is not None and former_names.renamed_since(connection, old, new, base)
