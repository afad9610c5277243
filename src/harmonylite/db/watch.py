"""Notice that somebody may have written to the database.

Invariant: a hint only. The kernel's events about the folder wake at once; a slow poll makes good for what they miss
(overflow, network file systems, other systems than Linux). Nothing here opens the application's files.

Events are not taken one by one: while nobody waits the queue is left alone, where the kernel folds equal events into
one, so an application that commits ten thousand times a second costs no more than one that commits now and then.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

QUEUE_BYTES = 1 << 16


class Watch:
    """`wait` waits for a hint; `wake` gives one by hand."""

    def __init__(self, database: Path) -> None:
        self._folder = database.parent
        self._name = os.fsencode(database.name)
        self._woken = asyncio.Event()
        self._handle = -1

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Watch while the block runs."""
        if sys.platform != "linux":
            yield
            return
        from asyncinotify import Inotify, Mask

        with Inotify() as inotify:
            inotify.add_watch(self._folder, Mask.MODIFY | Mask.CREATE | Mask.DELETE | Mask.MOVED_TO)
            self._handle = inotify.fd
            try:
                yield
            finally:
                asyncio.get_running_loop().remove_reader(self._handle)
                self._handle = -1

    def wake(self) -> None:
        """End the wait under way, or the next one."""
        self._woken.set()

    def _readable(self) -> None:
        """Take all events; those of other files in the folder are no hint (an overflow has no name: it is one)."""
        try:
            events = os.read(self._handle, QUEUE_BYTES)
        except BlockingIOError:
            return
        if self._name in events or len(events) <= 16:
            self._woken.set()

    async def wait(self, seconds: float) -> bool:
        """Wait for a hint, at most ``seconds``; True when there was one."""
        loop = asyncio.get_running_loop()
        if self._handle >= 0:
            loop.add_reader(self._handle, self._readable)
        try:
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        except TimeoutError:
            return False
        finally:
            if self._handle >= 0:
                loop.remove_reader(self._handle)
        self._woken.clear()
        return True
