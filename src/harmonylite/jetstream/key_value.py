"""Small named values with compare-and-set, in a NATS key-value bucket.

Invariant: of several nodes that set the same revision, one succeeds. Layout: ADR-8, so ``nats kv get`` reads it.
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass

from harmonylite.errors import NotAcknowledgedError, StreamLostError, WrongLastSequenceError
from harmonylite.jetstream.buckets import Bucket, bucket_name
from harmonylite.jetstream.settings import StreamSettings
from harmonylite.nats.link import NatsLink
from harmonylite.wire import token

_KEY = re.compile(r"[-/_=a-zA-Z0-9]+(\.[-/_=a-zA-Z0-9]+)*")


class KeyValue:
    """The pointers of one cluster. Every method raises StreamError when JetStream can't be asked."""

    def __init__(self, link: NatsLink, settings: StreamSettings) -> None:
        self.bucket = bucket_name(settings.stream_prefix, "pointers")
        config = {
            "name": f"KV_{self.bucket}",
            "subjects": [f"$KV.{self.bucket}.>"],
            "max_msgs_per_subject": 1,
            "deny_delete": True,
        }
        self._bucket = Bucket(link, settings, config)
        # Between regions NATS passes $KV subjects only with the name of the region that they are for.
        self._way = f"$JS.{settings.domain}.API." if settings.domain else ""

    async def get(self, key: str) -> tuple[bytes, int] | None:
        """Return value and revision, None when the key doesn't exist or was deleted."""
        found = await self._newest(key)
        return (found.payload, found.seq) if found is not None and not found.deleted else None

    async def set(self, key: str, value: bytes, revision: int) -> bool:
        """Set ``key`` if its revision is still ``revision`` (0 = it doesn't exist); return False otherwise."""
        await self._bucket.ensure()
        if revision == 0:
            found = await self._newest(key)
            revision = found.seq if found is not None and found.deleted else 0
        subject = self._subject(key)
        mark = secrets.token_hex(16)
        headers = {"Nats-Expected-Last-Subject-Sequence": str(revision), "Nats-Msg-Id": mark}
        try:
            await self._bucket.publish(self._way + subject, value, headers)
        except WrongLastSequenceError:
            return False
        except NotAcknowledgedError:
            # The outcome is unknown. The present value shows it, because no other node knows the mark.
            found = await self._newest(key)
            return found is not None and mark.encode() in found.headers
        return True

    def _subject(self, key: str) -> str:
        return f"$KV.{self.bucket}.{key if _KEY.fullmatch(key) else token(key)}"

    async def _newest(self, key: str) -> _Entry | None:
        try:
            found = await self._bucket.stream.last_with_headers(self._subject(key))
        except StreamLostError:
            return None
        return _Entry(found[0].payload, found[0].seq, found[1]) if found is not None else None


@dataclass(frozen=True, slots=True)
class _Entry:
    """The current value of a key."""

    payload: bytes
    seq: int
    headers: bytes

    @property
    def deleted(self) -> bool:
        """True for the marker that a deleted key leaves."""
        return b"KV-Operation:" in self.headers
