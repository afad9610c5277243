"""The one thread that owns the SQLite files of a node.

Invariant: calls run one after the other, in the order in which they were made; one that waits for something outside
gives way to those that wait for it, and is run again after them. Cancelling a waiting caller abandons the wait and not
the call: a transaction that was begun is committed or rolled back by its own code.

A commit's way crosses this thread three times, so the crossing is short: one queue there, one callback back. asyncio's
own executor takes two futures more and three turns of the loop.
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

Call = tuple[asyncio.Future[Any], Callable[[], Any]]


class GiveWayError(Exception):
    """Ends a call that changed nothing, so that others run; it is run again after those that wait already."""


class SqliteThread:
    """Runs functions on its thread. Made on first use, ended by `aclose`.

    Damage that any call meets is passed on to the task that waits in `damage`: the caller can't repair it.
    """

    def __init__(self) -> None:
        self._calls: SimpleQueue[Call | None] = SimpleQueue()
        self._called = threading.Event()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._hurt = asyncio.Event()
        self._error = DatabaseDamagedError("")

    async def damage(self) -> None:
        """Wait for damage that is met from now on, in these calls or elsewhere; raise DatabaseDamagedError."""
        self._hurt.clear()
        await self._hurt.wait()
        raise self._error

    def pause(self, seconds: float) -> bool:
        """Let the call that runs wait; False, at once, when another one waits for it to end."""
        self._called.clear()
        return self._calls.empty() and not self._called.wait(seconds)

    def hurt(self, error: DatabaseDamagedError) -> None:
        """Hear that the files are damaged."""
        self._error = error
        self._hurt.set()

    async def run(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run ``function`` on the thread and return its result or raise its error, SQLite's as a DatabaseError."""
        if self._closed:
            raise RuntimeError("the thread of the SQLite files has ended")
        if self._thread is None:
            work = partial(copy_context().run, self._work)  # so that its log lines name the database, too
            self._thread = threading.Thread(target=work, name="harmonylite-sqlite", daemon=True)
            self._thread.start()
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._calls.put((future, partial(function, *args, **kwargs)))
        self._called.set()
        try:
            return await future
        except DatabaseDamagedError as error:
            self.hurt(error)
            raise

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            future, function = call
            result, error = None, None
            try:
                with mapped("use the database"):
                    result = function()
            except GiveWayError:
                self._calls.put(call)
                continue
            except BaseException as raised:  # noqa: BLE001 - whatever it is, it is the caller's
                error = raised
            with suppress(RuntimeError):  # the loop has ended, and anyone who waited with it
                future.get_loop().call_soon_threadsafe(_settle, future, result, error)
            del call, future, function, result, error

    async def aclose(self) -> None:
        """Wait for the call that runs, drop those that wait, end the thread."""
        self._closed = True
        if self._thread is None:
            return
        self._drop()
        self._calls.put(None)
        self._called.set()
        await asyncio.to_thread(self._thread.join)
        self._drop()  # a call that gave way to the end

    def _drop(self) -> None:
        while not self._calls.empty():
            call = self._calls.get()
            if call is not None:
                call[0].cancel()


def _settle(future: asyncio.Future[Any], result: object, error: BaseException | None) -> None:
    """Give the caller what its call came to, unless it gave up."""
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
