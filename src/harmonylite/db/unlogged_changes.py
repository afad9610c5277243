"""Find what no trigger saw: rows that REPLACE displaced through a partial index, or one on expressions.

Invariant: a comparison of database and mirror names the rows, and they are logged like any others.
"""

from __future__ import annotations

from collections.abc import Iterable

import apsw

from harmonylite.db.mirror import compare
from harmonylite.db.reconcile import Unit
from harmonylite.db.tracking.change_log import ChangeLog
from harmonylite.db.tracking.tracked_table import TrackedTable


def log_unlogged(
    connection: apsw.Connection, tables: Iterable[TrackedTable], log: ChangeLog, unit: Unit, *, replicate: bool
) -> int:
    """Log the rows of suspect tables that differ and that the log doesn't name; return how many.

    ``replicate`` False: none is known to have gone, see `compare.changed_keys`.
    """
    found = 0
    for table in tables:
        if table.suspect and replicate:
            with unit("look for unseen changes"):
                unseen = compare.compare(connection, table, unlogged=True)
                if not unseen.equal:
                    log.append(table, compare.differing_keys(table))
                    found += unseen.missing + unseen.extra + unseen.different
        table.suspect = False
    return found
