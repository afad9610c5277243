"""Checkpoint the database's write-ahead log before the application has to.

SQLite copies the log into the file (a *checkpoint*) within the commit that finds it longer than a thousand pages, and
that commit waits for two syncs of the disk. A capture trigger adds a page to most commits, so such commits would be
twice as frequent. This module checkpoints beside the application. While commits are faster than a copy, it holds a
reader: a checkpoint goes no further than what the oldest reader sees (SQLite: wal, section 2.2), so those of the
commits find nothing to copy. The log then grows to `MOST_BYTES`, not to the usual four million, before it restarts.
An application that never copies (``wal_autocheckpoint = 0``) and never pauses makes it about twice as long.

Invariant: it uses only SQLite's interface and SQLite's locks. A process that dies at any instant leaves nothing behind,
and the application checkpoints by itself again. Nothing here writes a row, or waits for another process's lock, except
for the last pages of a log that would not end (`WAITS_MS`).
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from contextvars import copy_context
from functools import partial
from pathlib import Path

import apsw

from harmonylite.backoff import Backoff, Retry
from harmonylite.db.sqlite.connection import open_file
from harmonylite.db.sqlite.overwriting import Overwriting, Seen
from harmonylite.db.sqlite.wal_mode import Wal
from harmonylite.errors import DatabaseError

log = logging.getLogger(__name__)

TICK = 0.005
"""Seconds between checks while the log grows; a loop of commits writes some hundred pages in that time."""
LONGEST = 0.16
"""The pause doubles while the log does not grow; after the longest one the thread sleeps until it is woken."""
PATIENCE = 3
"""Checks in a row without growth before the reader is released: a writer may be waiting for the disk."""
HOLD_FROM = 250
"""Uncopied pages from which on a reader is held; the application begins to copy at a thousand."""
COPY_FROM = 500
"""Uncopied pages that are worth two syncs of the disk once no application writes."""
STEP = 2_000
"""Pages after which the reader advances and the pages behind it are copied, so that no copy takes long."""
MOST_PAGES = 16_000
MOST_BYTES = 64 << 20
"""The length of the log, whichever is less, at which the reader is released, so that the log restarts."""
WAITS_MS = 20
"""How long it waits for a moment without a writer, in milliseconds, once the log is twice as long."""
REST = 30.0
"""Seconds without a write after which a log that grew long here is truncated."""


class Checkpointer:
    """Checkpoints the log of ``database`` on a separate thread while `running`; `wake` says that a process may have
    written.

    ``rest``: seconds without a write after which a long log is truncated. ``enabled``: false leaves the log to SQLite.
    ``others``: returns whether another process has a transaction open; SQLite ignores one that reads only the file,
    because the whole log is copied.
    """

    def __init__(
        self, database: Path, *, rest: float = REST, enabled: bool = True, others: Callable[[], bool] = bool
    ) -> None:
        self._database = database
        self._enabled, self._others = enabled, others
        self._after = rest
        self._woken = threading.Event()
        self._ended = False

    def wake(self) -> None:
        """Check the log soon; safe from any thread."""
        self._woken.set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Checkpoint the log while the block runs; afterwards all connections are closed."""
        if not self._enabled:
            yield
            return
        self._ended = False
        work = partial(copy_context().run, self._work)
        thread = threading.Thread(target=work, name="harmonylite-wal", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._ended = True
            self.wake()
            await asyncio.shield(asyncio.to_thread(thread.join))

    def _work(self) -> None:
        tended: CheckpointedWal | None = None
        # Debug: the loop that works with the file gets the same error, and reports it.
        retry = Retry(log, f"copying the write-ahead log of {self._database}", Backoff(most=1.0), logging.DEBUG)
        while not self._ended:
            woken = self._woken.wait(self._after if tended and tended.long else None)
            self._woken.clear()
            try:
                tended = tended or CheckpointedWal(self._database)
                if woken:
                    self._tend(tended)
                elif not self._others():
                    tended.cut()
            except (apsw.Error, DatabaseError) as error:
                time.sleep(retry.failed(error, time.monotonic()))
        if tended is not None:
            tended.close()

    def _tend(self, tended: CheckpointedWal) -> None:
        """Check until the log has stopped growing."""
        pause = TICK
        try:
            while not self._ended and pause <= LONGEST:
                time.sleep(pause)
                pause = TICK if tended.poll() else 2 * pause
        finally:
            tended.let_go()


class CheckpointedWal:
    """One log and three connections: one copies; of two readers one is held, or none.

    Methods raise apsw.Error. ``long``: it grew longer than it would have without this, and was not truncated since.
    """

    def __init__(self, database: Path) -> None:
        self._connections: list[apsw.Connection] = []
        wal = Wal()
        self._file = Overwriting(database, Seen(), wal)
        try:
            for _ in range(3):
                self._connections.append(_silent(database))
            self._checkpointer, *self._readers = self._connections
            page = int(self._checkpointer.pragma("page_size"))
            wal.reached = self._checkpointer.pragma("journal_mode") == "wal"
            self._file.open(self._checkpointer)
        except BaseException:
            self.close()
            raise
        self._most = max(2 * HOLD_FROM, min(MOST_PAGES, MOST_BYTES // page))
        self._held: apsw.Connection | None = None
        self._from = self._last = self._still = self._tried = 0
        self.long = False

    def close(self) -> None:
        """Close everything."""
        self._file.close()
        for connection in self._connections:
            connection.close()

    @property
    def holds(self) -> bool:
        """Whether a reader is held."""
        return self._held is not None

    def poll(self) -> bool:
        """Do what the log's length asks for; False if it has not changed since the last check."""
        if self._file.overwritten():
            return False
        try:
            length, copied = self._length()
            self._still = self._still + 1 if length == self._last else 0
            self._last = length
            self._act(length, copied)
        except apsw.BusyError:  # another connection holds the whole file for a moment
            return False
        return not self._still

    def _act(self, length: int, copied: int) -> None:
        if self._still >= PATIENCE or length >= self._most:
            worth = 1 if self.holds else COPY_FROM  # the application would copy the rest of a log this long
            self.let_go()
            if length - copied >= worth:
                self._copy()
            if length >= 2 * self._most:
                self._copy_last()
        elif self.holds:
            if length - self._from >= STEP:
                self._hold(length)
        elif length - copied >= HOLD_FROM and length < self._most // 2:
            self._hold(length)

    def _hold(self, length: int) -> None:
        """Hold a reader at the log's end, release the previous one, copy up to there: else the application would."""
        reader = next(one for one in self._readers if one is not self._held)
        reader.execute("BEGIN")
        try:
            reader.pragma("schema_version")  # the first read begins the transaction
        except apsw.Error:
            reader.execute("ROLLBACK")
            raise
        self.let_go()
        self._held, self._from = reader, length
        self.long = self.long or length >= self._most // 2
        self._copy()

    def let_go(self) -> None:
        """Release the reader."""
        held, self._held = self._held, None
        if held is not None:
            held.execute("ROLLBACK")

    def cut(self) -> None:
        """Truncate a log that grew long, unless another connection reads or writes, or a page is not copied."""
        self.long = False
        with suppress(apsw.BusyError):
            length, copied = self._length()
            if length == copied and not self._file.overwritten():
                self._checkpointer.wal_checkpoint("main", apsw.SQLITE_CHECKPOINT_TRUNCATE)

    def _length(self) -> tuple[int, int]:
        """Return how many pages the log has, and how many of them are copied; (0, 0) without a log."""
        length, copied = self._checkpointer.wal_checkpoint("main", apsw.SQLITE_CHECKPOINT_NOOP)
        return max(0, length), max(0, copied)

    def _copy(self, mode: int = apsw.SQLITE_CHECKPOINT_PASSIVE) -> None:
        if self._file.overwritten():  # then no page of the log may get into it
            return
        with suppress(apsw.BusyError):  # another connection does it just now
            self._checkpointer.wal_checkpoint("main", mode)

    def _copy_last(self) -> None:
        """Copy the last pages while no other connection writes, unless a reader keeps more from being copied.

        Where the application has ``wal_autocheckpoint = 0`` and writes without a pause, there are new pages after each
        copy, and the log never restarts. After a try that failed it waits for as many pages as make a copy worth it.
        """
        length, copied = self._length()
        if 0 < length - copied < STEP and abs(length - self._tried) >= COPY_FROM:
            self._tried = length
            self._checkpointer.set_busy_timeout(WAITS_MS)
            try:
                self._copy(apsw.SQLITE_CHECKPOINT_FULL)
            finally:
                self._checkpointer.set_busy_timeout(0)


def _silent(database: Path) -> apsw.Connection:
    """Open a connection that never waits for a lock and never checkpoints by itself."""
    connection = open_file(database)
    connection.set_busy_timeout(0)
    connection.wal_autocheckpoint(0)
    connection.pragma("synchronous", "normal")
    return connection
