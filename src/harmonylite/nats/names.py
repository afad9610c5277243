"""Names on NATS: streams, nodes, addresses.

Invariant: no secret ever leaves through a name.
"""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes, urlsplit

from harmonylite.errors import ConfigError

_USERINFO = re.compile(r"(?<=://)[^/@\s]+@")


def name_of(subject_token: str) -> str:
    """Return the name that `harmonylite.wire.token` made ``subject_token`` of."""
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
