"""A stream that is only read: what a test does not ask of it raises NotImplementedError."""

from __future__ import annotations

from collections.abc import AsyncIterator

from harmonylite.model import StreamInfo, StreamMessage


class ReadStream:
    """The `ShardStream` of tests that look at single messages; they override `info` and `get`."""

    shard: int = 0

    async def publish(
        self, payload: bytes, *, message_id: str, expected_last: int | None = None, expected_end: int | None = None
    ) -> int:
        """Nothing is published."""
        raise NotImplementedError

    def read(self, start: int) -> AsyncIterator[list[StreamMessage]]:
        """Nothing is read from here on."""
        raise NotImplementedError

    async def info(self) -> StreamInfo:
        """Return what it holds."""
        raise NotImplementedError

    async def get(self, seq: int) -> StreamMessage | None:
        """Return one message."""
        raise NotImplementedError

    async def end(self) -> int:
        """Return the last sequence."""
        return (await self.info()).last

    async def last_own(self) -> StreamMessage | None:
        """No message is of this node."""
        return None

    async def next_own(self, after: int) -> StreamMessage | None:
        """No message is of this node."""
        return None
