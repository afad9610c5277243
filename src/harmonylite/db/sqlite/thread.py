"""The one thread that owns the SQLite files of a node.

Invariant: calls run one after the other, in the order in which they were made. A call that waits for another process
gives way to the calls behind it, and runs again after them. Cancelling a caller abandons the wait, not the call: its
own code commits or rolls back a transaction that it began. What gives something back (`always`) runs in any case.

A commit crosses this thread three times, so a crossing is short: one queue there, one callback back. asyncio's own
executor needs two more futures and three turns of the loop. What is only checked by the clock (`SqliteThread.until`)
does not cross it at all: an idle process would wake three times for each check.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, ParamSpec, TypeVar

from harmonylite.db.sqlite.connection import mapped
from harmonylite.errors import DatabaseDamagedError
from harmonylite.ticks import next_tick

P = ParamSpec("P")
R = TypeVar("R")

Call = tuple[asyncio.Future[Any], Callable[[], Any], bool]
"""The caller's future, the work, and whether it runs also if the thread ends first."""


class GiveWayError(Exception):
    """Ends a call that has changed nothing, so that others run; it runs again after those that wait already."""


@dataclass(slots=True)
class _Check:
    """A function that is called each ``every`` seconds until it returns true; ``due``: the next time, monotonic."""

    function: Callable[[], bool]
    every: float
    future: asyncio.Future[Any]
    due: float


class SqliteThread:
    """Runs functions on its thread. First use starts the thread, `aclose` ends it.

    If a call finds damage, the task that waits in `damage` gets the error, too, because the caller can't repair it.
    """

    def __init__(self) -> None:
        self._calls: SimpleQueue[Call | None] = SimpleQueue()
        self._called = threading.Event()
        self._checks: list[_Check] = []
        self._thread: threading.Thread | None = None
        self._closed = False
        self._hurt = asyncio.Event()
        self._error = DatabaseDamagedError("")

    async def damage(self) -> None:
        """Wait for damage that is found from now on, in these calls or elsewhere; raise DatabaseDamagedError."""
        self._hurt.clear()
        await self._hurt.wait()
        raise self._error

    def pause(self, seconds: float) -> bool:
        """Sleep in the running call; False, at once, when another call waits for it to end."""
        self._called.clear()
        return self._calls.empty() and not self._called.wait(seconds)

    def hurt(self, error: DatabaseDamagedError) -> None:
        """Report that the files are damaged."""
        self._error = error
        self._hurt.set()

    async def run(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run ``function`` on the thread and return its result or raise its error; SQLite's become DatabaseError."""
        return await self._run(partial(function, *args, **kwargs), always=False)

    async def always(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run what a ``finally`` owes, such as a close: like `run`, and also if the thread ends before its turn comes.

        A task that is cancelled while it waits in its ``finally`` waits no longer; what it owes must happen anyway.
        """
        return await self._run(partial(function, *args, **kwargs), always=True)

    async def _run(self, function: Callable[[], R], *, always: bool) -> R:
        if self._closed:
            raise RuntimeError("the thread of the SQLite files has ended")
        if self._thread is None:
            work = partial(copy_context().run, self._work)  # its log lines must name the database, too
            self._thread = threading.Thread(target=work, name="harmonylite-sqlite", daemon=True)
            self._thread.start()
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._calls.put((future, function, always))
        self._called.set()
        return await self._awaited(future)

    async def _awaited(self, future: asyncio.Future[R]) -> R:
        """Return what the thread returns; damage is also reported to the task that waits in `damage`."""
        try:
            return await future
        except DatabaseDamagedError as error:
            self.hurt(error)
            raise

    async def until(self, found: Callable[[], bool], every: float) -> None:
        """Call ``found`` on the thread, each ``every`` seconds at most, until it returns true; raise its error."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        await self.run(self._checks.append, _Check(found, every, future, next_tick(every, time.monotonic())))
        try:
            await self._awaited(future)
        finally:
            future.cancel()  # the thread forgets it when it is due

    def _work(self) -> None:
        while True:
            try:
                call = self._calls.get(timeout=self._checked())
            except Empty:
                continue
            if call is None:
                break
            future, function, _ = call
            result, error = None, None
            try:
                with mapped("use the database"):
                    result = function()
            except GiveWayError:
                self._calls.put(call)
                continue
            except BaseException as raised:  # noqa: BLE001 - the caller gets every error
                error = raised
            _hand_back(future, result, error)
            del call, future, function, result, error

    def _checked(self) -> float | None:
        """Make the checks that are due; return the seconds until the next one, None where there is none."""
        if not self._checks:
            return None
        now = time.monotonic()
        for check in [each for each in self._checks if each.due <= now]:
            if self._makes(check):
                self._checks.remove(check)
            else:
                check.due = next_tick(check.every, time.monotonic())
        return max(0.0, min((each.due for each in self._checks), default=now) - time.monotonic())

    def _makes(self, check: _Check) -> bool:
        """Make a check; return whether it was the last time."""
        if check.future.done():
            return True
        error = None
        try:
            with mapped("use the database"):
                if not check.function():
                    return False
        except GiveWayError:  # it is made again when it is due
            return False
        except BaseException as raised:  # noqa: BLE001 - the caller gets every error
            error = raised
        _hand_back(check.future, None, error)
        return True

    async def aclose(self) -> None:
        """Wait for the running call, drop the waiting ones but those of `always`, end the thread."""
        self._closed = True
        if self._thread is None:
            return
        self._drop()
        self._calls.put(None)
        self._called.set()
        await asyncio.to_thread(self._thread.join)
        self._drop()  # a call that gave way to the close
        for check in self._checks:
            check.future.cancel()

    def _drop(self) -> None:
        owed = []
        while not self._calls.empty():
            call = self._calls.get()
            if call is not None and call[2]:
                owed.append(call)
            elif call is not None:
                call[0].cancel()
        for call in owed:
            self._calls.put(call)


def _hand_back(future: asyncio.Future[Any], result: object, error: BaseException | None) -> None:
    """Settle a future in its loop; runs on the thread."""
    with suppress(RuntimeError):  # the loop has ended, and the callers with it
        future.get_loop().call_soon_threadsafe(_settle, future, result, error)


def _settle(future: asyncio.Future[Any], result: object, error: BaseException | None) -> None:
    """Pass the result of a call to its caller, unless that was cancelled."""
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
