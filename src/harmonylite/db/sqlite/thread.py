"""The one thread that owns the SQLite files of a node.

Invariant: calls run one after the other, in the order in which they were made. A call that waits for another process
gives way to the calls behind it, and runs again after them. Cancelling a caller abandons the wait, not the call: its
own code commits or rolls back a transaction that it began. What gives something back (`always`) runs in any case.

A commit crosses this thread three times, so a crossing is short: one queue there, one callback back. asyncio's own
executor needs two more futures and three turns of the loop.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from queue import SimpleQueue
from typing import Any, ParamSpec, TypeVar

from harmonylite.db.sqlite.connection import mapped
from harmonylite.errors import DatabaseDamagedError

P = ParamSpec("P")
R = TypeVar("R")

Call = tuple[asyncio.Future[Any], Callable[[], Any], bool]
"""The caller's future, the work, and whether it runs also if the thread ends first."""


class GiveWayError(Exception):
    """Ends a call that has changed nothing, so that others run; it runs again after those that wait already."""


class SqliteThread:
    """Runs functions on its thread. First use starts the thread, `aclose` ends it.

    If a call finds damage, the task that waits in `damage` gets the error, too, because the caller can't repair it.
    """

    def __init__(self) -> None:
        self._calls: SimpleQueue[Call | None] = SimpleQueue()
        self._called = threading.Event()
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
        try:
            return await future
        except DatabaseDamagedError as error:
            self.hurt(error)
            raise

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
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
            with suppress(RuntimeError):  # the loop has ended, and the callers with it
                future.get_loop().call_soon_threadsafe(_settle, future, result, error)
            del call, future, function, result, error

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


def _settle(future: asyncio.Future[Any], result: object, error: BaseException | None) -> None:
    """Pass the result of a call to its caller, unless that was cancelled."""
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
