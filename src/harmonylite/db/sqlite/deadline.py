"""Deadlines for work on external data.

Invariant: SQLite's statements end soon after the deadline or the cancellation of the work, whatever they compute;
their writes are rolled back.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

import apsw

from harmonylite.errors import OverdueError

STEPS = 20_000
"""Instructions of SQLite's virtual machine between two checks of the clock: well under a millisecond of work."""


class Deadline:
    """Bounds work by ``seconds`` (None: by `give_up` alone); safe to use from any thread.

    As a context manager it gives up at the end of the block, so a cancelled coroutine leaves no work in a thread.
    """

    def __init__(self, seconds: float | None = None, given_up: threading.Event | None = None) -> None:
        self._seconds = seconds
        self._end = None if seconds is None else time.monotonic() + seconds
        self._given_up = given_up or threading.Event()

    def within(self, seconds: float) -> Deadline:
        """Return the deadline of a part of the work, which may take ``seconds`` and ends with the whole."""
        return Deadline(seconds, self._given_up)

    def give_up(self) -> None:
        """End the work at its next check."""
        self._given_up.set()

    def spent(self) -> bool:
        """Return whether the work must end."""
        return self._given_up.is_set() or (self._end is not None and time.monotonic() > self._end)

    def check(self) -> None:
        """Raise OverdueError when the work must end."""
        if self.spent():
            raise OverdueError(self._given_up.is_set(), self._seconds or 0.0)

    @contextmanager
    def bounding(self, connection: apsw.Connection) -> Iterator[None]:
        """Bound the statements of ``connection`` in the block; raises OverdueError."""
        connection.set_progress_handler(self.spent, STEPS)
        try:
            yield
        except apsw.InterruptError:
            self.check()
            raise
        finally:
            connection.set_progress_handler(None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.give_up()
