"""Who else has a transaction open on the database, as the locks on its ``-shm`` file say.

A transaction in WAL mode holds a shared lock on one of five read marks from its first read on, and a lock on one more
byte while it writes (SQLite: walformat, section 2.3). ``F_GETLK`` asks for such locks without taking any; those of this
process are not reported.

Invariant: this process's own locks stay whole. Closing any descriptor of a file drops all of them (SQLite:
howtocorrupt, section 2.2), so the one that asks is opened after the connection is, once, and closed after it.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import apsw

from harmonylite.db.sqlite.thread import GiveWayError
from harmonylite.errors import RowRefusedError

if sys.platform == "linux":
    import fcntl

    # These calls keep Python's own lock: a thread that lets it go may wait 5 ms for it, while others begin to read.
    _C = ctypes.PyDLL(None)

WRITER = 120
READ_MARKS = range(123, 128)
MARKS_AT = 100
"""Where the positions of the read marks are, five numbers of four bytes: a mark that moved was let go in between."""

POLL_EVERY = 0.00025
"""Seconds between polls while waiting for others: an application may release its lock for a millisecond or two only."""
SHORT = 0.002
"""Seconds within which most read transactions end; up to then the polls are faster."""
HELD_LOCK = 0.003
"""Seconds after which the write lock is let go rather than kept while a transaction that reads is waited for: one that
began meanwhile and comes to write finds it taken, and can't wait for it either."""
SOON = 0.00005
"""Seconds between those polls."""
CONTINUOUS = 0.05
"""Seconds between two polls in which a lock may have been released and taken again."""
PAUSE = 0.01
"""Seconds without a commit for which to wait where locks can't be asked for."""
REST = 0.003
"""Seconds without a transaction after which none is expected to begin next: applications mostly pause less."""
BESIDE = 0.5
"""Seconds for which another process counts as one that thinks within transactions, since it was seen to."""
WAITED_FOR = 0.9
"""The share of the patience after which a transaction is background: before the wait for it ends."""

Lock = tuple[int, int, int]
"""The byte, the process that holds it, and where its read mark is: another transaction has another one."""


T = TypeVar("T")


