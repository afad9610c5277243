"""Which other processes have a transaction open on the database, by the locks on its ``-shm`` file.

A transaction in WAL mode holds a shared lock on one of five read marks from its first read on, and a lock on one more
byte while it writes (SQLite: walformat, section 2.3). ``F_GETLK`` queries such locks without taking any; it does not
report those of this process.

Invariant: this process keeps its own locks. Closing any descriptor of a file drops all of them (SQLite: howtocorrupt,
section 2.2), so the descriptor for queries is opened once, after the connection, and closed after it.
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

    # PyDLL keeps the GIL: a thread that releases it may wait 5 ms for it, while other processes begin to read.
    _C = ctypes.PyDLL(None)

WRITER = 120
READ_MARKS = range(123, 128)
MARKS_AT = 100
"""Offset of the read marks, five numbers of four bytes: a mark that moved was released in between."""

POLL_EVERY = 0.00025
"""Seconds between polls while waiting for others: an application may release its lock for a millisecond or two only."""
SHORT = 0.002
"""Seconds within which most read transactions end; up to then the polls are faster."""
HELD_LOCK = 0.003
"""Seconds for which the node keeps the write lock while it waits for a transaction that reads; then it releases it,
because a transaction that began meanwhile and then writes finds the lock taken, and can't wait for it either."""
SOON = 0.00005
"""Seconds between those polls."""
CONTINUOUS = 0.05
"""Seconds between two polls from which on a lock may have been released and taken again in between."""
PAUSE = 0.01
"""Seconds without a commit to wait for on systems that can't query locks."""
REST = 0.003
"""Seconds without a transaction after which none is expected soon: applications mostly pause less."""
BESIDE = 0.5
"""Seconds for which a process counts as one that thinks within transactions, after it did so."""
WAITED_FOR = 0.9
"""The share of the patience after which a transaction counts as background, shortly before the wait ends."""

Lock = tuple[int, int, int]
"""The byte, the process that holds it, and its read mark, which differs between transactions."""


T = TypeVar("T")


class OtherTransactions:
    """The open transactions of other processes. ``patience``: seconds for which the node waits for their ends.

    A transaction that lasts longer, such as a backup tool's or a report's, is *background* until it ends: the node
    waits for it once. So is one that has read before a commit of the node: it can't write any more.
    ``seen``: returns a number that changes with every commit of others, for systems that can't query locks.
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
        """Stop querying; no connection of this process may have the database open."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def any_open(self) -> bool:
        """Return whether another process has a transaction open at all; safe from any thread."""
        return self._descriptor >= 0 and bool(self._held())

    def check_within_commits(self, connection: apsw.Connection) -> None:
        """Make `politely` check once more within commits of ``connection``, right before the write."""
        connection.set_commit_hook(lambda: self._refuse(connection))

    def politely(self, work: Callable[[float], T], until: float | None = None) -> T:
        """Run work that commits to the database while no other process has a transaction open, as far as patience goes.

        A transaction that has read before the commit can't write any more (SQLite: rescode, SQLITE_BUSY_SNAPSHOT).
        ``work`` gets the time on the monotonic clock up to which it may `wait`. It is rolled back and repeated if
        another transaction has begun when it commits. With the caller's deadline ``until``, its waits give way to other
        calls of the thread: it raises GiveWayError; call it again with the same deadline.
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

        For processes that think within transactions it waits for the end of one even if none is open at first: most
        begin the next one after a short pause, whose rest is unknown.
        """
        if time.monotonic() < until and self._open():
            if not self.busy() and time.monotonic() - self._thought < BESIDE:
                self._rest(min(until, time.monotonic() + REST))
            self._free(until, self._pause)
            self._ends, self._locked = until if again else 0.0, time.monotonic()

    def _rest(self, until: float) -> None:
        """Poll until another transaction is open, or until ``until``."""
        while time.monotonic() < until and not self.busy():
            self._pause(SOON)

    def _refuse(self, connection: apsw.Connection) -> bool:
        """Make SQLite roll back instead of committing, if another connection has begun to read and does not end soon.

        Only the write itself follows the last poll.
        """
        until, self._ends, now = self._ends, 0.0, time.monotonic()
        if now >= until:
            self._pass_over(connection)
            return False
        self._refused = not self._free(min(until, now + SHORT, max(now, self._locked + HELD_LOCK)))
        return self._refused

    def _pass_over(self, connection: apsw.Connection) -> None:
        """Stop waiting for the transactions that this commit invalidates."""
        if self._descriptor >= 0 and connection.txn_state("main") == apsw.SQLITE_TXN_WRITE:
            self._background |= {lock for lock in self._held() if lock[0] != WRITER}

    def _pause(self, seconds: float) -> None:
        """Sleep, or give way to other calls. Raises GiveWayError."""
        if not (self.pause if self._gives_way else _sleep)(seconds):
            raise GiveWayError

    def _free(self, until: float, pause: Callable[[float], object] = time.sleep) -> bool:
        """Poll until no other transaction is open; False if that lasts until ``until``."""
        begun = time.monotonic()
        while self.busy():
            now = time.monotonic()
            if now >= until:
                return False
            pause(SOON if now - begun < SHORT else POLL_EVERY)
        return True

    def busy(self) -> bool:
        """Return whether another process has a transaction open that is not background; False if unknown."""
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
        """Return whether another process is writing, or syncing its commit; True if that can't be queried."""
        return not self._open() or self._holder(WRITER) is not None

    def _open(self) -> bool:
        """Open the descriptor unless it is open; False if locks can't be queried: another system, another mode."""
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
        """Wait until no process has committed for `PAUSE`, at most until ``until``."""
        seen, since = self.seen(), time.monotonic()
        while (now := time.monotonic()) < until and now - since < PAUSE:
            self._pause(POLL_EVERY)
            if (found := self.seen()) != seen:
                seen, since = found, now


def _sleep(seconds: float) -> bool:
    time.sleep(seconds)
    return True
