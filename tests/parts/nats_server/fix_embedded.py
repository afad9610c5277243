"""Embedded servers of tests, and ports for them."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from harmonylite.nats.link import NatsLink
from harmonylite.nats_server.server import EmbeddedServer
from harmonylite.nats_server.settings import EmbeddedSettings
from harmonylite.status import NodeStatus
from tests.parts.fix_nats import quick


def free_ports(count: int) -> list[int]:
    """Return ports that were free a moment ago, for addresses that must be known beforehand."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


@asynccontextmanager
async def running(settings: EmbeddedSettings) -> AsyncIterator[tuple[EmbeddedServer, NatsLink, NodeStatus]]:
    status = NodeStatus()
    async with (
        EmbeddedServer(settings, status) as server,
        NatsLink(server.link_settings(quick()), status, urls=server.urls) as link,
    ):
        yield server, link, status
