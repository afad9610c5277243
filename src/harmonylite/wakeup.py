"""Wake everyone who waits for something to move.

Invariant: anyone who began to wait before a `Wakeup.notify` continues after it; no waiter that gave up is kept.
"""

from __future__ import annotations

import asyncio


class Wakeup:
    """Wakes everyone who waits; one event loop's."""

    def __init__(self) -> None:
        self._waiting: set[asyncio.Future[None]] = set()

    def notify(self) -> None:
        """Wake who waits now."""
        waiting, self._waiting = self._waiting, set()
        for each in waiting:
            if not each.done():
                each.set_result(None)

    async def wait(self) -> None:
        """Return at the next `notify`."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.add(waiter)
        try:
            await waiter
        finally:
            self._waiting.discard(waiter)
