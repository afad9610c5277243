"""When snapshots are saved: before the streams forget, for their age, when a node waits for one, or the newest is
damaged.

Invariant: the holder of the lease saves when a third of what a stream keeps has come since the newest snapshot; when
it does not, any node does at the half. So publishing rarely has to wait for one
(`harmonylite.replication.throttle`).
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Container, Mapping
from contextlib import suppress

from harmonylite.backoff import Backoff
from harmonylite.errors import StreamError
from harmonylite.ports import Peers
from harmonylite.progress import ShardStatus
from harmonylite.snapshots.lease import Lease
from harmonylite.snapshots.manifest import Snapshot
from harmonylite.snapshots.repository import PASSING, SnapshotRepository
from harmonylite.snapshots.requests import other_store, who_has
from harmonylite.status import NodeStatus
from harmonylite.ticks import tick

log = logging.getLogger(__name__)

POLL_EVERY = 1.0
"""Seconds between checks of this node's own positions."""
ASK = 5.0
"""Seconds between queries of the newest snapshot."""
CHECK = 600.0
"""Seconds between checks that the store has the newest snapshot; the first one is right after the start."""
HOLDER, ANY_NODE = 3, 2
"""The holder saves when a third of what the stream keeps is new, any node when a half is."""
TURN = 3.0
"""Others wait for up to this many seconds before they step in, so that they don't all do."""


PATIENCE = 5.0
"""Seconds that a snapshot is wanted here before this node saves it itself, anyone who holds the lease."""
ASK_AROUND = 0.3
"""Seconds that the holder of the lease has to receive a request for a snapshot."""
TOPIC = "want"
SEARCHING = "the newest snapshot can't be looked up"


