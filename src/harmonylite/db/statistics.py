"""What ANALYZE once found out about the database's tables: it decides how SQLite runs the node's statements, too.

A connection reads it together with the schema, and uses it however much the tables grow. A table that was nearly empty
then seems cheaper to scan than to search: each changed row costs a scan.

Invariant: the application's statistics are never written; new ones are read again, outdated ones are reported.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import apsw

from harmonylite.db.mirror.file_facts import remember_file
from harmonylite.db.sqlite.connection import mapped, rows, transaction, value
from harmonylite.db.tracking.tracked_table import TrackedTable

FEW = 5
"""A table of fewer rows is scanned rather than searched."""
MANY = 1_000
"""From this many rows on that is worth a warning."""

_ROWS = re.compile(r"\d+")


class Statistics:
    """The statistics as one connection goes by them. ``warnings``: what a person should know of them, by topic."""

    def __init__(self) -> None:
        self.warnings: dict[str, str] = {}
        self._known: list[tuple[Any, ...]] | None = None

    def renew(self, connection: apsw.Connection, tables: Iterable[TrackedTable]) -> None:
        """Make the connection use the current statistics; find out which of ``tables`` they are wrong about.

        Between transactions only: the schema is read again (SQLite: pragma, writable_schema = RESET).
        """
        with transaction(connection, "remember the statistics"):
            remember_file(connection)
        with mapped("look at the statistics"):
            found = _read(connection)
            if self._known is not None and found != self._known:
                connection.execute("PRAGMA writable_schema = RESET")
            self._known = found
            small = {str(table) for table, count in found if int(count) < FEW}
            wrong = [table for table in tables if table.shape.name in small and _large(connection, table)]
        self.warnings = {
            f"statistics of {table.shape.name}": f"table {table.shape.name} was analyzed when it had hardly a row, so"
            " SQLite reads all of it for each row that changes: run ANALYZE"
            for table in wrong
        }


def _read(connection: apsw.Connection) -> list[tuple[Any, ...]]:
    """Return each table's number of rows when it was analyzed."""
    if value(connection, "SELECT 1 FROM main.sqlite_schema WHERE name = 'sqlite_stat1'") is None:
        return []
    listed = rows(connection, "SELECT tbl, idx, stat FROM main.sqlite_stat1 ORDER BY tbl, idx")
    counted = ((table, _ROWS.match(str(stat))) for table, _, stat in listed)
    return [(table, count[0]) for table, count in counted if count is not None]


def _large(connection: apsw.Connection, table: TrackedTable) -> bool:
    return value(connection, f"SELECT 1 FROM {table.main} LIMIT 1 OFFSET {MANY}") is not None
