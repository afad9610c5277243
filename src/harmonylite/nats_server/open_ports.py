"""Which ports of the embedded server let other machines in without credentials, as the server itself says.

A user's nats-server file may open what ours keeps shut, in more ways than reading it could show: variables, includes,
an `authorization` without a user, a `no_auth_user`. The server greets everyone with what it asks for.

Invariant: nothing but the greeting is read; a port that does not greet within `GREETING_SECONDS` counts as shut, for it
wants a TLS handshake first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from harmonylite.errors import ConfigError, ForeignError
from harmonylite.foreign import Codec
from harmonylite.nats.names import split_address
from harmonylite.nats_server.config_file import loopback

GREETING_SECONDS = 2.0

LISTENERS = {"nats": "clients", "cluster": "routes"}
"""Kinds of ports in the server's own list, and who comes in there; leaf links are asked for what clients are."""


class Greeting(msgspec.Struct):
    """A server's greeting."""

    auth_required: bool = False
    tls_verify: bool = False


CODEC = Codec("the greeting of a NATS server", Greeting)


async def open_ports(ports: Mapping[str, Sequence[str]]) -> list[str]:
    """Return who may come in from other machines without credentials, and where. ``ports``: URLs by kind."""
    found = []
    for kind, who in LISTENERS.items():
        urls = ports.get(kind) or ()
        outside = [url for url in urls if not loopback(split_address(url, 0)[0])]
        # Asked over loopback where it listens there, too: an interface's own address may need a scope.
        near = [url for url in urls if url not in outside]
        if outside and not await _asks(*split_address([*near, *outside][0], 0)):
            found.append(f"{who} at {outside[0]}")
    return found


async def _asks(host: str, port: int) -> bool:
    """Return whether the server at ``host:port`` requires credentials."""
    try:
        async with asyncio.timeout(GREETING_SECONDS):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                greeting = CODEC.decode((await reader.readline()).removeprefix(b"INFO "))
            finally:
                writer.close()
    except (OSError, ValueError, ForeignError):  # TimeoutError is an OSError, a line without an end a ValueError
        return True
    return greeting.auth_required or greeting.tls_verify


async def refuse_open_ports(user_file: Path, ports: Mapping[str, Sequence[str]]) -> None:
    """Raise ConfigError when a server with these ports, as ``user_file`` configures it, has open ports."""
    if exposed := await open_ports(ports):
        raise ConfigError(
            f"server_config {user_file} lets other machines in without credentials: {', '.join(exposed)}",
            advice="set authorization with a user there, in the cluster block for routes, or insecure = true in "
            "[nats] to insist",
        )
