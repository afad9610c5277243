"""Anti-entropy: compare database, mirror and nodes now and then, and repair what differs.

Invariant: what is right is what most nodes' mirrors hold at one position; a mirror that deviates is made anew from a
snapshot of one of them. Values that give way stand in the conflict journal. Without a majority nothing is changed.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import Counter

import msgspec

from harmonylite.db.compare import TableDifference
from harmonylite.db.thread import SqliteThread
from harmonylite.errors import DatabaseError, HarmonyLiteError, ReopenError
from harmonylite.foreign import Codec, Name
from harmonylite.node.questions import Questions
from harmonylite.replication.ports import Peers
from harmonylite.replication.verifying import Digest
from harmonylite.snapshots.keeper import Keeper
from harmonylite.snapshots.lease import Lease
from harmonylite.snapshots.recovering import Recovery
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
    """Told to all nodes: ``wrong`` ones have a mirror that the ``right`` ones, the majority, don't have."""

    wrong: list[Name]
    right: list[Name]


CODEC = Codec("which mirrors deviate", Deviation)


class Comparing:
    """Compares, for one node."""

    def __init__(
        self, thread: SqliteThread, status: NodeStatus, questions: Questions, recovery: Recovery, keeper: Keeper,
        peers: Peers,
    ) -> None:  # fmt: skip
        self._thread = thread
        self._status = status
        self._questions = questions
        self._recovery = recovery
        self._keeper = keeper
        self._peers = peers
        self._part = status.part("verify")
        self._part.ok()
        self._mending: asyncio.Task[None] | None = None

    async def run(self, interval: float, lease: Lease | None, *, local: bool) -> None:
        """Compare every ``interval`` seconds, without end. ``lease``: whose holder compares the nodes; None: everybody
        does. ``local``: also compare this node's database with its mirror.
        """
        differed = False
        while True:
            await asyncio.sleep(min(interval, AGAIN) if differed else interval * random.uniform(0.9, 1.1))
            try:
                await self._quiet()
                differed = (lease is None or lease.held) and await self._nodes()
                # Which of the two is right is only known of a mirror that the others share.
                if local and not differed and self._mending is None:
                    differed = await self._local()
            except ReopenError:
                raise
            except HarmonyLiteError as error:
                log.info("comparing has to wait: %s", error)

    async def serve(self) -> None:
        """Hear whether this node's mirror deviates, without end."""
        try:
            await self._peers.serve(TOPIC, CODEC.decode, self._told)
        finally:
            if self._mending is not None:
                self._mending.cancel()

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
        """Compare the mirrors of all nodes; tell whether some differ."""
        verifier = self._questions.parts.verifier
        if verifier is None or not self._status.caught_up:
            return False
        digests = (await verifier.digests(ANSWERS, await self._questions.known()))[0]
        groups = Counter(_tables(digest) for digest in digests.values())
        if len(groups) <= 1:
            self._part.ok()
            return False
        (best, count), *_ = groups.most_common()
        right = sorted(node for node, digest in digests.items() if _tables(digest) == best)
        wrong = sorted(digests.keys() - set(right))
        tables = sorted({t for _, digest in digests.items() for t in _differing(dict(best), digest)})
        what = f"mirrors differ in {', '.join(tables)}: nodes {', '.join(right)} agree, {', '.join(wrong)} deviate"
        log.error("%s", what)
        self._status.counters.verify_differences += 1
        if count * 2 <= len(digests):
            self._part.failed(f"{what}; there is no majority: see docs/recovery.md")
            return True
        self._part.waiting(f"{what}; the mirrors that deviate are made anew")
        await self._peers.ask(TOPIC, CODEC.encode(Deviation(wrong, right)), bytes, seconds=1.0)
        return True

    async def _told(self, deviation: Deviation) -> bytes | None:
        if self._status.node_id not in deviation.wrong:
            return None
        if self._mending is None or self._mending.done():
            self._mending = asyncio.create_task(self._mend(deviation.right), name="mend the mirror")
        return b"yes"

    async def _mend(self, right: list[str]) -> None:
        """Ask a node whose mirror is right for a snapshot, and let the mirror be made anew from it."""
        names = await ask_nodes(self._peers, right, me=self._status.node_id, seconds=ANSWERS)
        found = [s for s in await self._keeper.candidates(lambda s: s.name in names) if s.node in right]
        if not found:
            log.warning("none of the nodes %s saved a snapshot; the mirror is compared again later", ", ".join(right))
            return
        end = time.monotonic() + ANSWERS
        while any(self._status.shard(shard).position < seq for shard, seq in found[0].positions.items()):
            if time.monotonic() > end:
                return
            await asyncio.sleep(0.1)
        self._recovery.mend(found[0])

    async def _local(self) -> bool:
        """Compare database and mirror; repair the database; tell whether they differed."""
        replica = self._questions.parts.replica
        if replica is None or not self._status.caught_up:
            return False
        self._status.counters.verify_runs += 1
        found = [difference for difference in await self._thread.run(replica.compare) if not difference.equal]
        if not found:
            return False
        for difference in found:
            self._status.counters.verify_differences += _count(difference)
            log.error(
                "table %s: %d rows differ between database and mirror without being pending, for example %s",
                difference.table, _count(difference), difference.sample[:5],
            )  # fmt: skip
        self._part.waiting(f"database and mirror differ in {', '.join(d.table for d in found)}; it is repaired")
        try:
            conflicts = await self._thread.run(replica.reconcile, first=False)
        except DatabaseError:
            return True
        self._status.counters.conflicts += conflicts
        log.warning("the database was repaired from its mirror; %d values that gave way are in the journal", conflicts)
        self._part.ok()
        return True


def _count(difference: TableDifference) -> int:
    return difference.missing + difference.extra + difference.different


def _tables(digest: Digest) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(digest.tables.items()))


def _differing(best: dict[str, str], digest: Digest) -> set[str]:
    return {t for t in best.keys() | digest.tables.keys() if best.get(t) != digest.tables.get(t)}
