"""Notice that somebody may have written to the database.

Invariant: a hint only. The kernel's events about the folder wake at once; a slow poll makes good for what they miss
(overflow, network file systems, other systems than Linux). Nothing here opens the application's files.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path


class Watch:
    """``woken``: set whenever there may be something to see; whoever looks clears it first."""

    def __init__(self, database: Path) -> None:
        self._folder = database.parent
        self._names = {database.name, f"{database.name}-wal", f"{database.name}-journal"}
        self.woken = asyncio.Event()

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Watch while the block runs."""
        task = asyncio.create_task(self._events(), name="watch") if sys.platform == "linux" else None
        try:
            yield
        finally:
            if task is not None:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task

    async def _events(self) -> None:
        from asyncinotify import Inotify, Mask

        with Inotify() as inotify:
            inotify.add_watch(self._folder, Mask.MODIFY | Mask.CREATE | Mask.DELETE | Mask.MOVED_TO)
            async for event in inotify:
                if event.name is None or str(event.name) in self._names or event.mask & Mask.Q_OVERFLOW:
                    self.woken.set()

    async def wait(self, seconds: float) -> bool:
        """Wait until woken, at most ``seconds``; True when woken. Clears the hint."""
        try:
            async with asyncio.timeout(seconds):
                await self.woken.wait()
        except TimeoutError:
            return False
        self.woken.clear()
        return True
