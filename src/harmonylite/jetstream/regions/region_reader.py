"""A reader of a region's copy of a stream, which reads the stream itself where the copy lacks messages.

A JetStream mirror resumes half a minute after a cut. If its source has meanwhile deleted messages that it lacks, it
continues with a gap. In both cases the primary region's stream has the truth, and is mostly reachable by then.

Invariant: as for `Reader`; no message is skipped because the copy lacks it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from harmonylite.errors import StreamError
from harmonylite.jetstream.pull_consumer import PullConsumer, PullEndedError
from harmonylite.jetstream.reader import Reader
from harmonylite.jetstream.stream import Stream
from harmonylite.model import StreamMessage
from harmonylite.nats.link import NatsLink
from harmonylite.status import Part

log = logging.getLogger(__name__)

CHOOSE_EVERY = 3.0
"""Seconds of silence after which a reader checks whether to read the copy or the order; and the longest time that it
reads the order over the leaf link before it checks."""


class ElsewhereError(PullEndedError):
    """The next message must be read from the other stream, copy or order."""


class CopyReader(Reader):
    """Reads ``own``, the stream of this node's region; ``of`` returns the same stream in another region."""

    def __init__(
        self,
        link: NatsLink,
        own: Stream,
        of: Callable[[str], Stream],
        start: int,
        part: Part | None = None,
        *,
        confirm_seconds: float = 5.0,
    ) -> None:
        super().__init__(link, own, start, part, confirm_seconds=confirm_seconds)
        self._own = own
        self._of = of
        self._hole = 0
        self._chosen = 0.0
        self._is_copy = True

    async def _source(self) -> Stream:
        """Return the stream to read from; raises StreamError when it is the order and that can't be reached."""
        own = await self._own.details()
        self._is_copy = bool(own.role.copy_of)
        if not self._is_copy:
            return self._own
        order = self._of(own.role.copy_of)
        if self._next <= self._hole:
            return order
        try:
            there = (await order.details()).info
        except StreamError:
            return self._own
        if there.created != own.info.created:
            return self._own
        lacks = own.info.last + 1 < self._next
        return order if lacks or own.info.last < self._next <= there.last else self._own

    async def _choose(self) -> None:
        source = await self._source()
        self._stream = self._stream if self._is_read(source) else source
        self._chosen = time.monotonic()

    def _is_read(self, source: Stream) -> bool:
        return source.api.prefix == self._stream.api.prefix

    async def _opened(self) -> None:
        # A promotion that gives the order a new identity ends all open consumers; this one may have opened after that.
        await self._check()

    async def _take(self, pull: PullConsumer) -> list[StreamMessage]:
        if not self._is_copy:
            return await pull.take()  # a stream that becomes a copy is created again, which ends the consumer
        taking = asyncio.ensure_future(pull.take())
        try:
            if self._stream is not self._own and time.monotonic() - self._chosen > CHOOSE_EVERY:
                await self._still_right()
            while not (await asyncio.wait({taking}, timeout=CHOOSE_EVERY))[0]:
                await self._still_right()
            return taking.result()
        finally:
            if not taking.done():
                taking.cancel()
                # With a timeout: the client library may swallow a cancellation.
                await asyncio.wait({taking}, timeout=1.0)

    async def _still_right(self) -> None:
        """Raise ElsewhereError when the reader must switch to the other stream."""
        if not self._is_read(await self._source()):
            raise ElsewhereError(f"message {self._next} is read elsewhere")
        self._chosen = time.monotonic()

    async def _explain_hole(self, seq: int) -> None:
        if self._stream is self._own and seq > self._next and (await self._own.details()).role.copy_of:
            self._hole = seq - 1
            raise ElsewhereError(f"the copy lacks messages {self._next} to {seq - 1}")
        await super()._explain_hole(seq)

    async def _pause(self, error: StreamError) -> None:
        if isinstance(error, ElsewhereError):
            log.debug("can't ask stream %(stream)s: %(error)s", {"stream": self._own.name, "error": error.message})
            return
        await super()._pause(error)
