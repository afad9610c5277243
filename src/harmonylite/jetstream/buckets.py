"""What object store and pointers share: a stream that is created on first use, and acknowledged publishes.

Invariant: an acknowledged message is in the stream, on all of its replicas.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from harmonylite.errors import StreamLostError
from harmonylite.jetstream.api import STREAM_EXISTS, STREAM_NOT_FOUND, ApiError, JetStream, answer
from harmonylite.jetstream.replicas import create
from harmonylite.jetstream.settings import StreamSettings
from harmonylite.jetstream.stream import Stream
from harmonylite.nats.link import NatsLink

PUBLISH_SECONDS = 10.0
"""Deadline of one publish; several large ones may be in flight at once."""


def bucket_name(stream_prefix: str, kind: str) -> str:
    """Return the name of a cluster's bucket: NATS allows letters, digits, ``_`` and ``-`` in it."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", f"{stream_prefix}-{kind}")


class Bucket:
    """A stream with fixed settings, which exists when it is written to."""

    def __init__(self, link: NatsLink, settings: StreamSettings, config: Mapping[str, Any]) -> None:
        self._link = link
        self._config = {
            "storage": "file",
            "retention": "limits",
            "discard": "new",
            "max_msgs": -1,
            "max_bytes": -1,
            "max_consumers": -1,
            **({"num_replicas": settings.replicas} if settings.replicas else {}),
            "allow_rollup_hdrs": True,
            "allow_direct": True,
            **config,
        }
        self.stream = Stream(JetStream(link, settings.domain), str(config["name"]), 0)
        self._there = False

    async def ensure(self) -> None:
        """Create the stream unless it exists; raises StreamError."""
        if self._there:
            return
        try:
            await self.stream.details()
        except StreamLostError:
            try:
                await create(self.stream.api, self._config)
            except ApiError as error:
                # Another node was faster, perhaps with other settings, which serve as well.
                if error.code != STREAM_EXISTS:
                    raise
        self._there = True

    async def publish(self, subject: str, payload: bytes, headers: Mapping[str, str] | None = None) -> int:
        """Store one message and return its sequence; raises StreamError or a subclass."""
        try:
            sent = {"Nats-Expected-Stream": self.stream.name, **(headers or {})}
            message = await self._link.now().request(subject, payload, seconds=PUBLISH_SECONDS, headers=sent)
            return int(answer(message, f"store in {self.stream.name}")["seq"])
        except Exception:
            self._there = False
            raise

    async def purge(self, subject: str) -> None:
        """Remove all messages on ``subject``; a missing stream is no error."""
        try:
            await self.stream.api.call(f"STREAM.PURGE.{self.stream.name}", {"filter": subject})
        except ApiError as error:
            if error.code != STREAM_NOT_FOUND:
                raise