class SnapshotScheduler:
    """Saves snapshots when they are due. Implements `harmonylite.ports.Covering`.

    ``interval``: seconds (0 = never for its age); ``history``: the one that this node is in; ``past``: those before it;
    ``away``: returns whether the store is out of reach, and not needed meanwhile.
    """

    def __init__(
        self,
        repository: SnapshotRepository,
        lease: Lease,
        peers: Peers,
        status: NodeStatus,
        *,
        interval: float,
        history: Callable[[], str],
        past: Callable[[], Container[str]],
        away: Callable[[], bool] = lambda: False,
    ) -> None:
        self._repository = repository
        self._lease = lease
        self._peers = peers
        self._status = status
        self._interval = interval
        self._history = history
        self._past = past
        self._wanted, self._due_now = asyncio.Event(), asyncio.Event()
        self._wanted_first = self._wanted_last = float("-inf")
        self._away = away
        self._part = status.part("snapshots")
        self._doing = SEARCHING
        self.newest: Snapshot | None = None
        self._asked = float("-inf")
        self._renewed = float("-inf")
        self._checked = float("-inf")
        self._strange = False
        self._first_seen = ("", float("-inf"))

    async def run(self) -> None:
        """Save whenever it is due, without end; the lease is given back when this is cancelled."""
        backoff = Backoff(first=1.0, most=30.0)
        try:
            while True:
                await tick(POLL_EVERY, self._due_now)
                try:
                    await self._poll()
                except (*PASSING, OSError) as error:
                    self._part.waiting(f"{self._doing}: {error}", error)
                    await asyncio.sleep(backoff.failed(time.monotonic()))
        finally:
            await asyncio.shield(self.release())

    async def release(self) -> None:
        """Give the lease back, within a moment."""
        with suppress(StreamError, TimeoutError):
            async with asyncio.timeout(2.0):
                await self._lease.release()

    # what publishing asks ---------------------------------------------------------------------------------------

    def covered(self) -> Mapping[int, int] | None:
        """Return what the newest snapshot leaves to the streams; see `Covering.covered`."""
        newest = self.newest
        return newest.resume if newest is not None and newest.history == self._history() else None

    async def refresh(self) -> None:
        """Find out which snapshot is the newest now; see `Covering.refresh`."""
        self._asked = time.monotonic()
        self.newest = await self._repository.newest()
        self._status.snapshot_at = self.newest.at if self.newest is not None else 0.0

    def want(self) -> None:
        """Have a snapshot saved; see `Covering.want`. To be repeated for as long as it is wanted."""
        now = time.monotonic()
        if now - self._wanted_last > PATIENCE:
            self._wanted_first = now
        self._wanted_last = now
        self._want()

    async def serve(self) -> None:
        """Receive other nodes' requests for a snapshot, without end."""
        await self._peers.serve(TOPIC, bytes, self._asked_for)

    async def _asked_for(self, _question: bytes) -> bytes | None:
        if not self._lease.held:
            return None
        self._want()
        return b""

    def _want(self) -> None:
        self._wanted.set()
        self._due_now.set()

    # saving ----------------------------------------------------------------------------------------------------

    async def _poll(self) -> None:
        if self._away():
            self._part.ok()
            return
        now = time.monotonic()
        if self._strange and (now - self._asked < ASK or await self._still_strange()):
            return
        self._doing = SEARCHING
        wanted = self._wanted.is_set()
        self._wanted.clear()
        almost = now + POLL_EVERY / 2  # the next poll would be late
        if almost - self._renewed >= min(self._lease.pause, 10.0):
            self._renewed = now
            await self._lease.renew()
        if almost - self._asked >= ASK or wanted or self._due() > 0:
            await self.refresh()
        if self.newest is not None and await self._other_store_has(self.newest, now):
            return
        if wanted and not self._lease.held and self._due(wanted=True):
            await self._peers.ask(TOPIC, b"", bytes, seconds=ASK_AROUND, expect=1)
        if self._due(wanted=wanted) < (1 if self._lease.held else 2):
            if not self._repository.damaged:
                self._part.ok()
            return
        if not self._lease.held:
            await asyncio.sleep(random.uniform(0.0, TURN))
            await self.refresh()
            if self._due(wanted=wanted) < 2:
                return
        self._doing = "no snapshot could be saved"
        await self._repository.save()
        self._doing = SEARCHING
        await self.refresh()
        self._part.ok()

    async def _other_store_has(self, newest: Snapshot, now: float) -> bool:
        """Check the newest snapshot now and then; return whether this store lacks it and another node's has it."""
        if newest.name not in self._repository.damaged:
            self._repository.damaged.clear()
            self._repository.missing.clear()
            if self._status.caught_up and now - self._checked >= CHECK:
                await self._repository.check(newest)
                self._checked = now
        return newest.name in self._repository.missing and await self._elsewhere(newest)

    async def _elsewhere(self, newest: Snapshot) -> bool:
        """Return whether another node's store has the newest snapshot, which this one lacks: others have to save."""
        other = await who_has(self._peers, self._repository, newest.name, me=self._status.node_id)
        if other is None:
            return False
        self._part.failed(other_store(newest.name, self._repository.catalog.place, other))
        self._strange = True
        await self._lease.release()
        return True

    async def _still_strange(self) -> bool:
        """Return whether this node's store still lacks the newest snapshot, which another node's had."""
        await self.refresh()
        self._strange = self.newest is not None and not await self._repository.catalog.has(self.newest.name)
        if not self._strange:
            self._repository.damaged.clear()
            self._repository.missing.clear()
            self._part.ok()
        return self._strange

    def _due(self, *, wanted: bool = False) -> int:
        """Return 0: not due, 1: the holder of the lease is to save, 2: any node is. ``wanted``: one is waited for."""
        newest, status = self.newest, self._status
        if not status.caught_up:
            return 0
        if newest is None:
            return 2
        if newest.history != self._history():
            # one of this node's own past: NATS lost where its pointer had continued to
            return 2 if newest.history in self._past() else 0
        if newest.name in self._repository.damaged:
            return 2
        if self._repository.unnamed:
            return 1  # NATS lost or bent its pointer: the next snapshot sets it, and the store need not be listed then
        turns = [self._turn(shard, newest.resume.get(shard.shard, 1)) for shard in status.shards.values()]
        if wanted and any(s.resume > newest.resume.get(s.shard, 1) for s in status.shards.values()):
            turns.append(2 if time.monotonic() - self._wanted_first >= PATIENCE else 1)
        old = self._interval > 0 and self._age(newest) >= self._interval
        if old and any(s.position > newest.positions.get(s.shard, 0) for s in status.shards.values()):
            turns.append(1)
        return max(turns, default=0)

    @staticmethod
    def _turn(shard: ShardStatus, resume: int) -> int:
        """Return who is to save because of ``shard``, of which the newest snapshot needs ``resume`` and later."""
        if shard.resume <= resume:  # a change set that is under way: another snapshot would need it, too
            return 0
        used = shard.position + 1 - resume
        if shard.first > resume or (shard.most and used * ANY_NODE >= shard.most):
            return 2
        return int(bool(shard.most) and used * HOLDER >= shard.most)

    def _age(self, newest: Snapshot) -> float:
        """Return for how long this process knows the newest snapshot: other machines' clocks are not compared."""
        if self._first_seen[0] != newest.name:
            self._first_seen = (newest.name, time.monotonic())
        return time.monotonic() - self._first_seen[1]
