"""Who reads the mirror beside the node's own connection: copies and digests, on threads of their own.

Invariant: the mirror file is exchanged only while nobody else has it open. A connection that outlived the exchange
would share the new file's ``-shm`` and ``-wal``, and checkpoint it into the old one when it closes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

from harmonylite.errors import DatabaseBusyError


class Readers:
    """Counts the readers of one mirror file; safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._count = 0

    def enter(self) -> None:
        """Begin to read; raises DatabaseBusyError while the file is exchanged."""
        with self._lock:
            if self._count < 0:
                raise DatabaseBusyError("the mirror is being exchanged")
            self._count += 1

    def leave(self) -> None:
        """End what `enter` began."""
        with self._lock:
            self._count -= 1

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Read while the block runs; raises DatabaseBusyError while the file is exchanged."""
        self.enter()
        try:
            yield
        finally:
            self.leave()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep readers out while the block runs; raises DatabaseBusyError when there is one."""
        with self._lock:
            if self._count:
                raise DatabaseBusyError("the mirror can't be exchanged while it is copied or digested")
            self._count = -1
        try:
            yield
        finally:
            with self._lock:
                self._count = 0
