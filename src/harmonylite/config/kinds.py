"""Kinds of values that keys of the configuration take, read from what TOML, the environment and flags can say.

Invariant: a value that can't be read raises ValueError with a sentence that continues after the key's name and says
what to write instead; the value itself is never repeated there, since it may be a secret.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

from harmonylite.config.reading import After, Before, Limits
from harmonylite.config.secret_text import Url

NODE_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""A node id is one token of a NATS subject."""

POLLING_MS = 500
"""How often a node looks for commits that no event reports, unless `polling_interval` says otherwise."""

_UNITS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|s|m|h|d))+")
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_TOKENS = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*")
_NAME = re.compile(r"[A-Za-z0-9_-]+")
_HOST = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*")
_SCHEMES = {"nats", "tls", "ws", "wss"}


def duration_ms(text: str) -> float:
    """Return the milliseconds of ``15m``, ``30s``, ``1h30m``, ``250ms``, ``1.5d``; raise ValueError otherwise."""
    compact = text.strip().replace(" ", "")
    if not _DURATION.fullmatch(compact):
        raise ValueError('is not a length of time; write for example "500ms", "30s", "15m" or "1h30m"')
    return sum(float(number) * _UNITS[unit] for number, unit in _DURATION_PART.findall(compact))


def _milliseconds(value: Any) -> Any:
    if isinstance(value, str) and not _is_number(value):
        return round(duration_ms(value))
    return round(float(value)) if _is_number(value) else value


def _seconds(value: Any) -> Any:
    if isinstance(value, str) and not _is_number(value):
        return duration_ms(value) / 1000
    return float(value) if _is_number(value) else value


def _is_number(value: Any) -> bool:
    if isinstance(value, str):
        return re.fullmatch(r"\d+(\.\d+)?", value.strip()) is not None
    # NaN and infinities are numbers to TOML, and no length of time.
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e15


def _node_id(value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool):  # the known system's ids are whole numbers
        value = str(value)
    return "" if value == "0" else value


def _checked_node_id(value: str) -> str:
    if value and not NODE_ID.fullmatch(value):
        raise ValueError("is not a node id; use 1 to 64 letters, digits, - and _")
    return value


def _file(value: Any) -> Any:
    if isinstance(value, str):
        return Path(value).expanduser().absolute() if value.strip() else None
    return value


def _database(value: Any) -> Any:
    if isinstance(value, str) and not value.strip():
        raise ValueError("is empty; name the SQLite file to replicate")
    if isinstance(value, str) and (value.startswith("file:") or value == ":memory:"):
        raise ValueError("is not a path; other processes must be able to open the file, so name one on disk")
    path = _file(value)
    # One file is one node's, by whatever name: its lock and its mirror are beside the file itself.
    with suppress(OSError, RuntimeError):  # links that lead round in a circle: said when the file is looked at
        return path.resolve() if isinstance(path, Path) else path
    return path


def _listed(value: Any) -> Any:
    if isinstance(value, str):
        value = [piece.strip() for piece in value.split(",")]
        value = [piece for piece in value if piece]
    if not isinstance(value, list | tuple):
        return value
    if any(not isinstance(item, str) or not item.strip() for item in value):
        raise ValueError("holds something else than text; write a list of texts")
    return tuple(value)


def _url(value: Any) -> Any:
    return Url(value.strip()) if isinstance(value, str) else value


def _urls(value: Any) -> Any:
    found = _listed(value)
    return tuple(_url(item) for item in found) if isinstance(found, tuple) else found


def _server_urls(urls: tuple[Url, ...]) -> tuple[Url, ...]:
    for url in urls:
        scheme, separator, _ = url.get_secret_value().partition("://")
        if separator and scheme.lower() not in _SCHEMES:
            raise ValueError(
                f'has the scheme {scheme}://; servers are named as "nats://host:4222" or "tls://host:4222"'
            )
    return urls


def split_address(text: str) -> tuple[str, int]:
    """Return host and port of ``host:port``, ``[ipv6]:port`` or ``:port``; raise ValueError otherwise."""
    host, colon, port = text.strip().rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError('is ambiguous; write an IPv6 address as "[::1]:4222"')
    if not colon or not re.fullmatch(r"-1|[0-9]{1,5}", port) or int(port) > 65535:
        raise ValueError('is not host:port with a port of 0 to 65535; write for example "127.0.0.1:4222"')
    return host, int(port)


def _address(text: str) -> str:
    if text.strip():
        split_address(text)
    return text.strip()


def _http_address(text: str) -> str:
    if split_address(text)[1] < 0:
        raise ValueError("has the port -1; write 0 to let the system choose one")
    return text.strip()


def _matching(pattern: re.Pattern[str], advice: str, *, empty: bool = False) -> Callable[[str], str]:
    def check(text: str) -> str:
        if not pattern.fullmatch(text) and not (empty and not text):
            raise ValueError(advice)
        return text

    return check


def _host_names(names: tuple[str, ...]) -> tuple[str, ...]:
    names = tuple(name.strip().removeprefix("[").removesuffix("]") for name in names)
    for name in names:
        if not _HOST.fullmatch(name) and not _is_ip_address(name):
            raise ValueError('holds more than a host name; write names or addresses without a port, as "app.example"')
    return names


def _is_ip_address(text: str) -> bool:
    with suppress(ValueError):
        return bool(ipaddress.ip_address(text))
    return False


def _http_path(text: str) -> str:
    if not re.fullmatch(r"/[^\s?#{}]*", text) or not text.isprintable():
        raise ValueError('is not a plain path; write for example "/health"')
    return text


Milliseconds = Annotated[int, Before(_milliseconds)]
PollingInterval = Annotated[Milliseconds, After(lambda value: value or POLLING_MS)]
Seconds = Annotated[float, Before(_seconds)]
NodeId = Annotated[str, Before(_node_id), After(_checked_node_id)]
DatabasePath = Annotated[Path, Before(_database)]
OptionalPath = Annotated[Path | None, Before(_file)]
Texts = Annotated[tuple[str, ...], Before(_listed)]
Identity = Annotated[tuple[str, ...], Before(_listed), Limits(least=1)]
HostNames = Annotated[Texts, After(_host_names)]
OptionalUrl = Annotated[Url, Before(_url)]
Urls = Annotated[tuple[Url, ...], Before(_urls)]
ServerUrls = Annotated[tuple[Url, ...], Before(_urls), After(_server_urls)]
Address = Annotated[str, After(_address)]
HttpAddress = Annotated[str, After(_http_address)]
HttpPath = Annotated[str, After(_http_path)]
MetricName = Annotated[
    str,
    After(
        _matching(
            re.compile("[a-zA-Z_][a-zA-Z0-9_]*"),
            "can't be part of a metric's name; use letters, digits and _, no digit first",
            empty=True,
        )
    ),
]
_NO_SUBJECT = "is not a NATS subject; use letters, digits, - and _, with dots between"
Subject = Annotated[str, After(_matching(_TOKENS, _NO_SUBJECT))]
OptionalSubject = Annotated[str, After(_matching(_TOKENS, _NO_SUBJECT, empty=True))]
Name = Annotated[str, After(_matching(_NAME, "is not a name for NATS; use letters, digits, - and _"))]
OptionalName = Annotated[
    str, After(_matching(_NAME, "is not a name for NATS; use letters, digits, - and _", empty=True))
]
