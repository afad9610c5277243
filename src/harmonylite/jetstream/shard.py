"""One shard's stream on a real JetStream: `harmonylite.ports.ShardStream`.

Invariant: a sequence is returned only when the server has acknowledged the message under it. The acknowledgement of a
duplicate counts only if that sequence holds this node's message: JetStream compares message ids of the whole stream,
and another program may send any id. No other program can guess the ids of this process.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import AsyncIterator, Mapping
from hashlib import blake2b
from itertools import count
from typing import Any

from harmonylite.errors import NotAcknowledgedError
from harmonylite.jetstream.api import JetStream, answer
from harmonylite.jetstream.reader import Reader
from harmonylite.jetstream.settings import StreamSettings
from harmonylite.jetstream.stream import Stream
from harmonylite.model import StreamInfo, StreamMessage
from harmonylite.nats.link import NatsLink
from harmonylite.nats.names import stream_name
from harmonylite.status import Part
from harmonylite.wire import token

log = logging.getLogger(__name__)

HEADROOM = 1024
"""Bytes of ``max_payload`` reserved for headers."""
_SECRET = secrets.token_bytes(32)
"""Of this process: a message's name gives the same id in each retry, and no other process has that id."""


def id_of(subject: str, name: str) -> str:
    """Return the ``Nats-Msg-Id`` of the message named ``name`` on ``subject``, 32 hexadecimal digits."""
    return blake2b(f"{subject} {name}".encode(), key=_SECRET, digest_size=16).hexdigest()


class JetStreamShard:
    """The stream of ``shard``, seen from the node ``node_id``.

    ``part``: shows that reading waits, and why. ``publish_seconds``: deadline of one publish.
    ``confirm_seconds``: how long a stream must look deleted or truncated before a reader considers it lost.
    """

    def __init__(
        self,
        link: NatsLink,
        settings: StreamSettings,
        shard: int,
        node_id: str,
        *,
        part: Part | None = None,
        publish_seconds: float = 5.0,
        confirm_seconds: float = 5.0,
    ) -> None:
        self.shard = shard
        self.name = stream_name(settings.stream_prefix, shard)
        self.subject = f"{settings.subject_prefix}.{shard}.{token(node_id)}"
        self._link = link
        self._stream = Stream(JetStream(link, settings.domain), self.name, shard)
        self._part = part
        self._seconds = publish_seconds
        self._confirm_seconds = confirm_seconds

    @property
    def max_message(self) -> int:
        """Bytes that fit into one message; raises StreamError when not connected."""
        return self._link.max_payload - HEADROOM

    async def publish(
        self, payload: bytes, *, message_id: str, expected_last: int | None = None, expected_end: int | None = None
    ) -> int:
        """Store ``payload``; see `ShardStream.publish`. Concurrent calls are allowed.

        Without a connection it raises StreamError at once, and the message is certainly not in the stream.
        """
        for again in count():
            subject, stream = self._address()
            name = f"{message_id} {again}" if again else message_id
            headers = {"Nats-Msg-Id": id_of(subject, name), "Nats-Expected-Stream": stream}
            if expected_last is not None:
                headers["Nats-Expected-Last-Subject-Sequence"] = str(expected_last)
            if expected_end is not None:
                headers["Nats-Expected-Last-Sequence"] = str(expected_end)
            message = await self._link.now().request(subject, payload, seconds=self._seconds, headers=headers)
            found = answer(message, f"publish to {self.name}")
            seq = await self._acknowledged(found)
            if not found.get("duplicate") or await self._is_own(seq, payload):
                return seq
            log.warning(
                "publishing again under another id: message %(seq)d of %(stream)s has this node's id and other content",
                {"seq": seq, "stream": stream},
            )
        raise AssertionError("a count has no end")

    async def _is_own(self, seq: int, payload: bytes) -> bool:
        """Return whether the order holds ``payload`` on this node's subject under ``seq``; raises StreamError."""
        message = await self.next_own(seq - 1)
        return message is not None and (message.seq, message.payload) == (seq, payload)

    def _address(self) -> tuple[str, str]:
        """Return the subject to publish on, and the stream that must store the message."""
        return self.subject, self.name

    async def _acknowledged(self, found: Mapping[str, Any]) -> int:
        """Return the sequence that the server acknowledged; raises NotAcknowledgedError."""
        seq = found.get("seq")
        if not isinstance(seq, int) or seq <= 0:
            raise NotAcknowledgedError(f"publish to {self.name}: NATS acknowledged without a sequence")
        return seq

    def read(self, start: int) -> AsyncIterator[list[StreamMessage]]:
        """Yield batches of messages from ``start`` on; see `ShardStream.read`. Close the iterator when done with it."""
        reader = Reader(self._link, self._stream, start, self._part, confirm_seconds=self._confirm_seconds)
        return reader.batches()

    async def info(self) -> StreamInfo:
        """Return the stream's state; see `ShardStream.info`."""
        return (await self._stream.details()).info

    async def end(self) -> int:
        """Return the current last sequence of the order; see `ShardStream.end`."""
        return (await self._stream.details()).info.last

    async def last_own(self) -> StreamMessage | None:
        """Return the newest message on this node's own subject; see `ShardStream.last_own`."""
        return await self._stream.last_on(self.subject)

    async def next_own(self, after: int) -> StreamMessage | None:
        """Return the next message on this node's own subject; see `ShardStream.next_own`."""
        return await self._stream.next_on(self.subject, after)

    async def get(self, seq: int) -> StreamMessage | None:
        """Return one message; see `ShardStream.get`."""
        return await self._stream.get(seq)
