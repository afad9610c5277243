"""The engine: runs receiver and sender, from joined files to a stop.

Invariant: nothing is published before every shard was folded to the end that it had at the start, so a restart never
publishes again what came into the order before it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

from harmonylite.backoff import Backoff, Retry
from harmonylite.changes.aborts import STALL, STALL_BEGUN, AbortRules, Place, Unfinished
from harmonylite.db.replica import Replica
from harmonylite.db.sqlite.thread import SqliteThread
from harmonylite.db.sqlite.watch import Watch
from harmonylite.errors import (
    DatabaseBusyError,
    DatabaseError,
    DiskFullError,
    MirrorDeviatesError,
    PassedError,
    ReopenError,
    StreamError,
    StreamGapError,
    StreamLostError,
    leaves,
)
from harmonylite.model import ChangeSetId, StreamInfo
from harmonylite.ports import Covering, ShardStream
from harmonylite.replication.file_errors import FileErrors
from harmonylite.replication.lag import LONG_SECONDS
from harmonylite.replication.publisher import Publisher, is_of
from harmonylite.replication.receiver import Receiver
from harmonylite.replication.sender import Sender, SenderSettings
from harmonylite.replication.throttle import Throttle
from harmonylite.status import NodeStatus
from harmonylite.ticks import tick

log = logging.getLogger(__name__)

COUNT_EVERY = 2.0
"""Seconds between counts of what is pending, while the replica can't follow the streams."""
LAG_EVERY, LAG_RARELY = 2.0, 4.0
"""Seconds between queries of the streams' ends, and while none of them moves."""
UNSTICK_EVERY = 1.0
"""Seconds between checks for change sets that stay unfinished."""
LASTS = 1.0
"""Seconds after which a run that follows one that failed at once counts as one that lasts, and two pauses more."""

T = TypeVar("T")
Checkpoint = Callable[[ChangeSetId, dict[int, int]], None]


class Recovers(Protocol):
    """Recovers a replica that can't continue with its streams. ``one_by_one``: see `Receiver`; `check` sets it."""

    one_by_one: bool

    async def check(self, replica: Replica) -> None:
        """Raise StreamLostError when the replica can't continue with the streams as they are.

        StreamError: retry.
        """

    async def watch(self, replica: Replica) -> None:
        """Check without end whether the cluster started a new epoch, the mirror differs from the others', or those are
        past what can't be folded here; raise StreamLostError, MirrorDeviatesError or PassedError then.
        """

    def turn(self) -> None:
        """Let `watch` check at once."""

    async def recover(self, replica: Replica) -> None:
        """Return once the replica can continue, however long that takes."""


@dataclass(frozen=True, slots=True)
class EngineHooks:
    """What the engine asks of other parts. ``message_bytes``: the most that a message may hold now.

    ``checkpoint``: called at checkpoints in the order. ``recovery``: says whether the streams can be followed, and
    brings the replica there. ``covering``: what snapshots allow the streams to forget, None: anything. ``connection``:
    counts the connections to NATS.
    """

    message_bytes: Callable[[], int]
    checkpoint: Checkpoint
    recovery: Recovers
    covering: Covering | None
    connection: Callable[[], int] = int


