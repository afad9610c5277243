"""Embedded servers of tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from harmonylite.errors import StreamError
from harmonylite.jetstream.shard import JetStreamShard
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


async def stored(shard: JetStreamShard, payload: bytes) -> None:
    """Publish, again and again under one id, until the cluster has elected and takes it."""
    while True:
        try:
            await shard.publish(payload, message_id=payload.decode())
        except StreamError:
            await asyncio.sleep(0.05)
        else:
            return
