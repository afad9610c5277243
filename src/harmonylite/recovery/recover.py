"""Recover: resync a replica with streams that forgot what it needs, lost what it has, or started again.

Invariant: recovery loses no row that any node holds: it merges what the snapshot has, and publishes the rest again. A
new epoch starts only if no snapshot fits the streams and no node can follow them, by compare-and-set, so all adopt it.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Container, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from harmonylite.backoff import Backoff
from harmonylite.changes.epochs import Lineage, Relation, further, held, newest, relation, start_in
from harmonylite.db.replica import Replica
from harmonylite.db.snapshot import install_mirror, lineage_of, save_mirror
from harmonylite.db.sqlite.thread import SqliteThread
from harmonylite.errors import (
    DatabaseBusyError,
    EncodingError,
    MirrorDeviatesError,
    ObjectMissingError,
    PoisonError,
    SchemaWaitError,
    SnapshotDamagedError,
    SnapshotError,
    StreamError,
    StreamLostError,
)
from harmonylite.ports import Peers, ShardStream, unread
from harmonylite.recovery.failover.failback import Failback
from harmonylite.recovery.membership import is_new_epoch, must_belong, newest_of_cluster
from harmonylite.recovery.mirror_repair import RightMirror, repair
from harmonylite.recovery.peer_messages import ANSWER, PeerState, answers_by_node
from harmonylite.recovery.recovery_settings import RecoveryHooks, RecoverySettings
from harmonylite.recovery.schema_resync import SchemaResync
from harmonylite.recovery.stream_state import StreamState, read_stream_state, stay_within
from harmonylite.snapshots.divergence import diverged
from harmonylite.snapshots.manifest import Snapshot, fits
from harmonylite.snapshots.replay import Replay, note, replayed
from harmonylite.snapshots.repository import SnapshotRepository, Wanted
from harmonylite.status import NodeStatus
from harmonylite.ticks import tick

log = logging.getLogger(__name__)

AGAIN = 1.0
"""Seconds between checks while nothing can be done."""
WATCH = 5.0
"""Seconds between checks whether the cluster started a new epoch."""
SURE = 6.0
"""Seconds that streams must look lost before a new history begins: NATS servers that come back know less at first."""
SILENT = 20.0
"""The same, while a known node does not answer: it may know more."""
TURN = 30.0
"""Seconds after which the next best node begins, when the best one does not."""
ASK = 2.0
"""Seconds that other nodes have to answer with their lineage."""
TOPIC = "standing"


class Recovery:
    """Recovers the replica of one node. ``failback``: None without regions."""

    def __init__(
        self,
        thread: SqliteThread,
        status: NodeStatus,
        repository: SnapshotRepository,
        streams: Sequence[ShardStream],
        peers: Peers,
        settings: RecoverySettings,
        hooks: RecoveryHooks,
        failback: Failback | None = None,
    ) -> None:
        self._thread, self._status = thread, status
        self._repository, self._streams, self._peers = repository, streams, peers
        self._node, self._publish = settings.node, settings.publish
        self._ensure, self._request_snapshot, self._failback = hooks.ensure, hooks.request_snapshot, failback
        self._part = status.part("recovery")
        self._part.ok()  # nothing to recover from yet
        self._recovering, self._requested = False, asyncio.Event()
        self._asked = Backoff(first=0.1, most=15.0)
        self._source: RightMirror | None = None
        self.schema_resync = SchemaResync(thread, status, peers, node=settings.node)
        self.replica: Replica | None = None
        self.past: Container[str] = ()
        self.history, self.one_by_one = "", False

    # what the engine asks --------------------------------------------------------------------------------------

    async def check(self, replica: Replica) -> None:
        """Raise StreamLostError when the mirror can't continue with the streams, or the cluster started a new epoch."""
        self.replica = self.schema_resync.replica = replica
        if self._failback is not None:
            await self._failback.settle(replica)
            self.one_by_one = await self._failback.overtaken()
        state, new_epoch = await self._stream_state(replica), False
        self.history, self.past = state.lineage.history, state.lineage.past
        if state.lost:
            raise StreamLostError(
                "; ".join(state.reasons), advice="the cluster recovers from the newest mirror by itself"
            )
        with suppress(SnapshotError):  # a store that can't be read says nothing
            if not self._failed_over:
                pointed = await newest_of_cluster(self._repository, replica, self._thread)
                new_epoch = is_new_epoch(pointed, state.lineage)
        self._status.counters.conflicts += await stay_within(replica, self._thread, state)
        if new_epoch:
            raise StreamLostError("the cluster started a new epoch while this node was away; it resyncs")

    @property
    def _failed_over(self) -> bool:
        """True while the mirror is in a failover: the store of snapshots is the primary region's, and out of reach."""
        return self._failback is not None and self._failback.failed_over

    def turn(self) -> None:
        """Let `watch` check at once whether the cluster started a new epoch, or a failover begins or ends."""
        self._requested.set()

    async def watch(self, replica: Replica) -> None:
        """Check without end whether the cluster started a new epoch.

        Raises StreamLostError, or what `repair` asks for.
        """
        known: Snapshot | None = None
        while True:
            await tick(WATCH, self._requested)
            if self._source is not None:
                raise MirrorDeviatesError(self._source.why)
            new_epoch = False
            if self._failback is not None and (why := await self._failback.due(replica)):
                raise StreamLostError(why)
            if self._failed_over:
                continue
            await self.schema_resync.check()
            with suppress(StreamError, SnapshotError):
                pointed = await self._repository.newest()
                # the lineage changes only after this has ended
                new_epoch = pointed != known and is_new_epoch(pointed, await self._thread.run(replica.lineage))
                known = pointed
            if new_epoch:
                raise StreamLostError("the cluster started a new epoch; this node resyncs")

    async def serve(self) -> None:
        """Answer other nodes' questions for this node's lineage, without end."""
        await self._peers.serve(TOPIC, bytes, self._answer)

    async def _answer(self, _question: bytes) -> bytes | None:
        if self.replica is None:
            return None
        lineage = await self._thread.run(self.replica.lineage)
        past = len(lineage.past)
        return ANSWER.encode(PeerState(self._node, not self._recovering, lineage.history, lineage.left, past))

    def repair(self, source: RightMirror) -> None:
        """Have the mirror of ``source`` taken for this node's own."""
        if self._source is not None:
            self._source.done.cancel()
        self._source = source
        self._requested.set()

    async def _repair(self, replica: Replica, source: RightMirror) -> None:
        self._part.waiting(source.why)
        try:
            found = await repair(replica, self._thread, self._status, Replay.of(replica.options, self._streams), source)
        except (SnapshotError, SchemaWaitError, PoisonError) as error:
            self._part.event("kept the mirror: %(error)s", warning=True, error=error)
            if not source.done.done():
                source.done.set_exception(error)
        else:
            if not source.done.done():
                source.done.set_result(found)

    # recovering ------------------------------------------------------------------------------------------------

    async def recover(self, replica: Replica) -> None:
        """Return once the replica can follow the streams, however long that takes."""
        self.replica, self._recovering = replica, True
        start, backoff = time.monotonic(), Backoff(first=0.2, most=5.0)
        self._asked.worked()
        try:
            while True:
                try:
                    if await self.leads_on(replica, time.monotonic() - start):
                        return
                except (StreamError, SnapshotError, DatabaseBusyError, SchemaWaitError, EncodingError) as error:
                    self._part.waiting(str(error), error)
                    if isinstance(error, SchemaWaitError):
                        await self._request_snapshot()  # a newer snapshot may have the schema that is here
                    await asyncio.sleep(backoff.failed(time.monotonic()))
        finally:
            self._recovering = False

    async def leads_on(self, replica: Replica, seconds: float) -> bool:
        """Return whether ``replica`` can follow the streams; else do the next step, ``seconds`` after the first one.

        Raises StreamError, SnapshotError, DatabaseError, SchemaWaitError: a retry may succeed.
        """
        if leads := await self._step(replica, seconds):
            self._part.ok()
        return leads

    async def _step(self, replica: Replica, seconds: float) -> bool:
        if (source := self._source) is not None:
            await self._repair(replica, source)
            self._source = None if self._source is source else self._source
        if self._failback is not None:
            await self._failback.back(replica)
            await self._failback.settle(replica)
        state = await self._stream_state(replica)
        if self._failed_over:
            if state.lost or state.gap:
                raise StreamError("this node can't follow the region's failover; it waits for home")
            return True
        pointed = await newest_of_cluster(self._repository, replica, self._thread)
        new_epoch = is_new_epoch(pointed, state.lineage)
        newer, self.schema_resync.newer = self.schema_resync.newer, ""
        if newer and (fetched := await self._fetch(lambda s: s.name == newer)) is not None:
            await self._thread.run(partial(replica.must_fit, whole=True), fetched[1])
            return await self._adopt(replica, state, *fetched)
        if not (state.lost or state.gap or new_epoch):
            return True
        why = "; ".join(state.reasons) or "the stream has forgotten what this node needs next"
        try:
            if not state.missing and await self._adopt_what_fits(replica, state, pointed if new_epoch else None):
                return True
        except (SnapshotDamagedError, ObjectMissingError) as error:
            why = f"{why}; {error}"  # others save a new one, or start again: both need to be asked for
        self._part.waiting(f"{why}; looking for a snapshot or a node to continue from")
        await self._ask_others(replica, state, why, seconds)
        await asyncio.sleep(AGAIN)
        return False

    async def _stream_state(self, replica: Replica) -> StreamState:
        return await read_stream_state(self._streams, replica, self._thread)

    async def _adopt_what_fits(self, replica: Replica, state: StreamState, pointed: Snapshot | None) -> bool:
        """Take up the best snapshot to continue from; ``pointed``: the newest, if it belongs to another history."""
        streams, history = state.streams, state.lineage.history
        if pointed is not None:
            return await self._adopt_other(replica, state, pointed.history)
        useless = self._repository.damaged
        mine = [s for s in await self._repository.candidates() if s.history == history and fits(s, streams)]
        mine = [s for s in mine if s.name not in useless]
        ends = state.common
        common = {s.name for s in mine if state.lost and all(_within(s, shard, end) for shard, end in ends.items())}
        if common and (fetched := await self._fetch(lambda s: s.name in common)) is not None:
            return await self._adopt_common(replica, state, *fetched)
        names = {s.name for s in mine}
        if names and (fetched := await self._fetch(lambda s: s.name in names)) is not None:
            return await self._adopt(replica, state, *fetched)
        return False

    async def _fetch(self, wanted: Wanted) -> tuple[Snapshot, Path] | None:
        """Fetch the best wanted snapshot whose ancestry the streams hold; see `SnapshotRepository.fetch`."""
        passed: set[str] = set()
        while (fetched := await self._repository.fetch(lambda s: s.name not in passed and wanted(s))) is not None:
            snapshot, file = fetched
            if not (why := await diverged(file, self._streams)):
                return fetched
            file.unlink()
            passed.add(snapshot.name)
            self._repository.pass_over(snapshot, SnapshotError(why))
        return None

    async def _adopt_other(self, replica: Replica, state: StreamState, history: str) -> bool:
        """Take up the newest snapshot of another history; where this node knows more than that took over, its first.

        What this node knows and a later one lacks looks like what others changed in it: it would be undone.
        """
        fetched = await self._fetch(lambda s: s.history == history and fits(s, state.streams))
        if fetched is None:
            return False
        if not fetched[0].begins and (await self._relate(replica, state, fetched[1]))[0] == "ahead":
            first = await self._fetch(lambda s: s.history == history and fits(s, state.streams) and s.begins)
            if first is not None:
                fetched[1].unlink(missing_ok=True)
                fetched = first
        return await self._adopt(replica, state, *fetched)

    async def _relate(self, replica: Replica, state: StreamState, file: Path) -> tuple[Relation, frozenset[int] | None]:
        """Return how what this node holds relates to a snapshot, and the shards on which it holds more."""
        theirs = await asyncio.to_thread(lineage_of, file)
        mine = held(await self._thread.run(replica.lineage, "main"), state.lineage)
        return relation(mine, theirs), further(mine, theirs)

    async def _adopt_common(self, replica: Replica, state: StreamState, snapshot: Snapshot, file: Path) -> bool:
        """Continue from the common end, with a snapshot before it; this node has skipped all poison up to there."""
        targets = {shard: end or 0 for shard, end in state.common.items()}
        async with replayed(
            Replay.of(replica.options, self._streams), file, targets, schema=replica.options.mirror, on_skipped=note
        ) as made:
            return await self._adopt(replica, state, snapshot, made.options.mirror, way="ahead")

    async def _adopt(
        self, replica: Replica, state: StreamState, snapshot: Snapshot, file: Path, *, way: Relation = "same"
    ) -> bool:
        which = {"snapshot": snapshot.name, "node": snapshot.node}
        if not await self._thread.run(lambda: replica.joined):
            await self._thread.run(replica.must_fit, file)
            await self._thread.run(replica.close)
            try:
                await self._thread.run(install_mirror, replica.options, file)
            finally:
                await self._thread.always(replica.open)
            log.info("resynced the mirror from snapshot %(snapshot)s of node %(node)s", which)
            return True
        await must_belong(replica, self._thread, snapshot, file)
        shards = None
        if way == "same":
            way, shards = await self._relate(replica, state, file)
            if way == "ahead" and not snapshot.begins:
                way = "diverged"
        if way == "same":
            way = "diverged" if state.lost else "behind"
        if not self._publish:
            way = "behind"
        conflicts = await self._thread.run(replica.adopt, file, relation=way, further=shards)
        self._status.counters.conflicts += conflicts
        what = {
            "behind": "",
            "ahead": "; what only this node has is published again",
            "diverged": "; rows that only this node has are published, other values are in the conflict journal",
            "same": "",
        }
        log.warning("resynced from snapshot %(snapshot)s of node %(node)s%(why)s", {**which, "why": what[way]})
        return True

    # beginning again --------------------------------------------------------------------------------------------

    async def _ask_others(self, replica: Replica, state: StreamState, why: str, seconds: float) -> None:
        """Ask for a snapshot, or begin a new history when no node follows the streams and no better node is there."""
        known = await self._thread.run(replica.nodes) - {self._node}

        def enough(found: list[PeerState]) -> bool:
            return bool(known) and known <= answers_by_node(found).keys()

        answered = await self._peers.ask(TOPIC, b"", ANSWER.decode, seconds=ASK, enough=enough)
        others = {node: answer for node, answer in answers_by_node(answered.answers).items() if node != self._node}
        # What such a node holds is not known: like one that is silent, it may know more.
        why = "; ".join(filter(None, [why, unread(answered.unread)]))
        # Anyone who follows a history that this mirror has left behind can't help: NATS was set back to a time before.
        earlier = {node for node, answer in others.items() if answer.history in state.lineage.past}
        following = sorted(node for node, answer in others.items() if answer.following and node not in earlier)
        if following:
            self._part.waiting(f"{why}; waiting for a snapshot of node {following[0]}")
            if (
                await self._request_snapshot()
            ):  # one that is no use either costs the others more than waiting costs this node
                await asyncio.sleep(self._asked.failed(time.monotonic()))
            return
        silent = known - others.keys()
        sure = SILENT if silent else SURE
        lineages = [(node, answer.lineage()) for node, answer in others.items()]
        best = newest([*lineages, (self._node, state.lineage)])
        if best != self._node:
            sure += TURN
        if seconds < sure:
            who = "this node" if best == self._node else f"node {best}"
            self._part.waiting(f"{why}; {who} starts a new epoch from its mirror, in {sure - seconds:.0f} s at most")
            return
        await self.begin(replica, fold_again=bool(earlier))

    async def begin(self, replica: Replica, *, fold_again: bool = False) -> None:
        """Save this node's mirror as the beginning of a new history; every node adopts it, this one too.

        Where the streams are those of an earlier history again, what that one had folded of them is not folded a second
        time, unless ``fold_again``: another node may have continued in them since.
        """
        await self._ensure()
        state = await self._stream_state(replica)
        streams = {info.shard: info for info in state.streams}
        if state.missing:
            return
        history = secrets.token_hex(8)
        left = {s: None if fold_again else state.lineage.left_in(info) for s, info in streams.items()}

        def beginning(now: Lineage) -> Lineage:
            starts = {s: start_in(p, streams[s], state.common[s], left[s]) for s, p in now.positions.items()}
            return now.next_epoch(history, starts)

        copy = partial(save_mirror, replica.options)
        saved = await self._repository.begin(state.streams, beginning, past=state.lineage.past, copy=copy)
        if saved is not None:
            said = "started a new epoch from this node's mirror: epoch %(epoch)s, snapshot %(snapshot)s"
            log.warning(said, {"epoch": history, "snapshot": saved.name})


def _within(snapshot: Snapshot, shard: int, end: int | None) -> bool:
    return end is not None and snapshot.positions.get(shard, 0) <= end
