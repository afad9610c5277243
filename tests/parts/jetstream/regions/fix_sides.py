"""Two nats-servers as two regions, for tests of the adapter."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, field
from typing import cast

import pytest

from harmonylite.jetstream.regions.mirror_streams import RegionStream, RegionWatch, ensure_region_streams
from harmonylite.jetstream.regions.promotion import rejoin
from harmonylite.jetstream.regions.region_shard import RegionShard
from harmonylite.jetstream.settings import StreamSettings
from harmonylite.jetstream.stream_metadata import PrimaryRegion
from harmonylite.model import StreamMessage
from harmonylite.nats.link import NatsLink
from harmonylite.status import NodeStatus
from tests.parts.fix_nats import PATIENCE, NatsFactory, RealNats, eventually, quick
from tests.ports import free_port


@dataclass
class Side:
    """One region: its server, a link to it, and what a node there knows."""

    name: str
    server: RealNats
    link: NatsLink
    settings: StreamSettings
    home: PrimaryRegion
    status: NodeStatus = field(default_factory=NodeStatus)

    def shard(self, node: str = "node") -> RegionShard:
        return RegionShard(self.link, self.settings, 0, node, self.home, publish_seconds=PATIENCE, confirm_seconds=0.2)

    def stream(self, region: str = "") -> RegionStream:
        found = RegionStream(self.link, self.settings, 0, self.home)
        found.own = found.of(region or self.name)
        return found

    async def ensure(self) -> list[str]:
        return await ensure_region_streams(self.link, self.settings, self.home)

    async def waits_for(self, words: str) -> None:
        """Let a node of this region start, and return once it says that it waits for something with ``words``."""
        part = self.status.part("streams")
        starting = asyncio.create_task(ensure_region_streams(self.link, self.settings, self.home, part))
        await eventually(lambda: words in part.reason or starting.done(), f"waiting for {words!r}")
        assert not starting.done(), starting
        starting.cancel()

    async def last(self, region: str = "") -> int:
        return (await self.stream(region).own.details()).info.last

    async def watched(self, checks: int = 2) -> NodeStatus:
        watch = RegionWatch(
            self.link, self.settings, self.home, self.status, rejoin=lambda: rejoin(self.link, self.settings, self.home)
        )
        for _ in range(checks):
            await watch.check()
        return self.status


@pytest.fixture
async def sides(new_nats: NatsFactory) -> AsyncIterator[tuple[Side, Side]]:
    """Region a, the primary region, and region b, which links to it; streams exist in neither."""
    port = free_port()
    async with AsyncExitStack() as stack:
        found = []
        for name, leaf in (
            ("a", f'listen: "127.0.0.1:{port}", no_advertise: true'),
            ("b", f'remotes: [{{ url: "nats-leaf://127.0.0.1:{port}" }}], reconnect: "1s"'),
        ):
            server = await new_nats(f"leafnodes {{ {leaf} }}", f"domain: {name}")
            link = await stack.enter_async_context(NatsLink(quick(server.url)))
            found.append(Side(name, server, link, StreamSettings(max_entries=10, shards=2), PrimaryRegion(name, "a")))
        yield found[0], found[1]


async def whole(a: Side, b: Side) -> None:
    """Wait until the copy in b has everything."""
    end = asyncio.get_running_loop().time() + PATIENCE
    while await b.last("b") < await a.last("a"):
        assert asyncio.get_running_loop().time() < end
        await asyncio.sleep(0.02)


async def up_to(shard: RegionShard, start: int, last: int) -> list[StreamMessage]:
    """Read from ``start`` until ``last``."""
    found: list[StreamMessage] = []
    reading = cast("AsyncGenerator[list[StreamMessage], None]", shard.read(start))
    async with asyncio.timeout(PATIENCE), aclosing(reading) as batches:
        async for batch in batches:
            found += batch
            if found[-1].seq >= last:
                break
    return found
