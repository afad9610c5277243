"""Receive: read every shard, reassemble change sets, fold and merge them.

Invariant: positions move only with the rows that they cover; what can't be applied now is waited for, visibly, and
never skipped.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from tempfile import SpooledTemporaryFile
from typing import IO

from harmonylite.changes.reassembler import AtomicBatch, Fragment, Reassembler
from harmonylite.changes.skipped import LeftOut, still_there
from harmonylite.db.apply.own_change_sets import Applied
from harmonylite.db.mirror.former_names import take_for_gone
from harmonylite.db.replica import Replica
from harmonylite.db.sqlite.connection import mapped
from harmonylite.db.sqlite.thread import SqliteThread
from harmonylite.db.tracking.installed import schema_version
from harmonylite.errors import (
    DatabaseBusyError,
    DatabaseError,
    HarmonyLiteError,
    PoisonError,
    ReopenError,
    SchemaWaitError,
)
from harmonylite.model import ChangeSetId, StreamInfo, StreamMessage
from harmonylite.ports import ShardStream
from harmonylite.replication.file_errors import FileErrors
from harmonylite.replication.foreign_messages import ForeignMessages
from harmonylite.replication.lag import Lag, reached, showing
from harmonylite.replication.pause import Pause, Pauses
from harmonylite.replication.skip import SkippedMessages
from harmonylite.status import NodeStatus, Part
from harmonylite.wire import KIND_CHECKPOINT

log = logging.getLogger(__name__)

BATCH_BYTES = 2_000_000
"""A transaction of the database takes change sets of about this many bytes, so that its lock is held briefly."""
AHEAD_BYTES = 64_000_000
"""Reading pauses while about this many bytes wait to be applied."""
SCHEMA_WAIT = 1.0
"""Seconds between checks of the schema, while a change set waits for it."""

UNSURE_SECONDS = 20.0
"""Seconds that a node of the same schema has to say what happened to a column; see `recovery.schema_resync`."""

Landed = Callable[[ChangeSetId, bool], None]
Checkpoint = Callable[[ChangeSetId, dict[int, int]], None]


class Receiver:
    """Reads and applies. ``landed(id, whole)`` is called for own change sets that came back, or were voided; ``moved``
    then for moved positions; ``checkpoint`` runs on the SQLite thread right after a checkpoint was folded, with the
    positions there. ``one_by_one``: take the smallest batches, so that a pending row meets each value that it had
    elsewhere, and not the last one only. ``other_history`` is called with messages of epochs unknown to this mirror.
    """

    def __init__(
        self,
        replica: Replica,
        thread: SqliteThread,
        streams: Iterable[ShardStream],
        status: NodeStatus,
        *,
        landed: Landed,
        moved: Callable[[], None],
        checkpoint: Checkpoint,
        other_history: Callable[[], None],
    ) -> None:
        self._replica, self._thread, self._status = replica, thread, status
        self._streams = {stream.shard: stream for stream in streams}
        self.lags = {shard: Lag(status.shard(shard)) for shard in self._streams}
        self._applying: AtomicBatch | None = None
        self._landed, self._moved = landed, moved
        self._checkpoint, self._other_history = checkpoint, other_history
        self._histories: set[str] = set()
        self._arrived, self._room = asyncio.Event(), asyncio.Event()
        self.schema_moved = asyncio.Event()
        self._tried_under = -1
        self._targets: dict[int, int] = {}
        self._behind: dict[int, int] | None = None
        self._put_back_for: tuple[int, int] | None = None
        self._foreign_messages = ForeignMessages(status)
        self.paused = Pauses()
        self.skips = SkippedMessages(replica, thread, status)
        self.caught_up, self.message_came = asyncio.Event(), asyncio.Event()
        self.reassembler = Reassembler({})
        self.merging, self.one_by_one = True, False
        self._part = status.part("merge")
        self._trouble = FileErrors(self._part, (replica.options.database, replica.options.mirror))

    def _spool(self, most: int) -> IO[bytes]:
        """Return a place for blocks: in memory, above ``most`` bytes on the database's disk; its user closes it."""
        return SpooledTemporaryFile(max_size=most, dir=str(self._replica.options.folder))

    def _foreign(self, message: StreamMessage, why: str) -> None:
        self._foreign_messages.met(message, why, time.monotonic())

    def open(self, merged: dict[int, int], streams: Iterable[StreamInfo]) -> None:
        """Start from the mirror's positions; ``merged``: how far the database is, which may be further.
        ``streams``: as they are now: a message is left out once more only if it is the same one.

        Runs on the SQLite thread.
        """
        self._applying = self._put_back_for = None
        positions = self._replica.positions()
        self.reassembler = Reassembler(positions, spool=self._spool, foreign=self._foreign)
        self.paused.clear()
        lineage = self._replica.lineage()
        self._histories = {lineage.history, *lineage.past}
        for entry in still_there(self.skips.read(), {info.shard: info for info in streams}):
            self.reassembler.skip(entry.shard, entry.seq)
        behind = {s: seq for s, seq in merged.items() if s in positions and seq > positions[s].seq}
        self._behind = {s: merged.get(s, 0) for s in positions} if behind else None
        for shard, position in positions.items():
            state = self._status.shard(shard)
            state.position, state.resume = position.seq, position.resume

    def close(self) -> None:
        """Release what was read and not applied; runs on the SQLite thread, which may still use it."""
        self.reassembler.close()
        if self._applying is not None:
            self._applying.close()
            self._applying = None

    async def skip(self, shard: int, seq: int) -> LeftOut:
        """Leave out the message at which the node is paused; return what it held.

        Raises NotPausedError when it is not, and DatabaseError; nothing was changed then.
        """
        return await self.paused.leave_out(shard, seq)

    async def read(self, shard: int) -> None:
        """Read the messages of one shard, without end. Raises DiskFullError: what was read must then be read again."""
        stream = self._streams[shard]
        async for messages in stream.read(self.reassembler.read_up_to(shard) + 1):
            for message in messages:
                await self._take_in(message)
            if not self.reassembler.histories <= self._histories:
                self._histories |= self.reassembler.histories
                self._other_history()
            state = self._status.shard(shard)
            state.last = max(state.last, messages[-1].seq)
            self.measure(shard)
            self._foreign_messages.log_rest(time.monotonic())
            self._arrived.set()
            while self.reassembler.waiting_bytes > AHEAD_BYTES and not self.reassembler.held_up:
                self._room.clear()
                await self._room.wait()

    def measure(self, shard: int) -> None:
        """Find the oldest message of ``shard`` that was read and is not folded."""
        fragments = self._applying.fragments if self._applying is not None else ()
        stored = next((fragment.stored for fragment in fragments if fragment.shard == shard), 0.0)
        self.lags[shard].moved(time.monotonic(), stored or self.reassembler.oldest(shard))

    async def _take_in(self, message: StreamMessage) -> None:
        while True:
            try:
                with mapped(f"keep message {message.seq} of shard {message.shard}"):
                    self.reassembler.add(message)
                    self.message_came.set()
            except PoisonError as error:
                await self._poisoned(error, self._status.part(f"shard {message.shard}"))
            else:
                return

    async def _poisoned(self, error: PoisonError, part: Part, fragments: tuple[Fragment, ...] = ()) -> bool:
        """Wait, visibly, until a person skips the message, and all of its change set, ``fragments``, with it: True;
        or until the table that refuses a row of it was changed: False.
        """
        part.failed(str(error))
        pause, left_out = self.paused.begin(error.shard, error.seq, error.message), False
        while not left_out:
            if not error.refused:
                await pause.asked.wait()
            elif await self._schema_moves(pause):
                break
            left_out = pause.asked.is_set() and await self._leave_out(pause, fragments)
        part.ok()
        return left_out

    async def _leave_out(self, pause: Pause, fragments: tuple[Fragment, ...]) -> bool:
        """Do what ``pause`` requests; False if that failed, and the node still waits."""
        try:
            entry = await self.skips.leave_out(pause, fragments)
        except HarmonyLiteError as error:
            pause.answer(error)
            if isinstance(error, ReopenError):
                raise
            return False
        self.reassembler.skip(pause.shard, pause.seq)
        pause.answer(entry)
        self.paused.end([(pause.shard, pause.seq)])
        return True

    async def catch_up_to(self, targets: dict[int, int]) -> None:
        """Wait until every shard is applied up to ``targets``."""
        self._targets = targets
        self._check_caught_up()
        self._arrived.set()
        await self.caught_up.wait()

    def _check_caught_up(self) -> None:
        if reached(self._status, self._targets):
            self.caught_up.set()

    async def apply(self) -> None:
        """Apply what is whole, without end."""
        self._part.ok()
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            least = self.one_by_one
            while (messages := self._next(least=least)) is not None:
                least = not await self._apply(messages, least=least) or self.one_by_one
                self._room.set()
                # all that comes before what can't be applied now is applied first, in one go
                while (messages := self._before()) is not None:
                    await self._apply(messages, least=False)
            self._check_caught_up()

    def _before(self) -> AtomicBatch | None:
        """Return what comes before the message that the last batch was put back for; None when nothing does."""
        if self._put_back_for is None or self._behind is not None:
            return None
        (shard, seq), self._put_back_for = self._put_back_for, None
        limit = dict.fromkeys(self._streams, 1 << 62) | {shard: seq - 1}
        options = self._replica.options
        return self.reassembler.take(most_bytes=BATCH_BYTES, own=(options.node, options.session), limit=limit)

    def _next(self, *, least: bool) -> AtomicBatch | None:
        """Return the next batch; while the mirror is behind the database, none that goes past the database."""
        if self._behind is not None:
            messages = self.reassembler.take(most_bytes=BATCH_BYTES, limit=self._behind, least=least)
            if messages is not None:
                return messages
            if any(self.reassembler.position(s).seq < seq for s, seq in self._behind.items()):
                return None
            self._behind = None
        options = self._replica.options
        return self.reassembler.take(most_bytes=BATCH_BYTES, own=(options.node, options.session), least=least)

    async def _apply(self, messages: AtomicBatch, *, least: bool) -> bool:
        """Apply one batch, however long that takes; False if it was put back, to be retried in smaller batches.

        ``least``: there are none; change sets of several shards may only come together.
        """
        since, waited = time.monotonic(), [(fragment.shard, fragment.seq) for fragment in messages.fragments]
        recheck = False
        while True:
            self._applying = messages
            try:
                if recheck:
                    await self._thread.run(self._recheck)
                with showing(self._part, messages):
                    done = await self._thread.run(self._on_thread, messages, self._replica.others.deadline())
            except (SchemaWaitError, PoisonError) as error:
                if len(messages.fragments) > 1 and not least:
                    self.reassembler.put_back(messages)
                    self._applying, self._put_back_for = None, (error.shard, error.seq)
                    return False
                held = messages.holding(error.shard, error.seq)
                if isinstance(error, PoisonError):
                    left_out = await self._poisoned(error, self._part, held)
                else:
                    left_out = await self._waits_for_schema(error, held, time.monotonic() - since)
                if not left_out:
                    continue
                messages = messages.without(held)
                for fragment in held:
                    fragment.close()
            except DatabaseError as error:
                await asyncio.sleep(self._trouble.met(error))
                recheck = not isinstance(error, DatabaseBusyError)
            else:
                break
        self._applying = None
        self._trouble.over()
        self._status.waits_for_schema = False
        self.paused.end(waited)
        messages.close()
        self._account(messages, done)
        return True

    def _recheck(self) -> None:
        """Check whether the schema has changed, which may have been the obstacle, and whether only the first of the two
        files was committed, as when a disk became full in between.
        """
        self._check_schema()
        positions, merged = self._replica.positions(), self._replica.merged_positions()
        if self.merging and any(merged[s].seq > position.seq for s, position in positions.items()):
            self._behind = {s: position.seq for s, position in merged.items()}

    async def _waits_for_schema(self, error: SchemaWaitError, held: tuple[Fragment, ...], seconds: float) -> bool:
        """Wait a while for what the change set ``held`` needs; True if it was left out instead."""
        self._part.waiting(str(error))
        self._status.waits_for_schema = True
        pause = self.paused.begin(error.shard, error.seq, error.message)
        if pause.asked.is_set():
            return await self._leave_out(pause, held)
        if error.unsure and seconds >= UNSURE_SECONDS:
            await self._take_for_gone()
        else:
            await self._schema_moves(pause)
        return False

    async def _take_for_gone(self) -> None:
        for table, column in await self._thread.run(take_for_gone, self._replica.connection):
            log.warning(
                "ignoring values for column %(column)s of table %(table)s, which a migration removed",
                {"column": column, "table": table},
            )

    async def _schema_moves(self, pause: Pause) -> bool:
        """Wait a while, or until ``pause`` has a request; return whether the schema has changed."""
        self.schema_moved.clear()  # it only wakes: what counts is the schema's version
        waits = [asyncio.create_task(event.wait()) for event in (self.schema_moved, pause.asked)]
        try:
            await asyncio.wait(waits, timeout=SCHEMA_WAIT, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        return await self._thread.run(self._check_schema)

    def _check_schema(self) -> bool:
        """Adapt triggers and mirror to the schema; return whether it has changed since the last batch."""
        if self._replica.schema_changed():
            self._replica.reinstall()
        return self._schema() != self._tried_under

    def _schema(self) -> int:
        with mapped("read the schema's version"):
            return schema_version(self._replica.connection)

    def _on_thread(self, messages: AtomicBatch, until: float) -> Applied:
        self._tried_under = self._schema()
        done = self._replica.apply(messages, merge=self.merging and self._behind is None, until=until)
        for fragment in messages.fragments:
            if fragment.kind == KIND_CHECKPOINT and fragment.shard == max(fragment.shards):
                self._checkpoint(fragment.id, {s: p.seq for s, p in self._replica.positions().items()})
        return done

    def _account(self, messages: AtomicBatch, done: Applied) -> None:
        now = time.time()
        counters = self._status.counters
        node = self._replica.options.node
        for shard, position in messages.positions.items():
            state = self._status.shard(shard)
            state.position, state.resume = position.seq, position.resume
            state.last = max(state.last, position.seq)
            self.measure(shard)
        self._status.pace.see(self._status.left, time.monotonic())
        for fragment in messages.fragments:
            counters.folded_change_sets += 1
            if fragment.id.node != node:
                self._status.latency.observe(now - fragment.time)
                self._status.last_replicated = now
        counters.folded_rows += done.rows
        counters.merged_rows += done.merged
        if done.schema:
            log.info("changed the schema, as other nodes did: %(changes)s", {"changes": "; ".join(done.schema)})
        counters.conflicts += done.conflicts
        counters.given_up_change_sets += len(messages.voided)
        self._status.lock_hold.observe(done.locked)
        for change_set in done.own:
            self._landed(change_set, True)
        for change_set in messages.voided:
            if change_set.node == node:
                self._landed(change_set, False)
        self._moved()
        self._status.moved.notify()
        self._check_caught_up()
