"""Free space on a nats-server's disk.

Invariant: there is room when a file of `ENOUGH` bytes could be written and synced there, quotas included; it is gone
again at once.

nats-server treats a stream whose disk was full as broken until it is restarted (seen with 2.15), so anyone who runs one
has to notice both.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from pathlib import Path

from harmonylite.backoff import Backoff

ENOUGH = 1 << 20
"""Bytes that must fit before the server is restarted."""

_SAID = "no space left on device"


class DiskSpace:
    """Knows from a server's log when the disk of ``folder`` is full. `gone` is set then, until `comes` returns."""

    def __init__(self, folder: Path) -> None:
        self.gone = asyncio.Event()
        self._folder = folder
        # longer each time, for a megabyte may be room for a moment only
        self._backoff = Backoff(first=0.5, most=30.0, calm=120.0)

    def note_line(self, text: str) -> bool:
        """Take note of a line of the log; return whether it says that the disk is full."""
        full = _SAID in text.lower()
        if full:
            self.gone.set()
        return full

    async def comes(self) -> None:
        """Wait until there is room."""
        while True:
            await asyncio.sleep(self._backoff.failed(time.monotonic()))
            if await asyncio.to_thread(has_room, self._folder):
                self.gone.clear()
                return


def has_room(folder: Path) -> bool:
    """Return whether `ENOUGH` bytes can be written into ``folder`` now."""
    try:
        with tempfile.TemporaryFile(dir=folder, prefix=".room.") as file:
            file.write(bytes(ENOUGH))
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        return False
    return True
