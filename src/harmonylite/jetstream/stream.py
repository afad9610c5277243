"""One stream by its name: its state, and single messages of it.

Invariant: every call asks the server; nothing is cached between two calls.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import repeat
from typing import Any

import msgspec

from harmonylite.errors import ForeignError, StreamError, StreamLostError
from harmonylite.foreign import Line, Seq, convert
from harmonylite.jetstream.api import MESSAGE_NOT_FOUND, STREAM_NOT_FOUND, ApiError, JetStream, wall
from harmonylite.jetstream.stream_metadata import Role, role_of
from harmonylite.model import StreamInfo, StreamMessage

AGAIN = (0.25, 0.5, 1.0, 1.0)
"""Seconds between two tries of a question: no server answers during an election, and a quick retry reaches the new
leader.
"""
SECONDS = 4.0
"""Deadline of a question; an answer to any of its tries counts, so a line may be as slow as that."""
PATIENT_SECONDS = 30.0
"""The same, for what a person waits for and starts again when it fails: a move over a slow line."""


@dataclass(frozen=True, slots=True)
class Details:
    """What ``STREAM.INFO`` says. ``deleted``: how many messages are missing between first and last. ``role``: which
    region makes the order that the stream holds; ``info.created`` is that order's identity, the same in all copies.
    """

    info: StreamInfo
    deleted: int
    config: Mapping[str, Any]
    cluster: Mapping[str, Any]
    role: Role


class _Stored(msgspec.Struct):
    """A message as ``STREAM.MSG.GET`` returns it."""

    seq: Seq
    subject: str
    data: bytes = b""
    hdrs: bytes = b""
    time: Line = ""


class Stream:
    """The stream ``name`` of ``shard``; ``seconds``: deadline of each question.

    Every method raises StreamLostError when it does not exist.
    """

    def __init__(self, api: JetStream, name: str, shard: int, *, seconds: float = SECONDS) -> None:
        self.api = api
        self.name = name
        self.shard = shard
        self._seconds = seconds
        self._again = (*AGAIN, *repeat(AGAIN[-1], int(seconds - SECONDS)))

    async def details(self) -> Details:
        """Return the stream's current state and settings."""
        found = await self._call("STREAM.INFO")
        try:
            state = found["state"]
            last, messages = int(state["last_seq"]), int(state["messages"])
            # A stream never written has first and last 0, a purged one first = last + 1. We use the latter for both.
            first = int(state["first_seq"]) if messages else last + 1
            role = role_of(found["config"], str(found["created"]))
            most = max(0, int(found["config"].get("max_msgs") or 0))
            now = wall(str(found.get("ts") or ""))
            info = StreamInfo(self.shard, first, last, role.order, messages, role.forks, most, now)
            return Details(info, int(state.get("num_deleted") or 0), found["config"], found.get("cluster") or {}, role)
        except ForeignError as error:
            raise StreamError(f"stream {self.name}: {error.message}") from None
        except (KeyError, TypeError, ValueError) as error:
            raise StreamError(f"state of stream {self.name}: NATS omitted {error}") from None

    async def get(self, seq: int) -> StreamMessage | None:
        """Return the message with sequence ``seq``, None when it is not kept (any more)."""
        found = await self._get({"seq": seq})
        return found[0] if found is not None else None

    async def last_on(self, subject: str) -> StreamMessage | None:
        """Return the newest message on ``subject``, None when there is none."""
        found = await self._get({"last_by_subj": subject})
        return found[0] if found is not None else None

    async def next_on(self, subject: str, after: int) -> StreamMessage | None:
        """Return the first message on ``subject`` after sequence ``after``, None when there is none."""
        found = await self._get({"seq": after + 1, "next_by_subj": subject})
        return found[0] if found is not None else None

    async def last_with_headers(self, subject: str) -> tuple[StreamMessage, bytes] | None:
        """Return the newest message on ``subject`` and its headers as they were sent, None when there is none."""
        return await self._get({"last_by_subj": subject})

    async def _get(self, which: Mapping[str, Any]) -> tuple[StreamMessage, bytes] | None:
        # Not a direct get: any replica may answer that, and one that lags would return an older message.
        try:
            answer = (await self._call("STREAM.MSG.GET", which)).get("message")
            found = convert(answer, _Stored, f"a message of stream {self.name}")
        except ApiError as error:
            if error.code == MESSAGE_NOT_FOUND:
                return None
            raise
        except ForeignError as error:
            raise StreamError(error.message) from None
        return StreamMessage(self.shard, found.seq, found.subject, found.data, wall(found.time)), found.hdrs

    async def _call(self, verb: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        try:
            return await self.api.call(f"{verb}.{self.name}", body, seconds=self._seconds, again=self._again)
        except ApiError as error:
            if error.code == STREAM_NOT_FOUND:
                raise StreamLostError(f"stream {self.name} does not exist (any more)") from None
            raise
