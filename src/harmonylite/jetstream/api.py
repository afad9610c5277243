"""JetStream's request API: JSON in, JSON out, every error of the server mapped to one of ours, once.

Codes are those of nats-server's ``server/errors.json``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from nats.aio.msg import Msg

from harmonylite.errors import ConfigError, HarmonyLiteError, StreamError, StreamFullError, WrongLastSequenceError
from harmonylite.jetstream.link import NatsLink

STREAM_NOT_FOUND = 10059
MESSAGE_NOT_FOUND = 10037
CONSUMER_NOT_FOUND = 10014
STREAM_EXISTS = 10058
SUBJECTS_OVERLAP = 10065

WRONG_LAST = frozenset({10071, 10164})
FULL = frozenset({10002, 10023, 10026, 10027, 10028, 10047, 10054, 10077, 10120, 10121, 10122})
"""Account, server or stream limits, store failures (a full disk): nothing was stored, later there may be room."""

_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)")

SECONDS = 5.0
"""Deadline of an API request."""


class ApiError(StreamError):
    """JetStream refused a request. ``code``: its own error code, 0 when it gave none."""

    def __init__(self, message: str, *, code: int = 0, advice: str = "") -> None:
        super().__init__(message, advice=advice)
        self.code = code


class JetStream:
    """The API of one JetStream domain, over a link."""

    def __init__(self, link: NatsLink, domain: str = "") -> None:
        self.link = link
        self.prefix = f"$JS.{domain}.API" if domain else "$JS.API"

    async def call(
        self, verb: str, body: Mapping[str, Any] | None = None, *, seconds: float = SECONDS
    ) -> dict[str, Any]:
        """Send one API request (``STREAM.INFO.name``) and return its answer; raises StreamError, ApiError."""
        payload = b"" if body is None else json.dumps(body).encode()
        message = await self.link.now().request(f"{self.prefix}.{verb}", payload, seconds=seconds)
        return answer(message, verb)


def answer(message: Msg, doing: str) -> dict[str, Any]:
    """Return the JSON of an answer; raises what its error maps to."""
    try:
        found = json.loads(message.data)
        error = found.get("error")
    except (ValueError, AttributeError):
        raise StreamError(f"{doing}: NATS answered what is not JSON ({len(message.data)} bytes)") from None
    if error is not None:
        raise mapped(error, doing)
    return dict(found)


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
    """Return the seconds since the epoch of a server time (RFC 3339, up to nanoseconds); 0 when there is none."""
    found = _TIME.fullmatch(text)
    if found is None:
        return 0.0
    whole = datetime.fromisoformat(found[1] + found[3].replace("Z", "+00:00"))
    # By way of nanoseconds, as the times in delivered messages: the same instant is then the same float.
    return (int(whole.timestamp()) * 10**9 + int((found[2] or "").ljust(9, "0"))) / 1e9
