"""Send: notice what the application commits, capture it, publish it, and wait until it comes back in the order.

Invariant: one change set is in flight; what is committed meanwhile accumulates in the next. A change set is done only
when it came back in the order, so a publish that fails, or whose outcome is unknown, loses nothing and repeats nothing.
A change set that was published whole, and that this node has read past without getting it back, is captured again.
While this node waits before an earlier message, none comes back: then what was published whole lets the next
one leave, which holds only what was written since.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from harmonylite.backoff import Backoff, Retry
from harmonylite.db.apply.apply import MOST_UNNOTED
from harmonylite.db.capture.capture import Outgoing
from harmonylite.db.replica import Replica
from harmonylite.db.sqlite.thread import SqliteThread
from harmonylite.db.sqlite.watch import Watch
from harmonylite.errors import DatabaseBusyError, DatabaseError
from harmonylite.model import ChangeSetId
from harmonylite.replication.file_errors import FileErrors
from harmonylite.replication.in_flight import InFlight
from harmonylite.replication.publisher import Publisher
from harmonylite.status import NodeStatus

log = logging.getLogger(__name__)

POLLS = (0.0001,) * 12 + (0.0003,)
"""Seconds before each further poll after an event that shows nothing. The event comes before the write can be seen:
with `synchronous = FULL` SQLite syncs the write-ahead log in between, for 0.3 to 1 ms mostly. A poll costs 5 us."""
SECOND_POLL = 0.002
"""Seconds until the poll after those, then `FURTHER` times as long each time, to the polling interval: for a sync that
lasts, or a writer in this very process, whose locks can't be asked for."""
FURTHER = 4
"""A poll costs this process a quarter of a millisecond, and most events, such as those of its own merges, show
nothing."""

PATIENCE = 3
"""Polls in a row that may find nothing; then a program writes a transaction larger than its cache, and every poll
costs the writer something, and so does each event. `REST` seconds pass without either before the next one, then twice
as long each time, to `MOST_REST`."""
REST = 0.002
MOST_REST = 0.016

GATHER = 0.1
"""The longest pause between two change sets, in seconds, while the application writes a lot: each costs it something
(the log's clearing takes the write lock, the stream is synced to disk), so under load they are fewer and larger."""
GATHER_PER_WRITE = 0.0004
"""Seconds of that pause per write that accumulated while the last change set was in flight, also where many were to one
row; a lone one costs none."""

DEAF_FROM = 0.02
"""From such a pause on the watch is deaf until it is over: the application pays for each event that it causes."""

HELD_EVERY = 0.9
"""Seconds until the next try to release held rows while nothing else happens: a try may have met a held lock. A little
less than polls by the usual interval make of a second."""

RESTED = 0.5
"""Seconds without a commit after which the application rests: a note in its file disturbs no commit."""

NOTE_EVERY = 1.0
"""Seconds until the next try of a note that met a transaction of the application's; each try may wait for its end."""