class OtherTransactions:
    """The open transactions of other processes. ``patience``: seconds for which the node waits for their ends.

    A transaction that lasts longer, as one of a backup tool or a report, is *background* until it ends: it is waited
    for once. So is one that has read before a commit of the node's: it can't write any more, there is nothing to spare.
    ``seen``: returns a number that moves with every commit of others, where locks can't be asked for.
    ``pause``: waits for some seconds; False, at once, when other calls wait for the thread (`SqliteThread.pause`).
    """

    def __init__(self, database: Path, patience: float, seen: Callable[[], int] = int) -> None:
        self._file = f"{database}-shm"
        self._patience = patience
        self.seen = seen
        self.pause: Callable[[float], bool] = _sleep
        self._descriptor = -1
        self._ends = self._locked = 0.0
        self._refused = self._gives_way = False
        self._since: dict[Lock, float] = {}
        self._background: set[Lock] = set()
        self._polled = self._thought = 0.0

    def close(self) -> None:
        """Ask no more; no connection of this process has the database open any more."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def any_open(self) -> bool:
        """Return whether another process has a transaction open at all; safe from any thread."""
        return self._descriptor >= 0 and bool(self._held())

    def check_within_commits(self, connection: apsw.Connection) -> None:
        """Let `politely` check once more within commits of ``connection``, when only the writing is left."""
        connection.set_commit_hook(lambda: self._refuse(connection))

    def politely(self, work: Callable[[float], T], until: float | None = None) -> T:
        """Do work that commits to the database while no other process has a transaction open, as far as patience goes.

        A transaction that has read can not write any more after it (SQLite: rescode, SQLITE_BUSY_SNAPSHOT). ``work``
        gets the time on the monotonic clock up to which it may `wait`. It is rolled back and done again where another
        transaction has begun when it commits. With a deadline ``until`` of the caller's, its waits give way to other
        calls of the thread: raises GiveWayError; it is to be called again with the same deadline.
        """
        self._gives_way = until is not None
        until = self.deadline() if until is None else until
        try:
            if self._patience and not self._open():
                self._wait_for_a_pause(until)
            while True:
                try:
                    return work(until)
                except RowRefusedError:
                    if not self._refused:
                        raise
                finally:
                    self._ends, self._refused = 0.0, False
        finally:
            self._gives_way = False

    def deadline(self) -> float:
        """Return until when to wait for others from now on, on the monotonic clock."""
        return time.monotonic() + self._patience

    def wait(self, until: float, *, again: bool = False) -> None:
        """Wait until no other transaction is open, at most ``until``; ``again``: check the next commit, too.

        Of processes that think within transactions the end of one is waited for, also where none is open at first: most
        begin the next one after a short pause, and how much of that is left is unknown.
        """
        if time.monotonic() < until and self._open():
            if not self.busy() and time.monotonic() - self._thought < BESIDE:
                self._rest(min(until, time.monotonic() + REST))
            self._free(until, self._pause)
            self._ends, self._locked = until if again else 0.0, time.monotonic()

    def _rest(self, until: float) -> None:
        """Poll until another transaction is open, or it is ``until``."""
        while time.monotonic() < until and not self.busy():
            self._pause(SOON)

    def _refuse(self, connection: apsw.Connection) -> bool:
        """Make SQLite roll back instead of a commit, where another connection has begun to read and does not end
        soon.

        Nothing else is done after the last poll: what is left is the writing itself.
        """
        until, self._ends, now = self._ends, 0.0, time.monotonic()
        if now >= until:
            self._pass_over(connection)
            return False
        self._refused = not self._free(min(until, now + SHORT, max(now, self._locked + HELD_LOCK)))
        return self._refused

    def _pass_over(self, connection: apsw.Connection) -> None:
        """Wait no more for the transactions that a commit comes before."""
        if self._descriptor >= 0 and connection.txn_state("main") == apsw.SQLITE_TXN_WRITE:
            self._background |= {lock for lock in self._held() if lock[0] != WRITER}

    def _pause(self, seconds: float) -> None:
        """Sleep, or give way to other calls. Raises GiveWayError."""
        if not (self.pause if self._gives_way else _sleep)(seconds):
            raise GiveWayError

    def _free(self, until: float, pause: Callable[[float], object] = time.sleep) -> bool:
        """Poll until no other transaction is open; False when it is ``until`` before that."""
        begun = time.monotonic()
        while self.busy():
            now = time.monotonic()
            if now >= until:
                return False
            pause(SOON if now - begun < SHORT else POLL_EVERY)
        return True

    def busy(self) -> bool:
        """Return whether another process has a transaction open that is no background; False: unknown."""
        if not self._open():
            return False
        now = time.monotonic()
        held = self._held()
        if now - self._polled > CONTINUOUS:
            self._since.clear()
        self._polled = now
        self._background &= held
        self._since = {lock: self._since.get(lock, now) for lock in held}
        self._background |= {lock for lock, since in self._since.items() if now - since >= WAITED_FOR * self._patience}
        if any(now - self._since[lock] >= SHORT for lock in held - self._background):
            self._thought = now
        return bool(held - self._background)

    def may_write(self) -> bool:
        """Return whether another process is writing, as one is that syncs its commit; True where it can't be asked."""
        return not self._open() or self._holder(WRITER) is not None

    def _open(self) -> bool:
        """Open the descriptor where it is not; False where there is nothing to ask: another system, another mode."""
        if self._descriptor < 0 and sys.platform == "linux" and self._patience > 0:
            with suppress(OSError):
                self._descriptor = os.open(self._file, os.O_RDONLY | os.O_CLOEXEC)
        return self._descriptor >= 0

    def _held(self) -> set[Lock]:
        if sys.platform != "linux":
            return set()
        read = ctypes.create_string_buffer(20)
        _C.pread(self._descriptor, read, ctypes.c_size_t(20), ctypes.c_long(MARKS_AT))
        marks = struct.unpack("5I", read.raw)
        found = set()
        for byte, mark in zip((WRITER, *READ_MARKS), (0, *marks), strict=True):
            if (holder := self._holder(byte)) is not None:
                found.add((byte, holder, mark))
        return found

    def _holder(self, byte: int) -> int | None:
        """Return the process that holds a lock on ``byte``, None when none does (Linux: fcntl_locking).

        0 means any process that this one can't see, as in another container.
        """
        if sys.platform != "linux":
            return None
        asked = ctypes.create_string_buffer(struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0))
        if _C.fcntl(self._descriptor, fcntl.F_GETLK, asked):
            return None
        kind, _, _, _, process = struct.unpack("hhqqi4x", asked.raw[:32])
        return None if kind == fcntl.F_UNLCK else process

    def _wait_for_a_pause(self, until: float) -> None:
        """Wait until no process has committed for a moment, at most ``until``."""
        seen, since = self.seen(), time.monotonic()
        while (now := time.monotonic()) < until and now - since < PAUSE:
            self._pause(POLL_EVERY)
            if (found := self.seen()) != seen:
                seen, since = found, now


def _sleep(seconds: float) -> bool:
    time.sleep(seconds)
    return True
