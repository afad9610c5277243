"""Read the log without a capture: into the scratch tables, to count pending rows, and to compare the others.

Invariant: many new rows get a range in the log first, so that none is read twice.
"""

from __future__ import annotations

import apsw

from harmonylite.db.apply.apply import Applying
from harmonylite.db.mirror.compare import TableDifference, compare, count_pending
from harmonylite.db.tracking.change_log import ChangeLog


def take_log(applying: Applying, log: ChangeLog) -> None:
    """Read the log into the scratch tables. Raises SchemaMovedError."""
    _name_many(applying)
    with applying.reading():
        log.refresh(applying.installed.by_id)


def count(applying: Applying, connection: apsw.Connection, log: ChangeLog) -> int:
    """Read the log; return how many rows are pending. Raises SchemaMovedError."""
    _name_many(applying)
    with applying.reading():
        return count_pending(connection, log, applying.installed.by_id)


def compare_all(applying: Applying, connection: apsw.Connection, log: ChangeLog) -> list[TableDifference]:
    """Return how database and mirror differ in every table; see `Replica.compare`. Raises SchemaMovedError."""
    with applying.reading("compare database and mirror"):
        log.refresh(applying.installed.by_id)
        return [compare(connection, table, unlogged=True) for table in applying.installed.tables.values()]


def _name_many(applying: Applying) -> None:
    with applying.reading():
        many = applying.many_new()
    if many:
        applying.name_new_rows()
