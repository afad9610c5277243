"""Notice that a process may have written to the database.

Invariant: a hint only. The kernel's events of the folder wake the waiter at once; a slow poll finds what they miss
(overflow, network file systems, other systems than Linux). Nothing here opens the application's files.

Events are not read one by one: while no task waits, they stay in the queue, where the kernel merges equal ones. The
writer still pays for each: four writes per commit, together 3 us where the commit takes 20. So a caller that knows of
more to come and polls by the clock anyway stops listening meanwhile (`deaf`).
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path

log = logging.getLogger(__name__)

QUEUE_BYTES = 1 << 16


class Watch:
    """`wait` waits for a hint; `wake` gives one by hand. ``on_event``: called at each event of the database's files."""

    def __init__(self, database: Path, on_event: Callable[[], None] = lambda: None) -> None:
        self._folder = database.parent
        self._name = os.fsencode(database.name)
        self.on_event = on_event
        self._woken = asyncio.Event()
        self._event = False
        self._handle = -1
        self._listen: Callable[[bool], object] = bool
        self._listening = False

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Watch while the block runs; if the kernel refuses that, only the poll remains."""
        if sys.platform != "linux":
            yield
            return
        with ExitStack() as stack:
            try:
                from asyncinotify import Inotify, Mask

                files = Mask.CREATE | Mask.DELETE | Mask.MOVED_TO
                inotify = stack.enter_context(Inotify())
                # a second watch of one folder replaces the first one (inotify_add_watch)
                self._listen = lambda all_: inotify.add_watch(self._folder, files | Mask.MODIFY if all_ else files)
                self._listen(True)
            except OSError as error:  # no instance or watch is left; all programs of the user share them
                log.warning(
                    "look for commits by the clock only: inotify is refused for %(folder)s: %(error)s; raise "
                    "fs.inotify.max_user_instances or fs.inotify.max_user_watches (sysctl)",
                    {"folder": self._folder, "error": error},
                )
            else:
                self._handle, self._listening = inotify.fd, True
                stack.callback(self._unwatched)
            yield

    def _unwatched(self) -> None:
        asyncio.get_running_loop().remove_reader(self._handle)
        self._handle, self._listening = -1, False

    def deaf(self) -> None:
        """Ignore writes until `listening`."""
        if self._handle >= 0 and self._listening:
            self._listening = False
            with suppress(OSError):
                self._listen(False)

    def listening(self) -> bool:
        """Watch for writes from now on; True when this was `deaf`: the caller must poll for writes in between."""
        if self._handle < 0 or self._listening:
            return False
        self._listening = True
        with suppress(OSError):  # the folder was removed: the slow poll remains
            self._listen(True)
        return True

    def wake(self) -> None:
        """End the current wait, or the next one."""
        self._woken.set()

    def _readable(self) -> None:
        """Read all events; those of other files in the folder are no hint (an overflow, which has no name, is one)."""
        try:
            events = os.read(self._handle, QUEUE_BYTES)
        except BlockingIOError:
            return
        if self._name in events or len(events) <= 16:
            self._event = True
            self._woken.set()
            self.on_event()

    async def wait(self, seconds: float | None) -> bool:
        """Wait for a hint, at most ``seconds`` (None: however long it takes); True when the kernel gave one."""
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
        event, self._event = self._event, False
        return event