class Engine:
    """Runs replication."""

    def __init__(
        self,
        replica: Replica,
        thread: SqliteThread,
        watch: Watch,
        streams: Sequence[ShardStream],
        status: NodeStatus,
        settings: SenderSettings,
        hooks: EngineHooks,
    ) -> None:
        recovery = hooks.recovery
        self._replica = replica
        replica.others.pause = thread.pause
        self._thread = thread
        self.streams = streams
        self._status = status
        self._recovery, self._connection = recovery, hooks.connection
        self._part = status.part("stream")
        self._unfinished = status.part("unfinished")
        options = replica.options
        self._trouble = FileErrors(status.part("database"), (options.database, options.mirror), most=5.0)
        self._pause = 0.0
        self._runs = Retry(log, "replication", Backoff(first=0.02, most=5.0), logging.WARNING)
        self._aborts = Retry(log, "aborting an unfinished change set", Backoff(first=1.0, most=30.0, calm=60.0))
        throttle = Throttle(status, options.node, lambda: self.receiver.reassembler, hooks.covering)
        self.publisher = Publisher(
            streams, options.node, options.session, status, throttle, hooks.message_bytes, hooks.connection
        )
        self.receiver = Receiver(
            replica,
            thread,
            streams,
            status,
            landed=lambda i, whole: self.sender.landed(i, whole),
            moved=lambda: self.sender.moved(),
            checkpoint=hooks.checkpoint,
            other_history=recovery.turn,
        )
        self.sender = Sender(
            replica,
            thread,
            watch,
            self.publisher,
            status,
            settings=settings,
            message_bytes=hooks.message_bytes,
            schema_moved=self.receiver.schema_moved.set,
        )

    async def run(self) -> None:
        """Replicate without end. Raises FencedError and other errors that waiting does not resolve."""
        while True:
            found: list[BaseException] = []
            try:
                await self._run()
            except* (StreamGapError, StreamLostError, MirrorDeviatesError, PassedError, DatabaseError) as group:
                found = leaves(group)
            finally:
                self._status.caught_up = False
            try:
                await self._recover_files(found)
            except DatabaseError as error:
                self._pause = self._trouble.met(error)
                await asyncio.sleep(self._pause)

    async def _recover_files(self, found: list[BaseException]) -> None:
        """Prepare the next run. Raises DatabaseError: the next run would fail the same way."""
        lost = next((e for e in found if isinstance(e, StreamLostError)), None)
        gap = next((e for e in found if isinstance(e, StreamGapError)), None)
        files = next((e for e in found if isinstance(e, DatabaseError)), None)
        reopen = next((e for e in found if isinstance(e, ReopenError)), None)
        if reopen is not None:
            raise reopen
        error = lost or gap or next((e for e in found if isinstance(e, MirrorDeviatesError | PassedError)), None)
        if error is not None:
            pause = self._runs.failed(error, time.monotonic())
            self._part.waiting(str(error))
            await self._recovered()
            if self._runs.backoff.failures > 1:  # recovered a moment ago, and here it is again
                await asyncio.sleep(pause)
        elif files is not None:
            raise files

    async def _recovered(self) -> None:
        """Bring the replica back to the streams, and keep counting what is pending meanwhile."""
        recovering = asyncio.create_task(self._recovery.recover(self._replica), name="recover")
        try:
            while not recovering.done():
                await asyncio.wait({recovering}, timeout=COUNT_EVERY)
                with suppress(DatabaseError):
                    self._status.pending_rows = await self._thread.run(self._replica.count_pending)
        finally:
            recovering.cancel()
            await asyncio.wait({recovering})
        recovering.result()

    async def _run(self) -> None:
        connection = self._connection()  # before it is asked what is there
        ends = await self._ends()
        self.publisher.follow({i.shard: i.created for i in ends}, connection)
        await self._thread.run(self._replica.set_created, {i.shard: i.created for i in ends})
        merged = await self._thread.run(self._replica.merged_positions)
        joined = await self._thread.run(lambda: self._replica.joined)
        self.receiver.merging = joined
        self.receiver.one_by_one = self._recovery.one_by_one
        self._status.caught_up = self._status.waits_for_schema = False
        self.receiver.caught_up.clear()
        await self._thread.run(self.receiver.open, {s: p.seq for s, p in merged.items()} if joined else {}, ends)
        self._part.ok()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._lasts(), name="see the run last")
                for stream in self.streams:
                    group.create_task(self.receiver.read(stream.shard), name=f"read shard {stream.shard}")
                group.create_task(self.receiver.apply(), name="apply")
                group.create_task(self._unstick(), name="unstick")
                group.create_task(self._measure_lag(), name="measure lag")
                group.create_task(self._recovery.watch(self._replica), name="watch for a new beginning")
                group.create_task(self.sender.poll_by_clock(), name="poll by the clock")
                group.create_task(self.sender.run(self._ready({i.shard: i.last for i in ends})), name="send")
        finally:
            await self._thread.always(self._close)

    async def _lasts(self) -> None:
        """Clear the error of the last run once this one has lasted; a run that has just started proves nothing."""
        await asyncio.sleep(LASTS + 2 * self._pause)
        self._pause = 0.0
        self._trouble.over()

    def _close(self) -> None:
        """Drop what was in progress; runs on the SQLite thread, after everything queued there."""
        self.receiver.close()
        self.sender.close()

    async def _ready(self, targets: dict[int, int]) -> None:
        """Fold to the end; then, if the database was never joined, reconcile it with the mirror."""
        await self.receiver.catch_up_to(targets)
        # What is read may be a copy that ended earlier than the order does: its end is asked where it is made.
        await self.receiver.catch_up_to({s.shard: await self._retry(s.end) for s in self.streams})
        if not self.receiver.merging:
            self._status.counters.conflicts += await self._settled()
        await self._retry(self.publisher.open)
        self._status.caught_up = True
        self._status.moved.notify()

    async def _settled(self) -> int:
        """Reconcile database and mirror, however long another process holds a lock; return the number of conflicts."""
        while True:
            try:
                conflicts = await self._thread.run(self._settle)
            except (DatabaseBusyError, DiskFullError) as error:
                await asyncio.sleep(self._trouble.met(error))
            else:
                self._trouble.over()
                return conflicts

    def _settle(self) -> int:
        """Reconcile database and mirror; runs on the SQLite thread.

        What the thread folds next is merged: the flag set any later, a cut in between would never reach the database.
        """
        conflicts = self._replica.reconcile(first=True)
        self.receiver.merging = True
        return conflicts

    async def _ends(self) -> list[StreamInfo]:
        """Return the state of every stream, once all answer and can be followed. Raises StreamLostError."""
        await self._retry(lambda: self._recovery.check(self._replica))
        infos = [await self._retry(stream.info) for stream in self.streams]
        for info in infos:
            self._note(info)
        return infos

    def _note(self, info: StreamInfo) -> None:
        state = self._status.shard(info.shard)
        state.first, state.last, state.most = info.first, info.last, info.most
        lag = self.receiver.lags[info.shard]
        lag.observe(info.now, time.monotonic())
        lag.moved(time.monotonic())

    async def _retry(self, call: Callable[[], Awaitable[T]]) -> T:
        backoff = Backoff(first=0.1, most=5.0)
        while True:
            try:
                found = await call()
            except (StreamGapError, StreamLostError):
                raise
            except StreamError as error:
                self._part.waiting(str(error), error)
                with suppress(DatabaseError):
                    self._status.pending_rows = await self._thread.run(self._replica.count_pending)
                await asyncio.sleep(backoff.failed(time.monotonic()))
            else:
                if backoff.failures:
                    self._part.ok()
                return found

    async def _unstick(self) -> None:
        """Abort change sets that stay unfinished: this node's own at once, others' after a while."""
        stalls = AbortRules()
        self._unfinished.ok()
        pause = 0.0
        while True:
            if not self._status.unfinished_change_sets:
                await self.receiver.message_came.wait()
            self.receiver.message_came.clear()
            await (asyncio.sleep(pause) if pause else tick(UNSTICK_EVERY))
            pause = 0.0
            reassembler, now = self.receiver.reassembler, time.monotonic()
            incomplete = reassembler.unfinished()
            read = {stream.shard: reassembler.read_up_to(stream.shard) for stream in self.streams}
            ends = {shard: self._status.shard(shard).last for shard in read}
            due = stalls.due(self._stuck(incomplete), read, ends, now)
            late = [place for place in incomplete if stalls.seconds(place, now) > LONG_SECONDS]
            self._show_unfinished(incomplete, late)
            for victim, shard in due:
                try:
                    stalls.given_up((victim, shard), await self.publisher.abort(victim, shard), now)
                    self._unfinished.event(
                        "aborted change set %(change_set)s, which its writer left unfinished on shard %(shard)d",
                        warning=True,
                        change_set=victim,
                        shard=shard,
                    )
                except StreamError as error:
                    pause = max(pause, self._aborts.failed(error, now))

    def _show_unfinished(self, incomplete: list[Place], late: list[Place]) -> None:
        """Count what is unfinished; ``incomplete``: complete on one shard only; ``late``: those of them for a while."""
        begun = {victim for stream in self.streams for victim, _ in self.receiver.reassembler.begun(stream.shard)}
        self._status.unfinished_change_sets = len(begun | {victim for victim, _ in incomplete})
        if late:
            more = f", and for {len(late) - 1} more" if len(late) > 1 else ""
            self._unfinished.waiting(f"waits for the rest of change set {late[0][0]} on shard {late[0][1]}{more}")
        else:
            self._unfinished.ok()

    def _stuck(self, incomplete: list[Place]) -> dict[Place, Unfinished]:
        """Return the change sets that wait for more on a shard; ``incomplete``: those that are complete on another."""
        reassembler, own = self.receiver.reassembler, self._replica.options
        begun = {(victim, s.shard): count for s in self.streams for victim, count in reassembler.begun(s.shard)}
        found = {}
        if self._status.caught_up:  # before, the rest of them may just not have been read
            found = {
                (victim, shard): Unfinished(count, STALL_BEGUN)
                for (victim, shard), count in begun.items()
                if (victim.node, victim.session) != (own.node, own.session)
            }
        for place in incomplete:
            found[place] = Unfinished(begun.get(place, 0), STALL)
        dead = [v for v, _ in found if v.node == own.node and not is_of(v.session, own.session)]
        return {place: replace(how, limit=0.0) if place[0] in dead else how for place, how in found.items()}

    async def _measure_lag(self) -> None:
        """Ask for the streams' ends now and then, so that health is right also when a reader receives nothing."""
        pause, before = LAG_EVERY, list[int]()
        while True:
            await tick(pause)
            ends = [self._status.shard(stream.shard).last for stream in self.streams]
            pause, before = LAG_RARELY if ends == before else LAG_EVERY, ends
            for stream in self.streams:
                try:
                    info = await stream.info()
                except StreamLostError:
                    raise
                except StreamError:
                    continue
                self._note(info)
                self.receiver.measure(stream.shard)
                await self._date(stream)

    async def _date(self, stream: ShardStream) -> None:
        """Ask when the oldest message was stored that is not folded, where it was not read either."""
        lag = self.receiver.lags[stream.shard]
        if not lag.undated:
            return
        with suppress(StreamError):
            message = await stream.get(lag.undated)
            if message is not None and message.seq == lag.undated:
                lag.moved(time.monotonic(), message.time)
