"""A unit: one transaction of the node over both files. A unit within another one is a part of it.

Invariant: what this connection remembers of the log is as the last commit left it, also after a rollback.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import apsw

from harmonylite.db.sqlite.connection import transaction
from harmonylite.db.tracking.change_log import ChangeLog


@dataclass
class Unit:
    """Runs units. ``check`` raises on invalid reads; ``undone`` is called after each rollback."""

    connection: apsw.Connection
    log: ChangeLog
    check: Callable[[], None]
    undone: Callable[[], None]
    _later: list[Callable[[], None]] = field(default_factory=list)

    @contextmanager
    def __call__(self, doing: str, *, immediate: bool = False) -> Iterator[None]:
        """Run a transaction, or a part of the caller's; if it fails, discard what was read from the log."""
        try:
            with transaction(self.connection, doing, immediate=immediate):
                yield
                self.check()
        except BaseException:
            if not self.connection.in_transaction:
                self._later.clear()
                self.log.forget()
                self.undone()
            raise
        self.log.committed()
        if not self.connection.in_transaction:
            later, self._later = self._later, []
            for work in later:
                work()

    def then(self, work: Callable[[], None]) -> None:
        """Call ``work`` once the transaction is committed, now if none is open; a rollback drops it."""
        if self.connection.in_transaction:
            self._later.append(work)
        else:
            work()
