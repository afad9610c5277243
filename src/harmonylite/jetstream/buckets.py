"""What object store and pointers share: a stream made on first use, and publishes that are acknowledged by it.

Invariant: what was acknowledged is in the stream, on as many servers as it is kept on.
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
"""Deadline of one publish; several large ones may be on their way at once."""


def bucket_name(stream_prefix: str, kind: str) -> str:
    """Return the name of a cluster's bucket: NATS allows letters, digits, ``_`` and ``-`` in it."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", f"{stream_prefix}-{kind}")


class Bucket:
    """A stream of fixed settings that is there when it is written to."""

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
        """Make the stream unless it is there; raises StreamError."""
        if self._there:
            return
        try:
            await self.stream.details()
        except StreamLostError:
            try:
                await create(self.stream.api, self._config)
            except ApiError as error:
                # Another node was faster, perhaps with other settings; what it made will do.
                if error.code != STREAM_EXISTS:
                    raise
        self._there = True

    async def publish(self, subject: str, payload: bytes, headers: Mapping[str, str] | None = None) -> int:
        """Store one message and return its sequence; raises StreamError and its kin."""
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
