"""JetStream's request API: JSON in, JSON out, every error of the server mapped to one of ours, once.

Codes are those of nats-server's ``server/errors.json``.

Invariant: an answer is decoded whole, or raises one of our errors; no error of the server passes through.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
from nats.aio.msg import Msg

from harmonylite.errors import (
    ConfigError,
    ForeignError,
    HarmonyLiteError,
    StreamError,
    StreamFullError,
    WrongLastSequenceError,
)
from harmonylite.foreign import Line, Long, Seq, Untyped, convert
from harmonylite.nats.link import NatsLink

STREAM_NOT_FOUND = 10059
MESSAGE_NOT_FOUND = 10037
CONSUMER_NOT_FOUND = 10014
STREAM_EXISTS = 10058
SUBJECTS_OVERLAP = 10065

WRONG_LAST = frozenset({10071, 10164})
FULL = frozenset({10002, 10023, 10026, 10027, 10028, 10047, 10054, 10077, 10120, 10121, 10122})
"""Account, server or stream limits, store failures (a full disk): the message was not stored; a retry may work."""

_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)")

SECONDS = 5.0
"""Deadline of an API request."""


class _Error(msgspec.Struct):
    """An error of the server."""

    code: int = 0
    err_code: int = 0
    description: Long = ""


class _State(msgspec.Struct):
    """State of a stream."""

    messages: Seq = 0
    first_seq: Seq = 0
    last_seq: Seq = 0
    num_deleted: Seq = 0
    subjects: dict[str, Seq] | None = None


class _Peer(msgspec.Struct):
    """A server that keeps a stream."""

    name: Long = ""
    offline: bool = False


class _Cluster(msgspec.Struct):
    """The servers that keep a stream."""

    leader: Long | None = None
    replicas: list[_Peer] | None = None


class _External(msgspec.Struct):
    """The API prefix of a mirror's source."""

    api: Long = ""


class _Source(msgspec.Struct):
    """The source of a mirror stream."""

    name: Long = ""
    external: _External | None = None


class _Config(msgspec.Struct):
    """Settings of a stream; any client with the rights may change them with NATS's tools."""

    name: Long = ""
    subjects: list[Long] | None = None
    metadata: dict[str, str] | None = None
    mirror: _Source | None = None
    max_msgs: int = 0
    num_replicas: int = 0


class _Answer(msgspec.Struct):
    """The fields of JetStream's answers; each answer has some of them, and a field means the same in all."""

    error: _Error | None = None
    seq: Seq | None = None
    state: _State | None = None
    config: _Config | None = None
    cluster: _Cluster | None = None
    created: Line = ""


class Names(msgspec.Struct):
    """A page of the names of streams or consumers."""

    streams: list[Long] | None = None
    consumers: list[Long] | None = None
    total: Seq = 0


CODEC = Untyped("an answer of JetStream", check=_Answer, most=256 * 1024**2)


class ApiError(StreamError):
    """JetStream refused a request. ``code``: its error code, 0 if it sent none."""

    def __init__(self, message: str, *, code: int = 0, advice: str = "") -> None:
        super().__init__(message, advice=advice)
        self.code = code


class JetStream:
    """The API of one JetStream domain, over a link."""

    def __init__(self, link: NatsLink, domain: str = "") -> None:
        self.link = link
        self.prefix = f"$JS.{domain}.API" if domain else "$JS.API"

    async def call(
        self,
        verb: str,
        body: Mapping[str, Any] | None = None,
        *,
        seconds: float = SECONDS,
        again: Sequence[float] = (),
    ) -> dict[str, Any]:
        """Send one API request (``STREAM.INFO.name``) and return its answer; raises StreamError, ApiError.

        ``again``: when it is sent once more, see `Connection.request`.
        """
        payload = b"" if body is None else json.dumps(body).encode()
        message = await self.link.now().request(f"{self.prefix}.{verb}", payload, seconds=seconds, again=again)
        return answer(message, verb)


def answer(message: Msg, doing: str) -> dict[str, Any]:
    """Return the JSON of an answer; raises the error that it maps to."""
    try:
        found = CODEC.decode(message.data)
    except ForeignError as error:
        raise StreamError(f"{doing}: {error.message} ({len(message.data)} bytes)") from None
    if found.get("error") is not None:
        raise mapped(found["error"], doing)
    return found


def as_names(found: Mapping[str, Any]) -> Names:
    """Return an answer that lists names; raises StreamError."""
    try:
        return convert(found, Names, "a list of names of JetStream")
    except ForeignError as error:
        raise StreamError(error.message) from None


def mapped(error: Mapping[str, Any], doing: str) -> HarmonyLiteError:
    """Return our error for an error of the server."""
    code = int(error.get("err_code") or 0)
    text = f"{doing}: {error.get('description') or 'refused'} ({code or error.get('code', 0)})"
    if code in WRONG_LAST:
        return WrongLastSequenceError(text)
    if code in FULL:
        return StreamFullError(text, advice="make room: disk, max_file_store or account limits of NATS")
    if code == SUBJECTS_OVERLAP:
        return ConfigError(text, advice="another stream has these subjects; set subject_prefix and stream_prefix")
    return ApiError(text, code=code)


def wall(text: str) -> float:
    """Return a server's time (RFC 3339, up to nanoseconds) as seconds since the epoch; 0 for none."""
    found = _TIME.fullmatch(text)
    try:
        whole = datetime.fromisoformat(found[1] + found[3].replace("Z", "+00:00")) if found is not None else None
    except ValueError:  # a month 13
        whole = None
    if found is None or whole is None:
        return 0.0
    # In nanoseconds, like the times of delivered messages: one instant is then one float.
    return (int(whole.timestamp()) * 10**9 + int((found[2] or "").ljust(9, "0"))) / 1e9
