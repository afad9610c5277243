"""When snapshots are saved: before the streams forget, for their age, and when the newest one is damaged.

Invariant: the holder of the lease saves when a third of what a stream keeps has come since the newest snapshot; when
it does not, anybody does at the half. A node that starts from nothing finds what it needs in snapshot and stream.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable
from contextlib import suppress

from harmonylite.backoff import Backoff
from harmonylite.errors import StreamError
from harmonylite.snapshots.description import Snapshot
from harmonylite.snapshots.keeper import PASSING, Keeper
from harmonylite.snapshots.lease import Lease
from harmonylite.status import NodeStatus

log = logging.getLogger(__name__)

LOOK = 1.0
"""Seconds between looks at this node's own positions."""
ASK = 5.0
"""Seconds between questions for the newest snapshot."""
HOLDER, ANYBODY = 3, 2
"""The holder saves when a third of what the stream keeps is new, anybody when a half is."""
TURN = 3.0
"""Others wait for up to this many seconds before they step in, so that they don't all do."""


class Saver:
    """Keeps snapshots coming. ``max_entries``: messages that a stream keeps (0 = all); ``interval``: seconds (0 = never
    for its age).
    """

    def __init__(
        self, keeper: Keeper, lease: Lease, status: NodeStatus, *, max_entries: int, interval: float,
        history: Callable[[], str],
    ) -> None:  # fmt: skip
        self._keeper = keeper
        self._lease = lease
        self._status = status
        self._max = max_entries
        self._interval = interval
        self._history = history
        self._part = status.part("snapshots")
        self.newest: Snapshot | None = None
        self._revision = 0
        self._asked = float("-inf")
        self._renewed = float("-inf")
        self._first_seen = ("", float("-inf"))

    async def run(self) -> None:
        """Save whenever it is due, without end; the lease is given back when this is cancelled."""
        backoff = Backoff(first=1.0, most=30.0)
        try:
            while True:
                await asyncio.sleep(LOOK)
                try:
                    await self._look()
                except (*PASSING, OSError) as error:
                    self._part.waiting(f"no snapshot could be saved: {error}")
                    log.warning("no snapshot could be saved: %s", error)
                    await asyncio.sleep(backoff.failed(time.monotonic()))
        finally:
            await asyncio.shield(self.release())

    async def release(self) -> None:
        """Give the lease back, within a moment."""
        with suppress(StreamError, TimeoutError):
            async with asyncio.timeout(2.0):
                await self._lease.release()

    async def _look(self) -> None:
        now = time.monotonic()
        if now - self._renewed >= min(self._lease.pause, 10.0):
            self._renewed = now
            await self._lease.renew()
        if now - self._asked >= ASK or self._due() > 0:
            self._asked = now
            self.newest, self._revision = await self._keeper.pointed()
        if self.newest is not None and self.newest.name not in self._keeper.damaged:
            self._keeper.damaged.clear()
        due = self._due()
        if due < (1 if self._lease.held else 2):
            if not self._keeper.damaged:
                self._part.ok()
            return
        if not self._lease.held:
            await asyncio.sleep(random.uniform(0.0, TURN))
            self.newest, self._revision = await self._keeper.pointed()
            if self._due() < 2:
                return
        await self._keeper.save()
        self.newest, self._revision = await self._keeper.pointed()
        self._part.ok()

    def _due(self) -> int:
        """Return 0: not due, 1: the holder of the lease is to save, 2: anybody is."""
        newest, status = self.newest, self._status
        if not status.caught_up:
            return 0
        if newest is None:
            return 2
        if newest.history != self._history():
            return 0
        if newest.name in self._keeper.damaged:
            return 2
        if not self._revision:
            return 1  # NATS lost its pointer: the next snapshot sets it, and the store need not be listed any more
        ahead = max((s.position - newest.positions.get(s.shard, 0) for s in status.shards.values()), default=0)
        if ahead <= 0:
            return 0
        if self._max and ahead * ANYBODY >= self._max:
            return 2
        if self._max and ahead * HOLDER >= self._max:
            return 1
        return int(self._interval > 0 and self._age(newest) >= self._interval)

    def _age(self, newest: Snapshot) -> float:
        """Return for how long this process knows the newest snapshot: other machines' clocks are not compared."""
        if self._first_seen[0] != newest.name:
            self._first_seen = (newest.name, time.monotonic())
        return time.monotonic() - self._first_seen[1]