COUNT_EVERY = 1.0
"""Seconds between counts of what is pending, while a change set waits for NATS or for its return; and after which
one that was published whole and is not back lets the next one leave."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SenderSettings:
    """How the sender works. ``publish``: False for a read replica.

    ``polling_interval``: seconds between polls when no event came. ``cleanup_interval``: seconds between clean-ups of
    the change log of an application that rests (0: only with the rows of others, and when too much waits for it).
    """

    publish: bool
    polling_interval: float
    cleanup_interval: float


class Sender:
    """Polls, captures and publishes."""

    def __init__(
        self,
        replica: Replica,
        thread: SqliteThread,
        watch: Watch,
        publisher: Publisher,
        status: NodeStatus,
        *,
        settings: SenderSettings,
        message_bytes: Callable[[], int],
        schema_moved: Callable[[], None],
    ) -> None:
        self._replica = replica
        self._thread = thread
        self._watch = watch
        self._publisher = publisher
        self._status = status
        self._publish = settings.publish
        self._polling_interval = settings.polling_interval
        self._cleanup_interval = settings.cleanup_interval
        self._cleaned = self._found_at = 0.0
        self._message_bytes = message_bytes
        self._schema_moved = schema_moved
        self._number = self._logged = 0
        self._loop: asyncio.AbstractEventLoop
        self._taken: Outgoing | None = None
        self._in_flight = InFlight(lambda shard: status.shard(shard).position)
        self._left_at = 0.0
        self._passed_over = Retry(log, "landing a change set", Backoff(first=0.1, most=10.0), logging.WARNING)
        self._idle = asyncio.Event()
        self._part = status.part("capture")
        self._suspects = 0.0
        self._empty = 0
        self._begun = self._done = 0
        self._unseen, self._rests = True, False
        self._held_again = self._note_again = 0.0

    def landed(self, change_set: ChangeSetId, whole: bool) -> None:
        """Note that an own change set came back in the order (``whole``), or was voided by others."""
        self._in_flight.landed(change_set, whole)

    def moved(self) -> None:
        """Note that the mirror's positions moved; then what was published whole is back, or never will be."""
        self._in_flight.moved()

    async def run(self, allowed: Awaitable[None]) -> None:
        """Send whatever is committed, without end, once ``allowed`` is done."""
        await allowed
        self._loop = asyncio.get_running_loop()
        self._part.ok()
        trouble = FileErrors(self._part, (self._replica.options.database, self._replica.options.mirror), most=2.0)
        again, rested, event = self._polling_interval, False, False
        while True:
            self._watch.listening()  # before the poll: what is committed after it makes an event
            number = self._begins()
            try:
                await self._drain(await self._thread.run(self._poll, event), number)
            except DatabaseError as error:
                await asyncio.sleep(trouble.met(error))
                continue
            trouble.over()
            rested = self._empty > PATIENCE and not rested
            if rested:
                event = False
                self._watch.deaf()
                await asyncio.sleep(min(MOST_REST, REST * 2 ** (self._empty - PATIENCE - 1)))
                continue
            event = await self._wait(again)
            again = min(SECOND_POLL if event else FURTHER * again, self._polling_interval)
            self._empty = self._empty if event else 0

    async def _wait(self, seconds: float) -> bool:
        """Wait for an event; True when there was one. At rest, only that or what `poll_by_clock` finds ends it."""
        self._rests = seconds >= self._polling_interval
        try:
            return await self._watch.wait(None if self._rests else seconds)
        finally:
            self._rests = False

    async def poll_by_clock(self) -> None:
        """Poll for what made no event, by the clock and without end, while the sender rests."""
        while True:
            await self._thread.until(self._appeared, self._polling_interval)
            self._watch.wake()

    def _appeared(self) -> bool:
        """Return whether a poll would find something; runs on the SQLite thread."""
        if not self._rests:
            return False
        try:
            self._unseen = self._finds()
        except DatabaseError:  # the poll meets it, too
            return True
        return self._unseen

    def close(self) -> None:
        """Drop what was captured, the last of it maybe without a task that waited; runs on the SQLite thread."""
        self._replica.forget_flights()
        self._in_flight.close()
        if self._taken is not None:
            self._taken.close()

    def _poll(self, event: bool) -> Outgoing | None:
        """Capture if there may be something to capture, ``event``: one came; runs on the SQLite thread."""
        if not self._finds(event=event):
            self._empty = min(self._empty + 1, PATIENCE + 10)
            return None
        self._empty, self._found_at = 0, time.monotonic()
        if self._replica.schema_changed():
            self._replica.reinstall()
            self._status.tables = tuple(sorted(self._replica.tables))
            self._status.warnings = self._replica.warnings
            self._loop.call_soon_threadsafe(self._schema_moved)
        out = self._capture()
        self._unseen = False
        return out

    def _finds(self, *, event: bool = False) -> bool:
        """Return whether there may be something to capture, ``event``: one came; note what is due while there isn't."""
        started = time.monotonic()
        replica = self._replica
        # a poll that failed has taken note of a change and done nothing about it
        self._unseen = replica.changed() or self._unseen or (event and self._appears())
        holding = replica.holding and started >= self._held_again
        if holding:
            self._held_again = started + HELD_EVERY
        nothing = not (self._unseen or replica.pending_rows() or replica.suspicious or holding)
        self._status.counters.looks += 1
        self._status.poll_time.observe(time.monotonic() - started)
        if nothing:
            self._note(rested=started - self._found_at >= RESTED)
        return not nothing

    def _appears(self) -> bool:
        """Poll for a commit whose event came before it can be seen, while no other task waits for the SQLite thread."""
        for pause in POLLS:
            # what the writer was about to commit when it let go shows by then
            if not self._replica.may_change() or not self._thread.pause(pause):
                return self._replica.changed()
            if self._replica.changed():
                return True
        return False

    def _note(self, *, rested: bool) -> None:
        """Note in the database what is acknowledged, if that is due; runs on the SQLite thread."""
        now, unnoted = time.monotonic(), self._replica.unnoted
        due = rested and self._cleanup_interval > 0 and now - self._cleaned >= self._cleanup_interval
        if now >= self._note_again and (unnoted >= MOST_UNNOTED or (unnoted and due)):
            try:
                self._replica.note(later=True)
                self._cleaned = now
            except DatabaseBusyError:
                self._note_again = time.monotonic() + NOTE_EVERY

    def _begins(self) -> int:
        """Return the number of the poll that begins now."""
        self._begun += 1
        return self._begun

    def _is_done(self, number: int) -> None:
        """Take note that what had been committed when poll ``number`` began is in the order."""
        self._done = number
        self._idle.set()

    async def _drain(self, out: Outgoing | None, number: int) -> None:
        """Send until nothing is left to send: after each capture, poll again before sleeping.

        ``out``: what poll ``number`` captured.
        """
        while out is not None:
            if await self._send(out):
                self._is_done(number)
            pause = pause_after(out.rows, out.log_id - self._logged)
            if pause >= DEAF_FROM:
                self._watch.deaf()
            await asyncio.sleep(pause)
            self._logged = out.log_id
            number = self._begins()
            out = await self._thread.run(self._capture)
            if out is None and self._watch.listening():
                number = self._begins()
                out = await self._thread.run(self._capture)
        self._is_done(number)
        self._status.pending_rows = self._replica.pending_rows()

    def _capture(self, *, ahead: bool = False) -> Outgoing | None:
        started = time.monotonic()
        try:
            return self._captured(ahead)
        finally:
            self._status.counters.captures += 1
            self._status.capture_time.observe(time.monotonic() - started)

    def _captured(self, ahead: bool) -> Outgoing | None:
        if not self._publish:
            self._replica.count_pending()
            return None
        now = time.monotonic()
        if now >= self._suspects:
            started = now
            self._replica.find_unlogged()
            # a comparison of whole tables may take a twentieth of the time at most
            self._suspects = time.monotonic() + max(1.0, 20 * (time.monotonic() - started))
        self._note(rested=False)
        self._number += 1
        how = partial(self._replica.capture, message_bytes=self._message_bytes())
        self._taken = how(self._number, ahead=True) if ahead else how(self._number, reading=self._pending)
        return self._taken

    def _pending(self, rows: int) -> None:
        """Show how many rows are about to be read; reading many takes a while. Runs on the SQLite thread."""
        self._status.pending_rows = rows

    async def _send(self, out: Outgoing) -> bool:
        """Publish ``out`` and wait until it is back in the order, with all that leaves meanwhile; False: not all is."""
        self._status.pending_rows = out.rows
        counting = asyncio.create_task(self._count(), name="count what is pending")
        try:
            await self._publish_whole(out)
            while self._in_flight:
                await self._in_flight.news()
                await self._forget_lost()
                if (further := await self._ahead()) is not None:
                    await self._publish_whole(further)
            await self._forget_lost()
        finally:
            counting.cancel()
        lost = self._in_flight.lost
        self._in_flight.close()
        for change_set, ends in lost.items():
            await self._again(change_set, ends)
        if not lost and self._passed_over.backoff.failures:
            self._passed_over.worked()
            self._part.ok()
        return not lost

    async def _publish_whole(self, out: Outgoing) -> None:
        self._in_flight.begin(out)
        ends = await self._publisher.publish(out)
        self._left_at = time.monotonic()
        self._status.last_published = time.time()
        self._status.counters.published_change_sets += 1
        self._status.counters.published_rows += out.rows
        self._in_flight.published(out.id, ends)

    async def _forget_lost(self) -> None:
        for change_set in self._in_flight.lost:
            await self._thread.run(self._replica.forget_flight, change_set.number)

    async def _ahead(self) -> Outgoing | None:
        """Capture what was written since the last capture if nothing comes back; None: nothing, or it must wait."""
        pause = self._in_flight.pause() if self._in_flight else None
        if pause is not None and time.monotonic() - self._left_at >= max(pause, COUNT_EVERY):
            with suppress(DatabaseError):
                return await self._thread.run(self._capture_ahead)
        return None

    def _capture_ahead(self) -> Outgoing | None:
        """Capture what was committed since the last capture; runs on the SQLite thread."""
        self._unseen = self._replica.changed() or self._unseen
        out = self._capture(ahead=True) if self._unseen else None
        self._unseen = False
        return out

    async def _again(self, change_set: ChangeSetId, ends: dict[int, int]) -> None:
        """Report that a change set did not land, and wait before its rows are captured again."""
        self._status.counters.passed_over_change_sets += 1
        places = ", ".join(f"message {seq} of shard {shard}" for shard, seq in sorted(ends.items()))
        said = (
            f"change set {change_set} was published whole, up to {places}, and did not land: it was given up on, left"
            " out, or taken for no message of this node; its rows are published again"
        )
        self._part.waiting(said)
        await asyncio.sleep(self._passed_over.failed(said, time.monotonic()))

    async def _count(self) -> None:
        """Keep the number of pending rows true while a change set is on its way; an outage may last for days."""
        while True:
            await asyncio.sleep(COUNT_EVERY)
            with suppress(DatabaseError):
                self._status.pending_rows = await self._thread.run(self._replica.count_pending)
            self._watch.on_event()  # no task waits for events meanwhile
            self._in_flight.wake()

    async def idle(self) -> None:
        """Wait until everything that was committed so far is in the order."""
        # a poll that has begun already may have passed over the newest commit: only the next one counts
        begun = self._begun
        while self._done <= begun:
            self._idle.clear()
            self._watch.wake()
            await self._idle.wait()


def pause_after(rows: int, logged: int) -> float:
    """Return how long to wait after a change set of ``rows``, in seconds; ``logged``: entries the log got meanwhile."""
    return min(GATHER, GATHER_PER_WRITE * (max(rows, logged) - 1))
