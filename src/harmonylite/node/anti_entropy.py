"""Anti-entropy: compare database, mirror and nodes now and then, and repair what differs.

Invariant: what is right is what most nodes' mirrors hold at one position; a mirror that deviates is repaired from a
snapshot of one of them. Values that give way are in the conflict journal. Without a majority nothing is changed.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from harmonylite.backoff import Backoff, Retry
from harmonylite.db.mirror.compare import TableDifference
from harmonylite.db.sqlite.thread import SqliteThread
from harmonylite.errors import DatabaseError, HarmonyLiteError, ReopenError, SnapshotError
from harmonylite.foreign import Codec, Name, PerShard
from harmonylite.node.control import Control
from harmonylite.ports import Peers
from harmonylite.recovery.mirror_repair import RightMirror
from harmonylite.recovery.recover import Recovery
from harmonylite.replication.majority import Digest, Majority, majority_of
from harmonylite.snapshots.lease import Lease
from harmonylite.snapshots.repository import SnapshotRepository
from harmonylite.snapshots.requests import ask_nodes
from harmonylite.status import NodeStatus

log = logging.getLogger(__name__)

TOPIC = "deviates"
QUIET = 3.0
"""Seconds without a change that count as a quiet moment."""
QUIET_WAIT = 900.0
"""Seconds that a quiet moment is waited for."""
ANSWERS = 120.0
"""Seconds that nodes have to digest their mirrors, or to save a snapshot."""
AGAIN = 20.0
"""Seconds after which is compared again when something differed."""


class Deviation(msgspec.Struct):
    """Sent to all nodes: ``wrong`` ones have a mirror that the ``right`` ones, the majority, don't have; all of them at
    ``positions``.
    """

    wrong: list[Name]
    right: list[Name]
    positions: PerShard = {}


CODEC = Codec("which mirrors deviate", Deviation)


class AntiEntropy:
    """Compares, for one node."""

    def __init__(
        self,
        thread: SqliteThread,
        status: NodeStatus,
        control: Control,
        recovery: Recovery,
        repository: SnapshotRepository,
        peers: Peers,
    ) -> None:
        self._thread = thread
        self._status = status
        self._control = control
        self._recovery = recovery
        self._repository = repository
        self._peers = peers
        self._part = status.part("verify")
        self._part.ok()
        self._repairing: asyncio.Task[None] | None = None

    async def run(self, interval: float, lease: Lease | None, *, local: bool) -> None:
        """Compare every ``interval`` seconds, without end. ``lease``: whose holder compares the nodes; None: every node
        does. ``local``: also compare this node's database with its mirror.
        """
        differed, postponed = False, Retry(log, "comparing", Backoff(calm=2 * interval))
        while True:
            await asyncio.sleep(min(interval, AGAIN) if differed else interval * random.uniform(0.9, 1.1))
            try:
                await self._quiet()
                differed = (lease is None or lease.held) and await self._nodes()
                if local and not differed and (self._repairing is None or self._repairing.done()):
                    differed = await self._local()
            except ReopenError:
                raise
            except HarmonyLiteError as error:
                postponed.failed(error, time.monotonic())
            else:
                postponed.worked()
                if not differed and self._status.caught_up:
                    which = "all nodes agree" if lease is None or lease.held else "database and mirror agree"
                    self._status.verified = (time.time(), which)

    async def serve(self) -> None:
        """Listen for reports that this node's mirror deviates, without end."""
        try:
            await self._peers.serve(TOPIC, CODEC.decode, self._received)
        finally:
            if self._repairing is not None:
                self._repairing.cancel()

    async def _quiet(self) -> None:
        """Wait for a quiet moment, for a while."""
        end, counters = time.monotonic() + QUIET_WAIT, self._status.counters
        last, since = (-1, -1), time.monotonic()
        while time.monotonic() < end:
            now = (counters.published_change_sets, counters.folded_change_sets)
            if now != last or not self._status.caught_up:
                last, since = now, time.monotonic()
            elif time.monotonic() - since >= QUIET:
                return
            await asyncio.sleep(0.5)

    async def _nodes(self) -> bool:
        """Compare the mirrors of all nodes; return whether some differ."""
        verifier = self._control.parts.verifier
        if verifier is None or not self._status.caught_up:
            return False
        digests = (await verifier.digests(ANSWERS, await self._control.known()))[0]
        found = majority_of(digests)
        if found.right is not None and any(digests[node].lacks for node in found.right.nodes):
            await self._announce(found, digests)
        if len(found.all) <= 1:
            self._part.ok()
            return False
        first = found.all[0]
        wrong = sorted(digests.keys() - set(first.nodes))
        tables = sorted({table for side in found.all[1:] for table in first.differs(side.tables)})
        what = (
            f"mirrors differ in {', '.join(tables)}: nodes {', '.join(first.nodes)} agree, {', '.join(wrong)} deviate"
        )
        self._status.verified = (time.time(), what)
        self._status.counters.verify_differences += 1
        if found.right is None:
            self._part.failed(f"{what}; there is no majority: see docs/recovery.md")
            return True
        why = f"{what}; the mirrors that deviate are repaired"
        self._part.waiting(why)
        self._part.event(why, warning=True)  # the repair may end before its wait is worth a line
        await self._announce(found, digests)
        return True

    async def _announce(self, found: Majority, digests: Mapping[str, Digest]) -> None:
        """Announce to all nodes, this one too, which mirrors are right."""
        assert found.right is not None
        right = list(found.right.nodes)
        said = Deviation(sorted(digests.keys() - set(right)), right, digests[right[0]].positions)
        await self._peers.ask(TOPIC, CODEC.encode(said), bytes, seconds=1.0)

    async def _received(self, deviation: Deviation) -> bytes | None:
        own = self._status.node_id
        if own in deviation.right:
            await self.settle(deviation.positions)
            return b"yes"
        if own not in deviation.wrong:
            return None
        if self._repairing is None or self._repairing.done():
            self._repairing = asyncio.create_task(self._repaired(deviation.right), name="repair the mirror")
        return b"yes"

    async def settle(self, positions: Mapping[int, int]) -> None:
        """Take note that this node's mirror was right at ``positions``."""
        if self._control.parts.engine is not None:
            await self._control.parts.engine.receiver.skips.settle(positions)

    async def _repaired(self, right: Sequence[str]) -> None:
        try:
            await self.repair(right, ANSWERS)
        except HarmonyLiteError as error:
            log.warning("postponed the comparison of the mirror: %(error)s", {"error": error})
        except TimeoutError:
            log.warning(
                "postponed the comparison of the mirror: not repaired within %(seconds).0f s", {"seconds": ANSWERS}
            )

    async def repair(self, right: Sequence[str], seconds: float) -> None:
        """Have this node's mirror taken from one of the nodes ``right``, whose mirrors are; return once it is.

        Raises SnapshotError, StreamError, SchemaWaitError, PoisonError: the mirror stays; TimeoutError: it is not done
        within ``seconds``.
        """
        async with asyncio.timeout(seconds):
            answered = await ask_nodes(self._peers, right, me=self._status.node_id, seconds=seconds)
            found = [s for s in await self._repository.candidates(lambda s: s.name in answered) if s.node in right]
            if not found:
                raise SnapshotError(f"none of the nodes {', '.join(right)} saved a snapshot")
            snapshot = found[0]
            await self._reached(snapshot.positions)

            async def fetch() -> Path | None:
                fetched = await self._repository.fetch(lambda s: s.name == snapshot.name)
                return fetched[1] if fetched is not None else None

            source = RightMirror(
                f"snapshot {snapshot.name} of node {snapshot.node}",
                f"this node's mirror deviates from that of {', '.join(right)}; it is repaired",
                fetch,
            )
            self._recovery.repair(source)
            await asyncio.shield(source.done)

    async def _reached(self, positions: Mapping[int, int]) -> None:
        """Wait until this node's mirror is at or behind ``positions``."""
        while True:
            if all(self._status.shard(shard).position >= seq for shard, seq in positions.items()):
                return
            await asyncio.sleep(0.1)

    async def _local(self) -> bool:
        """Compare database and mirror; repair the database from a mirror that the others share; return whether they
        differed.
        """
        replica = self._control.parts.replica
        if replica is None or not self._status.caught_up:
            return False
        self._status.counters.verify_runs += 1
        found = [difference for difference in await self._thread.run(replica.compare) if not difference.equal]
        if not found:
            return False
        for difference in found:
            self._status.counters.verify_differences += _count(difference)
            self._part.event(
                "found %(rows)d rows of table %(table)s that differ between database and mirror without being pending,"
                " for example %(sample)s",
                warning=True,
                rows=_count(difference),
                table=difference.table,
                sample=difference.sample[:5],
            )
        self._status.verified = (time.time(), f"database and mirror differ in {', '.join(d.table for d in found)}")
        if await self._nodes():  # the mirror may be the wrong one of the two; where it is, it is repaired first
            return True
        self._part.waiting(f"database and mirror differ in {', '.join(d.table for d in found)}; it is repaired")
        try:
            conflicts = await self._thread.run(replica.reconcile, first=False)
        except DatabaseError:
            return True
        self._status.counters.conflicts += conflicts
        self._part.event(
            "repaired the database from its mirror; %(conflicts)d overwritten values are in the conflict journal",
            warning=True,
            conflicts=conflicts,
        )
        self._part.ok()
        return True


def _count(difference: TableDifference) -> int:
    return difference.missing + difference.extra + difference.different
