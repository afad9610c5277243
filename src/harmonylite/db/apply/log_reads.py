"""Read the log without a capture: take it over, and count pending rows.

Invariant: new rows are named in the log first where they are many, so that none is taken over twice.
"""

from __future__ import annotations

import apsw

from harmonylite.db.apply.apply import Applying
from harmonylite.db.mirror.compare import count_pending
from harmonylite.db.tracking.change_log import ChangeLog


def take_log(applying: Applying, log: ChangeLog) -> None:
    """Take over what was logged. Raises SchemaMovedError."""
    _name_many(applying)
    with applying.reading():
        log.refresh(applying.installed.by_id)


def count(applying: Applying, connection: apsw.Connection, log: ChangeLog) -> int:
    """Take over what was logged; return how many rows are pending. Raises SchemaMovedError."""
    _name_many(applying)
    with applying.reading():
        return count_pending(connection, log, applying.installed.by_id)


def _name_many(applying: Applying) -> None:
    with applying.reading():
        many = applying.many_new()
    if many:
        applying.name_new_rows()
