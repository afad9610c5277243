"""Failover of a node to its region's own streams, and failback of what was ordered there.

Failover: the node keeps a copy of its mirror, the *base*, and follows the region's own streams under a separate epoch.
Failback, once those are closed: one node, the *carrier*, uses the base as its mirror again, so all changes of the
failover are pending there, and publishes them. The region's own pointers name the carrier and its progress, so a
promotion doesn't lose them. The others wait for it, then adopt a mirror with all of it; they publish only own rows.

Invariant: nothing in a failover is dropped before it is in the primary order. A node follows the carrier only as far as
the carrier had folded the failover, and publishes later changes itself.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from harmonylite.backoff import Backoff, Retry
from harmonylite.changes.failover import Failover, mark_of
from harmonylite.db.mirror.conflict_journal import keep_entries, recent_nodes
from harmonylite.db.mirror.positions import enter
from harmonylite.db.replica import Replica
from harmonylite.db.snapshot import ends_of, lineage_of, save_copy
from harmonylite.db.sqlite.connection import transaction
from harmonylite.db.sqlite.file_access import make_private
from harmonylite.db.sqlite.thread import SqliteThread
from harmonylite.errors import (
    DatabaseError,
    ForeignError,
    HarmonyLiteError,
    PoisonError,
    SchemaWaitError,
    SnapshotError,
    StreamError,
    StreamLostError,
)
from harmonylite.model import Position, StreamInfo
from harmonylite.ports import ShardStream
from harmonylite.recovery.failover.failback_owner import CODEC, FailbackClaim, key_of, mark_of_base
from harmonylite.recovery.failover.failback_settings import FailbackHooks, FailbackSettings, FailoverStreamsPort
from harmonylite.snapshots.manifest import fits
from harmonylite.snapshots.replay import Replay, note, replayed
from harmonylite.snapshots.repository import PointerStore, SnapshotRepository
from harmonylite.status import NodeStatus

log = logging.getLogger(__name__)

SILENT = 20.0
"""Seconds that a carrier may be silent before another node takes over."""
FORWARD = 30.0
"""Seconds that a copy of the mirror may take to come to where a failover begins."""
STILL = 3.0
"""Seconds without a step after which no more of a closed failover can be folded."""


class Failback:
    """Brings one node back to the primary region. ``pointers``: those of this node's region."""

    def __init__(
        self,
        thread: SqliteThread,
        status: NodeStatus,
        repository: SnapshotRepository,
        pointers: PointerStore,
        failovers: FailoverStreamsPort,
        streams: Sequence[ShardStream],
        settings: FailbackSettings,
        hooks: FailbackHooks,
    ) -> None:
        self._thread = thread
        self._status = status
        self._repository = repository
        self._pointers = pointers
        self._failovers = failovers
        self._streams = streams
        self._folder = settings.folder
        self._node = settings.node
        self._may_bring_back = settings.may_bring_back
        self._hooks = hooks
        self._part = status.part("failover")
        self._part.ok()
        self._refused = ""
        self._unread: tuple[bytes, int] | None = None
        self._silent: dict[str, float] = {}
        self._at: tuple[dict[int, int], float] = ({}, 0.0)
        self._left = asyncio.Event()
        if list(self._folder.glob("interim-*.db")):
            self._left.set()

    @property
    def failed_over(self) -> bool:
        """True while the mirror is in a failover, also in one that is closed."""
        return self._failovers.failed_over

    # going -----------------------------------------------------------------------------------------------------

    async def settle(self, replica: Replica) -> None:
        """Continue in the order that the mirror is in, or enter a failover that is open.

        Nothing may be replicated meanwhile. Raises StreamError, StreamLostError when the failover is over."""
        lineage = await self._thread.run(replica.lineage)
        mark = mark_of(lineage)
        self._keep_in_mind(mark)
        # What was in flight when the primary region was lost comes back in its order; the failover may have followed
        # it.
        replica.name_own(on=not mark and any(self._folder.glob("interim-*.db")))
        if mark:
            mine = await self._mine(mark, lineage.positions)
            if mine is None:
                self._failovers.use(None)
                raise StreamLostError("the failover of this region is over; what it holds is brought back")
            self._failovers.use(mine)
            return
        self._failovers.use(None)
        failover = None
        with suppress(StreamError):
            failover = await self._open_to(replica, lineage.positions)
        if failover is not None:
            await self._enter(replica, failover)

    async def due(self, replica: Replica) -> str:
        """Return why this node must turn now, "" when it need not, or when it is unknown."""
        lineage = await self._thread.run(replica.lineage)
        mark = mark_of(lineage)
        with suppress(StreamError):
            if mark and await self._mine(mark, lineage.positions) is None:
                return "the failover of this region is closed: the primary region is back"
            if not mark and self._failovers.seen and await self._open_to(replica, lineage.positions) is not None:
                return "the primary region is unreachable; this region failed over"
        return ""

    async def _mine(self, mark: str, positions: Mapping[int, Position]) -> Failover | None:
        """Return the failover ``mark``, None when it is over: closed, and folded as far as it can be, or gone.

        What was cut in half when it was closed is never folded: its writer has it.
        """
        mine = next((failover for failover in await self._failovers.all() if failover.mark == mark), None)
        if mine is None or mine.open:
            return mine
        at = {shard: position.seq for shard, position in positions.items()}
        if at != self._at[0]:
            self._at = at, time.monotonic()
        ends = await self._failovers.ends(mine)
        folded = all(at[shard] >= end for shard, end in ends.items())
        return None if folded or time.monotonic() - self._at[1] > STILL else mine

    async def _open_to(self, replica: Replica, positions: Mapping[int, Position]) -> Failover | None:
        """Return the failover that a mirror at ``positions`` of the primary order is to enter, if there is one."""
        if not self._failovers.needed or not await self._thread.run(lambda: replica.joined):
            return None
        newest = next(reversed(await self._failovers.all()), None)
        if newest is None or not newest.open or not newest.whole or newest.mark == self._refused:
            return None
        return newest if newest.takes(positions) else None

    async def _enter(self, replica: Replica, failover: Failover) -> None:
        base = self._base(failover.mark)
        building = base.with_suffix(".building")
        try:
            building.unlink(missing_ok=True)
            await asyncio.to_thread(self._hooks.copy, building)
            await self._bring_forward(replica, building, {s: start.upto for s, start in failover.starts.items()})
            building.replace(base)
        except (StreamError, TimeoutError) as error:
            log.info("postponed the failover: %(error)s", {"error": error})
            return
        except (DatabaseError, PoisonError, SchemaWaitError, OSError) as error:
            self._refused = failover.mark
            building.unlink(missing_ok=True)
            log.error("not failing over: can't copy the mirror: %(error)s", {"error": error})
            return
        created = {shard: failover.order(shard) for shard in failover.starts}
        await self._thread.run(enter, replica.connection, failover.history, created)
        self._failovers.use(failover)
        self._keep_in_mind(failover.mark)

    async def _bring_forward(self, replica: Replica, base: Path, upto: Mapping[int, int]) -> None:
        """Bring the base to where the failover begins: what was ordered before is no change of the failover.

        It is read from the region's copy, like by this node itself, which had not come to it yet.
        """
        begun = await asyncio.to_thread(lineage_of, base)
        if all(begun.positions[shard].seq >= seq for shard, seq in upto.items()):
            return
        options = replica.options
        what = Replay.of(options, self._streams)
        async with asyncio.timeout(FORWARD), replayed(what, base, upto, schema=options.mirror) as made:
            await asyncio.to_thread(save_copy, made.options.mirror, base)

    def _keep_in_mind(self, mark: str) -> None:
        self._failovers.failed_over = bool(mark)
        self._failovers.base = self._base(mark) if mark and self._base(mark).exists() else None

    def _base(self, mark: str) -> Path:
        return self._folder / f"interim-{mark}.db"

    # coming back -----------------------------------------------------------------------------------------------

    async def back(self, replica: Replica) -> None:
        """Bring the mirror back to the primary order if its failover is over; nothing may be replicated meanwhile.

        Raises StreamError or SnapshotError when that has to be tried again.
        """
        lineage = await self._thread.run(replica.lineage)
        mark = mark_of(lineage)
        if not mark or await self._mine(mark, lineage.positions) is not None:
            return
        self._failovers.use(None)
        try:
            await self._back(replica, mark, lineage.positions)
        except (HarmonyLiteError, OSError) as error:
            self._part.waiting(f"the failover is closed, and the primary region's is not reached yet: {error}", error)
            if isinstance(error, OSError):
                raise SnapshotError(f"the mirror can't be brought back to the primary order: {error}") from error
            raise
        self._part.ok()
        self._keep_in_mind("")

    async def _back(self, replica: Replica, mark: str, positions: Mapping[int, Position]) -> None:
        record, revision = await self._record(mark)
        if record is not None and record.upto is not None:
            if all(position.seq <= record.ends.get(shard, 0) for shard, position in positions.items()):
                infos = [await stream.info() for stream in self._streams]
                if all(info.same(*record.upto.get(info.shard, ("?", 0))) for info in infos):
                    await self._follow(replica, mark, record.upto, infos)
                    return
            # Anyone who carried did not know it all, or carried it into streams that are lost.
            await self._bring_back(replica, mark, positions)
            return
        if record is None or record.node != self._node:
            await self._claim(mark, positions, record, revision)
        await self._bring_back(replica, mark, positions)

    async def _record(self, mark: str) -> tuple[FailbackClaim | None, int]:
        """Return the failback's claim and that pointer's revision; None: no claim, or none that can be read.

        A pointer that can't be read is replaced, by compare-and-set, like one that is not there.
        """
        found = await self._pointers.pointer(key_of(mark))
        if found is None:
            return None, 0
        try:
            return CODEC.decode(found[0]), found[1]
        except ForeignError as error:
            if self._unread != found:
                log.warning("ignoring a pointer, which counts as absent: %(error)s", {"error": error.message})
            self._unread = found
            return None, found[1]

    async def _claim(
        self, mark: str, positions: Mapping[int, Position], record: FailbackClaim | None, revision: int
    ) -> None:
        """Become the carrier; raises StreamError when another node is it."""
        if record is not None:
            now = time.monotonic()
            if await self._hooks.answers(record.node):
                self._silent.pop(record.node, None)
            if now - self._silent.setdefault(record.node, now) < SILENT or not self._may_bring_back:
                raise StreamError(f"node {record.node} publishes what it holds; this node follows then")
        if not self._may_bring_back:
            raise StreamError("no node that can publish what it holds has begun to")
        for stream in self._streams:
            await stream.end()  # unreachable: no node can fail back, and none is to wait for one that can't
        mine = FailbackClaim(self._node, {shard: position.seq for shard, position in positions.items()})
        if not await self._pointers.set_pointer(key_of(mark), CODEC.encode(mine), revision=revision):
            raise StreamError("another node has just begun to publish what it holds")

    async def _bring_back(self, replica: Replica, mark: str, positions: Mapping[int, Position]) -> None:
        """Make everything that the failover changed pending, on top of the primary order."""
        base = self._base(mark)
        if base.exists():
            begun = await asyncio.to_thread(lineage_of, base)
            ends = {shard: position.seq for shard, position in begun.positions.items()}
            # What they had sent to the primary region at the cut is in the failover, too, which followed it.
            replica.saw(await self._thread.run(recent_nodes, replica.connection, ends))
            await self._keep_entries(replica, ends)
            adopted = base.with_suffix(".adopted")
            await asyncio.to_thread(shutil.copyfile, base, adopted)
            conflicts = await self._thread.run(lambda: replica.adopt(adopted, relation="ahead"))
        else:
            log.warning("resyncing from a snapshot: the mirror from before the failover is not there")
            infos = [await stream.info() for stream in self._streams]
            fetched = await self._repository.fetch(lambda snapshot: fits(snapshot, infos))
            if fetched is None:
                await self._hooks.request_snapshot()
                raise StreamError("there is no snapshot that fits the primary order yet")
            await self._keep_entries(replica, dict.fromkeys(positions, 0))
            conflicts = await self._thread.run(lambda: replica.adopt(fetched[1], relation="diverged"))
        self._status.counters.conflicts += conflicts
        self._left.set()
        log.warning("publishing what failover %(failover)s holds to the primary region", {"failover": mark})

    async def _follow(
        self, replica: Replica, mark: str, upto: Mapping[int, tuple[str, int]], infos: Sequence[StreamInfo]
    ) -> None:
        """Continue from the primary order where it holds everything of the failover."""
        base = self._base(mark)
        begun = await asyncio.to_thread(lineage_of, base) if base.exists() else None
        after = begun.positions if begun is not None else {}
        # What arrived there since was in flight at the cut; the failover may have followed it.
        sent = await asyncio.to_thread(ends_of, base) if begun is not None else None
        await self._keep_entries(replica, {i.shard: after.get(i.shard, Position(i.shard)).seq for i in infos})
        if begun is not None and all(
            info.first <= begun.positions[info.shard].resume
            and info.same(begun.positions[info.shard].created, begun.positions[info.shard].seq)
            for info in infos
        ):
            copied, options = base.with_suffix(".replayed"), replica.options
            make_private(copied)
            await asyncio.to_thread(shutil.copyfile, base, copied)
            what, targets = Replay.of(options, self._streams), {shard: seq for shard, (_, seq) in upto.items()}
            async with replayed(what, copied, targets, schema=options.mirror, on_skipped=note) as made:
                await self._take_up(replica, made.options.mirror, sent)
        else:
            fetched = await self._repository.fetch(
                lambda s: fits(s, infos) and all(s.positions.get(shard, 0) >= seq for shard, (_, seq) in upto.items())
            )
            if fetched is None:
                await self._hooks.request_snapshot()
                raise StreamError("waiting for a snapshot of a node that has folded the whole failover")
            await self._take_up(replica, fetched[1], sent)
        base.unlink(missing_ok=True)
        log.warning("failed back: the primary region holds everything of failover %(failover)s", {"failover": mark})

    async def _take_up(self, replica: Replica, file: Path, sent: Mapping[int, int] | None) -> None:
        self._status.counters.conflicts += await self._thread.run(
            lambda: replica.adopt(file, relation="behind", sent=sent)
        )

    async def _keep_entries(self, replica: Replica, after: Mapping[int, int]) -> None:
        """Keep what the failover wrote into the conflict journal, which goes with its mirror."""

        def keep() -> None:
            with transaction(replica.connection, "keep the conflict journal"):
                keep_entries(replica.connection, after)

        await self._thread.run(keep)

    async def overtaken(self) -> bool:
        """Return whether another node carried what this one had begun to: then what is pending here is in the primary
        order, and perhaps changed since. Raises StreamError.
        """
        if not self._left.is_set() or self.failed_over:
            return False
        for base in self._folder.glob("interim-*.db"):
            record, _ = await self._record(mark_of_base(base))
            if record is not None and record.node != self._node:
                return True
        return False

    # what is left to do afterwards -----------------------------------------------------------------------------

    async def finish(self, replica: Replica) -> None:
        """Announce to the others when what this node carries is in the primary order, without end."""
        retry = Retry(log, "reporting to the primary region what this node brought back", Backoff(first=0.5, most=5.0))
        while True:
            await self._left.wait()
            try:
                if await self._finished(replica):
                    self._left.clear()
                    replica.name_own(on=False)
                    continue
                pause = retry.backoff.failed(time.monotonic())
            except (HarmonyLiteError, OSError) as error:
                pause = retry.failed(error, time.monotonic())
            await asyncio.sleep(pause)

    async def _finished(self, replica: Replica) -> bool:
        """Finish with every remaining base; False while the mirror still needs one."""
        done = True
        for base in sorted(self._folder.glob("interim-*.db")):
            done = await self._finish(replica, mark_of_base(base)) and done
        return done

    async def _finish(self, replica: Replica, mark: str) -> bool:
        if not self._status.caught_up or mark_of(await self._thread.run(replica.lineage)):
            return False
        record, revision = await self._record(mark)
        if record is not None and record.node == self._node and record.upto is None:
            await self._hooks.idle()
            lineage = await self._thread.run(replica.lineage)
            if mark_of(lineage) or not self._status.caught_up:
                return False
            updated = msgspec.structs.replace(record, upto=lineage.left)
            if not await self._pointers.set_pointer(key_of(mark), CODEC.encode(updated), revision=revision):
                return False
            said = "found everything of failover %(failover)s in the primary order at %(positions)s"
            log.warning(said, {"failover": mark, "positions": lineage.left})
        with suppress(StreamError):
            for failover in await self._failovers.all():
                if failover.mark == mark and not failover.open:
                    await self._failovers.remove(failover)
        self._base(mark).unlink(missing_ok=True)
        return True
