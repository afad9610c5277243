"""Names on NATS: streams, subjects, addresses. No secret ever leaves through a name.

Invariant: node ids map to subject tokens one to one, so that two nodes never share a subject.
"""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes, urlsplit

from harmonylite.errors import ConfigError

_PLAIN = re.compile(rb"[A-Za-z0-9_-]")
_USERINFO = re.compile(r"(?<=://)[^/@\s]+@")


def token(name: str) -> str:
    """Return ``name`` as one subject token: bytes other than letters, digits, ``_`` and ``-`` become ``=hh``."""
    if not name:
        raise ConfigError("a node id can't be empty")
    return "".join(chr(b) if _PLAIN.match(bytes([b])) else f"={b:02x}" for b in name.encode())


def name_of(subject_token: str) -> str:
    """Return the name that `token` made ``subject_token`` of."""
    return unquote_to_bytes(subject_token.replace("=", "%")).decode(errors="replace")


def stream_name(prefix: str, shard: int) -> str:
    """Return the name of a shard's stream."""
    return f"{prefix}-{shard}"


def redact(text: str) -> str:
    """Return ``text`` with the credentials of every URL in it masked."""
    return _USERINFO.sub("***@", text)


def host_port(url: str) -> str:
    """Return ``host:port`` of a NATS address, 4222 when it names no port; credentials are dropped."""
    host, port = split_address(url, 4222)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def split_address(address: str, default_port: int) -> tuple[str, int]:
    """Return host and port of ``host:port``, ``:port``, ``host`` or a URL; raises ConfigError naming the address."""
    try:
        parts = urlsplit(address if "://" in address else f"nats://{address}")
        port = parts.port
    except ValueError as error:
        raise ConfigError(f"address {redact(address)!r}: {error}", advice="write it as host:port") from None
    return parts.hostname or "", default_port if port is None else port
