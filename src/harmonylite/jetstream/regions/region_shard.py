"""One shard's stream in a cluster with regions: read this region's stream, publish to the primary region's.

While `PrimaryRegion.failover` names a failover, it is that failover: the region's copy up to where the failover begins,
and the failover's stream from there on.

Invariant: `publish` returns a sequence only when the primary region acknowledged it (in a failover: the own region). An
acknowledgement of another region, from streams that a promotion left behind, doesn't count.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from dataclasses import replace
from typing import Any, cast

from harmonylite.changes.failover import Failover
from harmonylite.errors import NotAcknowledgedError, StreamError, StreamLostError
from harmonylite.jetstream.api import JetStream
from harmonylite.jetstream.reader import Reader
from harmonylite.jetstream.regions.region_reader import CopyReader
from harmonylite.jetstream.settings import StreamSettings
from harmonylite.jetstream.shard import JetStreamShard
from harmonylite.jetstream.stream import Stream
from harmonylite.jetstream.stream_metadata import PrimaryRegion, failover_stream_name, failover_subject
from harmonylite.model import StreamInfo, StreamMessage
from harmonylite.nats.link import NatsLink
from harmonylite.status import Part
from harmonylite.wire import token


class RegionShard(JetStreamShard):
    """The stream of ``shard``, seen from the node ``node_id`` of the region ``home.region``."""

    def __init__(
        self,
        link: NatsLink,
        settings: StreamSettings,
        shard: int,
        node_id: str,
        home: PrimaryRegion,
        *,
        part: Part | None = None,
        publish_seconds: float = 5.0,
        confirm_seconds: float = 5.0,
    ) -> None:
        super().__init__(
            link,
            replace(settings, domain=home.region),
            shard,
            node_id,
            part=part,
            publish_seconds=publish_seconds,
            confirm_seconds=confirm_seconds,
        )
        self._home = home
        self._prefix, self._token = settings.subject_prefix, token(node_id)

    def _in(self, region: str) -> Stream:
        return Stream(JetStream(self._link, region), self.name, self.shard)

    async def publish(
        self, payload: bytes, *, message_id: str, expected_last: int | None = None, expected_end: int | None = None
    ) -> int:
        """Store ``payload`` in the primary region; see `ShardStream.publish`."""
        if self._home.left and self._home.failover is None:
            raise StreamError(
                f"region {self._home.now} was promoted while {self._home.region} was away",
                advice="run `harmonylite region rejoin` here once; see docs/regions.md",
            )
        return await super().publish(
            payload, message_id=message_id, expected_last=expected_last, expected_end=expected_end
        )

    async def _acknowledged(self, found: Mapping[str, Any]) -> int:
        answering = found.get("domain") or "?"
        if self._home.failover is not None:
            return await super()._acknowledged(found)  # no other stream has its subjects
        if answering != self._home.now:
            # Perhaps that region has just been promoted.
            self._home.follow((await self._stream.details()).role)
        if answering != self._home.now:
            raise NotAcknowledgedError(
                f"publish to {self.name}: region {answering} answered, the primary region is {self._home.now}"
            )
        return await super()._acknowledged(found)

    def _address(self) -> tuple[str, str]:
        failover = self._home.failover
        if failover is None:
            return super()._address()
        subject = failover_subject(self._prefix, self._home.region, failover.number, self.shard, self._token)
        return subject, failover_stream_name(self.name, failover.number)

    def _failover_stream(self, failover: Failover) -> Stream:
        return Stream(self._stream.api, failover_stream_name(self.name, failover.number), self.shard)

    async def _read_failover(self, failover: Failover, start: int) -> AsyncIterator[list[StreamMessage]]:
        begins = failover.starts[self.shard]
        reads = [(self._failover_stream(failover), max(start, begins.upto + 1), 0)]
        if start <= begins.copied:
            reads.insert(0, (self._stream, start, begins.copied))
        elif start <= begins.upto:
            reads = [(self._failover_stream(failover), start, 0)]  # what is missing in between is reported as a gap
        for stream, first, upto in reads:
            reader = Reader(self._link, stream, first, self._part, confirm_seconds=self._confirm_seconds)
            async with aclosing(cast("AsyncGenerator[list[StreamMessage], None]", reader.batches())) as batches:
                async for batch in batches:
                    yield [message for message in batch if not upto or message.seq <= upto]
                    if upto and batch[-1].seq >= upto:
                        break

    def read(self, start: int) -> AsyncIterator[list[StreamMessage]]:
        """Yield batches of this region's stream; see `ShardStream.read`."""
        if self._home.failover is not None:
            return self._read_failover(self._home.failover, start)
        reader = CopyReader(
            self._link, self._stream, self._in, start, self._part, confirm_seconds=self._confirm_seconds
        )
        return reader.batches()

    async def info(self) -> StreamInfo:
        """Return the state of this region's stream, with the order's end, `whole` if the primary region is reachable.

        Raises StreamLostError when the primary region lost or recreated it: a copy is not the order.
        """
        details = await self._stream.details()
        if self._home.failover is not None:
            return await self._info_failover(self._home.failover, details.info)
        self._home.follow(details.role)
        if not details.role.copy_of:
            return details.info
        try:
            order = (await self._in(details.role.copy_of).details()).info
        except StreamLostError:
            raise StreamLostError(
                f"primary region {details.role.copy_of} has no stream {self.name} (any more)"
            ) from None
        except StreamError:
            return replace(details.info, whole=False)
        if order.created != details.info.created:
            raise StreamLostError(f"stream {self.name} of primary region {details.role.copy_of} was created again")
        return replace(details.info, last=max(details.info.last, order.last))

    async def _info_failover(self, failover: Failover, copy: StreamInfo) -> StreamInfo:
        begins = failover.starts[self.shard]
        info = (await self._failover_stream(failover).details()).info
        joined = begins.copied == begins.upto and copy.created == begins.parent and copy.first <= begins.upto
        return replace(info, first=copy.first) if joined else info

    async def end(self) -> int:
        """Return the last sequence in the primary region; see `ShardStream.end`."""
        if self._home.failover is not None:
            return (await self._failover_stream(self._home.failover).details()).info.last
        own = await self._stream.details()
        self._home.follow(own.role)
        order = own if self._home.here else await self._in(self._home.now).details()
        if order.info.created != own.info.created:
            raise StreamError(f"{self.name} of region {self._home.now} is another stream than is copied here")
        return order.info.last

    async def last_own(self) -> StreamMessage | None:
        """Return the newest message on this node's own subject in the primary region; see `ShardStream.last_own`."""
        if self._home.failover is not None:
            return await self._failover_stream(self._home.failover).last_on(self._address()[0])
        return await self._in(self._home.now).last_on(self.subject)

    async def next_own(self, after: int) -> StreamMessage | None:
        """Return the next message on this node's own subject in the primary region; see `ShardStream.next_own`."""
        if self._home.failover is not None:
            return await self._failover_stream(self._home.failover).next_on(self._address()[0], after)
        return await self._in(self._home.now).next_on(self.subject, after)

    async def get(self, seq: int) -> StreamMessage | None:
        """Return one message; see `ShardStream.get`."""
        failover = self._home.failover
        if failover is not None and seq > failover.starts[self.shard].upto:
            return await self._failover_stream(failover).get(seq)
        return await super().get(seq)
