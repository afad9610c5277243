"""A reader of one stream that can't skip messages: its own pull consumer, every sequence checked.

Invariant: it yields the stream from ``start`` on, each sequence once and in order, or raises an error. Silence, a lost
consumer, a new leader or another connection only leads to a new consumer from the next sequence.

It doesn't use the ordered push consumers of client libraries: they skip gaps silently when the reader is slow.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator

from harmonylite.backoff import Backoff, Retry
from harmonylite.errors import StreamError, StreamGapError, StreamLostError
from harmonylite.jetstream.pull_consumer import PullConsumer, PullEndedError
from harmonylite.jetstream.stream import Stream
from harmonylite.model import StreamMessage
from harmonylite.nats.link import NatsLink
from harmonylite.status import Part

log = logging.getLogger(__name__)

QUIET_TRIES = 2
"""New consumers that the reader creates silently; after these the status says what it waits for."""


CHECK_EVERY = 10.0
"""Seconds between checks of the stream while no message arrives; each runs at the next heartbeat after them."""


class Reader:
    """Reads one stream once, from ``start`` on."""

    def __init__(
        self, link: NatsLink, stream: Stream, start: int, part: Part | None = None, *, confirm_seconds: float = 5.0
    ) -> None:
        self._link = link
        self._stream = stream
        self._next = max(1, start)
        self._part = part
        self._confirm_seconds = confirm_seconds
        self._created = ""
        self._last: StreamMessage | None = None
        self._checked_at = 0.0
        self._overdue = 0
        self._retry = Retry(log, f"reading stream {stream.name}", Backoff(first=0.02, most=2.0))

    async def batches(self) -> AsyncIterator[list[StreamMessage]]:
        """Yield batches without end; raises StreamGapError, StreamLostError, StreamError once the link was closed."""
        while True:
            pull: PullConsumer | None = None
            try:
                connection = await self._link.connection()
                await self._choose()
                await self._check_for_sure()
                pull = PullConsumer(connection, self._stream, self._next, quiet=self._quiet)
                await pull.open()
                await self._opened()
                self._well()
                rest: list[StreamMessage] = []
                while True:
                    due, rest = await self._checked(rest or await self._take(pull))
                    yield due
            except (StreamGapError, StreamLostError):
                raise
            except StreamError as error:
                if pull is not None:
                    await pull.aclose()
                    pull = None
                await self._pause(error)
            finally:
                if pull is not None:
                    await pull.aclose()

    async def _quiet(self) -> None:
        """Raise PullEndedError when the stream has the next message and its consumer doesn't deliver it.

        A consumer is on one server, whose copy of the stream may lag while it sends heartbeats.
        """
        now = time.monotonic()
        if self._overdue != self._next and now - self._checked_at < CHECK_EVERY:
            return
        self._checked_at = now
        try:
            end = (await self._stream.details()).info.last
            there = end >= self._next and await self._stream.get(self._next) is not None
        except StreamError:
            return
        if there and self._overdue == self._next:
            raise PullEndedError(f"its consumer does not deliver message {self._next}, which the stream has")
        self._overdue = self._next if there else 0

    async def _choose(self) -> None:
        """Choose the stream to read next; here there is only one."""

    async def _opened(self) -> None:
        """Called when a consumer is open; does nothing here."""

    async def _take(self, pull: PullConsumer) -> list[StreamMessage]:
        """Return the next messages of a consumer; raises StreamError."""
        return await pull.take()

    def _well(self) -> None:
        if self._part is not None:
            self._part.ok()

    async def _pause(self, error: StreamError) -> None:
        if not self._link.connected:
            # Raises the error that closed the link, so that no reader waits for a closed link.
            await self._link.connection()
            return
        pause = self._retry.failed(error, time.monotonic())
        if self._part is not None and self._retry.backoff.failures > QUIET_TRIES:
            self._part.waiting(f"stream {self._stream.name} can't be read: {error.message}", error)
        await asyncio.sleep(pause)

    async def _check_for_sure(self) -> None:
        """Check the stream; it is lost only if it stays so, as servers that restarted may not know all of it
        yet.
        """
        end, backoff = time.monotonic() + self._confirm_seconds, Backoff(first=0.1, most=self._confirm_seconds / 2)
        while True:
            try:
                return await self._check()
            except StreamLostError:
                if time.monotonic() > end:
                    raise
            await asyncio.sleep(backoff.failed(time.monotonic()))

    async def _check(self) -> None:
        """Check that the stream is still the one that was read."""
        info = (await self._stream.details()).info
        if self._created and info.created != self._created:
            raise StreamLostError(
                f"stream {self._stream.name} was created again at {info.created} (this node read {self._created})"
            )
        self._created = info.created
        if info.last + 1 < self._next:
            raise StreamLostError(
                f"stream {self._stream.name} lost its tail: it ends at {info.last}, message {self._next - 1} was read"
            )
        if info.first > self._next:
            raise self._gap(info.first)
        if self._last is not None and self._last.seq >= info.first:
            kept = await self._stream.get(self._last.seq)
            if kept is not None and abs(kept.time - self._last.time) > 1e-6:
                raise StreamLostError(
                    f"stream {self._stream.name} lost its tail: message {self._last.seq} is not the one that was read"
                )

    def _gap(self, first: int) -> StreamGapError:
        return StreamGapError(
            f"stream {self._stream.name}: message {self._next} is wanted, the oldest kept one is {first}",
            shard=self._stream.shard,
            wanted=self._next,
            first=first,
            advice="a snapshot is needed",
        )

    async def _checked(self, batch: list[StreamMessage]) -> tuple[list[StreamMessage], list[StreamMessage]]:
        """Return the consecutive messages, and those after a gap; a gap at the start is explained first."""
        if batch[0].seq != self._next:
            await self._explain_hole(batch[0].seq)
        first = batch[0].seq
        whole = next((i for i, message in enumerate(batch) if message.seq != first + i), len(batch))
        self._last = batch[whole - 1]
        self._next = self._last.seq + 1
        return batch[:whole], batch[whole:]

    async def _explain_hole(self, seq: int) -> None:
        """Return if the messages before ``seq`` were deleted one by one; raise if this reader missed them."""
        if seq < self._next:
            raise PullEndedError(f"message {seq} came where {self._next} was due")
        details = await self._stream.details()
        if details.info.first > self._next:
            raise self._gap(details.info.first)
        if details.deleted < seq - self._next:
            raise PullEndedError(f"message {seq} came where {self._next} was due, and none was deleted")
        log.warning(
            "found a gap in stream %(stream)s: messages %(first)d to %(last)d were deleted",
            {"stream": self._stream.name, "first": self._next, "last": seq - 1},
        )
