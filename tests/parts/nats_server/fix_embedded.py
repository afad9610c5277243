"""Embedded servers of tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from harmonylite.nats.link import NatsLink
from harmonylite.nats_server.server import EmbeddedServer
from harmonylite.nats_server.settings import EmbeddedSettings
from harmonylite.status import NodeStatus
from tests.parts.fix_nats import quick


@asynccontextmanager
async def running(settings: EmbeddedSettings) -> AsyncIterator[tuple[EmbeddedServer, NatsLink, NodeStatus]]:
    status = NodeStatus()
    async with (
        EmbeddedServer(settings, status) as server,
        NatsLink(server.link_settings(quick()), status, urls=server.urls) as link,
    ):
        yield server, link, status
