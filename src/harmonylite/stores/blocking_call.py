"""Blocking work in a separate thread, for libraries that only block: watched, and abandoned when no caller waits.

Invariant: once abandoned, a call stops at its next step and its result is dropped; a thread that hangs in a dead
connection never keeps the process from ending.

Why not `asyncio.to_thread`: its pool waits for every thread at the end of the process, however long a server stalls.
Why obstore runs here too: its asyncio side may crash the interpreter at exit (PyO3/pyo3-async-runtimes issue 40).
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from harmonylite.ports import Progress

T = TypeVar("T")

STALLED_SECONDS = 300.0
"""Seconds without a byte after which work is abandoned; a server may take a while to assemble a large file."""


class StalledError(Exception):
    """Nothing has moved for ``seconds``."""

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.seconds = seconds


class GivenUpError(Exception):
    """Ends the work in its thread: no caller waits for it any more."""


class BlockingCall:
    """The channel between the work in the thread and its caller."""

    def __init__(self, loop: asyncio.AbstractEventLoop, progress: Progress | None) -> None:
        self._loop = loop
        self._progress = progress
        self._given_up = threading.Event()
        self._done = 0
        self.moved_at = time.monotonic()

    def moved(self, count: int, total: int) -> None:
        """Report ``count`` more bytes of ``total`` as moved; raises GivenUpError once no caller waits any more."""
        self.check()
        self.moved_at = time.monotonic()
        self._done += count
        if self._progress is not None:
            self._call(self._progress, self._done, max(total, self._done))

    def check(self) -> None:
        """Raise GivenUpError when no caller waits any more; call it before a step that others would see."""
        if self._given_up.is_set():
            raise GivenUpError

    def give_up(self) -> None:
        """End the call at its next step."""
        self._given_up.set()

    def run(self, work: Callable[[BlockingCall], T], result: asyncio.Future[T]) -> None:
        """Do the work; this is the thread's whole life."""
        try:
            value = work(self)
        except BaseException as error:  # noqa: BLE001 - whatever it is belongs to anyone who waits
            self._call(_fail, result, error)
        else:
            self._call(_end, result, value)

    def _call(self, function: Callable[..., object], *args: object) -> None:
        try:
            self._loop.call_soon_threadsafe(function, *args)
        except RuntimeError:
            self.give_up()  # the loop is closed: no caller is there any more


def _end(result: asyncio.Future[T], value: T) -> None:
    if not result.done():
        result.set_result(value)


def _fail(result: asyncio.Future[T], error: BaseException) -> None:
    if not result.done():
        result.set_exception(error)


async def send(work: Callable[[BlockingCall], T], progress: Progress | None = None) -> T:
    """Return ``work``'s result, done in a thread of its own. Raises its error, or StalledError.

    Cancelling abandons the work without waiting for it: it ends at its next `BlockingCall.moved` or
    `BlockingCall.check`.
    """
    loop = asyncio.get_running_loop()
    result: asyncio.Future[T] = loop.create_future()
    call = BlockingCall(loop, progress)
    threading.Thread(target=call.run, args=(work, result), name="store", daemon=True).start()
    try:
        while not result.done():
            quiet = time.monotonic() - call.moved_at
            if quiet >= STALLED_SECONDS:
                raise StalledError(STALLED_SECONDS)
            await asyncio.wait({result}, timeout=STALLED_SECONDS - quiet)
        return result.result()
    finally:
        call.give_up()
        result.cancel()
