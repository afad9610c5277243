"""WAL mode, in which readers and writers don't wait for each other.

Invariant: the switch never waits, so it doesn't delay an application that has the file open in another mode.
"""

from __future__ import annotations

import apsw

from harmonylite.db.sqlite.connection import LOCK_WAIT_MS, mapped

WARNING = (
    "the database is not in WAL mode and other connections keep it from being changed: readers and writers wait for "
    "each other; it is changed as soon as nothing else reads or writes"
)


class Wal:
    """Whether the main database of a connection is in WAL mode. ``reached``: it is."""

    def __init__(self) -> None:
        self.reached = False

    def enter(self, connection: apsw.Connection) -> bool:
        """Switch the main database to WAL mode; False while other connections prevent it."""
        with mapped("change to WAL mode"):
            connection.set_busy_timeout(0)
            try:
                self.reached = connection.pragma("journal_mode", "wal", schema="main") == "wal"
            except (apsw.BusyError, apsw.LockedError):
                self.reached = False
            finally:
                connection.set_busy_timeout(LOCK_WAIT_MS)
        return self.reached

    @property
    def warnings(self) -> dict[str, str]:
        """Warnings for a person, by topic."""
        return {} if self.reached else {"journal mode": WARNING}
