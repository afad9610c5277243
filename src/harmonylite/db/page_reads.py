"""What the page shows of the files: rows of each table, and the conflict journal, searched.

Invariant: reads only, on separate connections and threads, each within a deadline: an open page never makes a merge
wait.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import apsw

from harmonylite.db.mirror.conflict_journal import read_journal
from harmonylite.db.replica_options import ReplicaOptions
from harmonylite.db.sqlite.connection import attach, mapped, open_file, rows, value
from harmonylite.db.sqlite.deadline import Deadline
from harmonylite.db.tracking.tracked_table import TrackedTable
from harmonylite.db.tracking.triggers import HELD
from harmonylite.errors import DatabaseError, OverdueError
from harmonylite.model import Conflict, text_of
from harmonylite.schema.sql import quote

COUNT_SECONDS = 0.25
"""How long the rows of one table are counted; of a larger one the number is estimated, see `estimate`."""
TABLES_SECONDS = 3.0
"""How long the rows of all tables are counted."""
SEARCH_SECONDS = 3.0
"""How long the journal is searched."""
SEARCHED = 20_000
"""Entries of the journal, the newest, that are searched."""


def count_rows(options: ReplicaOptions, tables: Iterable[str]) -> dict[str, tuple[int | None, bool]]:
    """Return how many rows each table has, None where that is not known, and whether the number is exact."""
    whole = Deadline(TABLES_SECONDS)
    connection = open_file(options.database, read_only=True)
    try:
        return {table: _count(connection, table, whole) for table in tables}
    finally:
        connection.close()


def _count(connection: apsw.Connection, table: str, whole: Deadline) -> tuple[int | None, bool]:
    try:
        whole.check()
        with mapped(f"count the rows of {table}"), whole.within(COUNT_SECONDS).bounding(connection):
            return int(value(connection, f"SELECT count(*) FROM {quote(table)}")), True
    except OverdueError:
        return estimate(connection, table), False
    except DatabaseError:
        return None, False


def estimate(connection: apsw.Connection, table: str) -> int | None:
    """Return about how many rows a table has: as ANALYZE found, else its largest rowid; None where neither is known."""
    try:
        found = value(connection, "SELECT stat FROM sqlite_stat1 WHERE tbl = ? COLLATE NOCASE", (table,))
        if found and (first := str(found).split()[0]).isdecimal():
            return int(first)
    except apsw.Error:
        pass  # never analyzed: there is no such table
    try:
        return int(value(connection, f"SELECT max(rowid) FROM {quote(table)}") or 0)
    except apsw.Error:
        return None


def held_by_table(connection: apsw.Connection, tables: Iterable[TrackedTable]) -> dict[str, int]:
    """Return the number of rows that are held back, by table; only of tables with such rows."""
    names = {table.id: table.shape.name for table in tables}
    found = rows(connection, f"SELECT t, count(*) FROM main.{quote(HELD)} GROUP BY t")
    return {names[number]: count for number, count in found if number in names}


def search_journal(options: ReplicaOptions, *, table: str | None, words: str, limit: int) -> list[Conflict]:
    """Return the newest conflicts that have every one of ``words`` in table, key, column, values, kind or nodes.

    Raises DatabaseError, OverdueError; DatabaseBusyError while the mirror is exchanged.
    """
    wanted = words.casefold().split()

    def fits(conflict: Conflict) -> bool:
        if not wanted:
            return True
        said = _text(conflict)
        return all(word in said for word in wanted)

    with options.readers.reading(), _both(options) as connection:
        bounded = Deadline(SEARCH_SECONDS).bounding(connection)
        with mapped("search the conflict journal"), bounded:
            return read_journal(connection, table=table, limit=limit, newest=SEARCHED if wanted else None, fits=fits)


def _text(conflict: Conflict) -> str:
    """Return what of a conflict is searched."""
    key = [f"{name}={text_of(value)}" for name, value in conflict.key.items()]
    values = [text_of(value) for value in (conflict.winning, conflict.overruled)]
    about = (conflict.table, conflict.column, conflict.kind, conflict.winner, conflict.loser)
    return "\n".join([*about, *key, *values]).casefold()


@contextmanager
def _both(options: ReplicaOptions) -> Iterator[apsw.Connection]:
    """Give a connection that reads the database as ``main`` and the mirror as ``mirror``."""
    connection = open_file(options.database, read_only=True)
    try:
        attach(connection, options.mirror, "mirror", read_only=True)
        yield connection
    finally:
        connection.close()
