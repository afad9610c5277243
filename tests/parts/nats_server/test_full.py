"""A full server drops nothing to make room; both ways that the documentation names free it while it runs."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from harmonylite.errors import StreamFullError
from harmonylite.jetstream.api import JetStream
from harmonylite.jetstream.settings import StreamSettings
from harmonylite.jetstream.shard import JetStreamShard
from harmonylite.jetstream.stream import Stream
from harmonylite.jetstream.streams import ensure_streams
from harmonylite.nats.link import NatsLink
from tests.parts.fix_nats import NatsFactory, RealNats, eventually, quick

FULL = StreamSettings(max_entries=0)


async def fill(shard: JetStreamShard) -> int:
    """Publish until the server takes nothing more; return how many messages it took."""
    for number in range(1000):
        try:
            await shard.publish(bytes(20_000), message_id=str(number))
        except StreamFullError:
            return number
    raise AssertionError("the server takes everything")


async def takes(shard: JetStreamShard) -> bool:
    try:
        await shard.publish(bytes(20_000), message_id="after")
    except StreamFullError:
        return False
    return True


@pytest.fixture
async def small(new_nats: NatsFactory) -> RealNats:
    """A server with room for a few messages."""
    return await new_nats("", "max_file_store: 1MB")


async def test_a_full_server_frees_nothing_though_the_stream_may_drop_old_messages(small: RealNats) -> None:
    async with NatsLink(quick(small.url)) as link:
        settings = StreamSettings(max_entries=100)
        await ensure_streams(link, settings)
        shard = JetStreamShard(link, settings, 0, "n")
        count = await fill(shard)
        assert not await takes(shard)
        assert (await shard.info()).messages == count


async def test_more_room_in_max_file_store_counts_after_sighup(small: RealNats) -> None:
    async with NatsLink(quick(small.url)) as link:
        await ensure_streams(link, FULL)
        shard = JetStreamShard(link, FULL, 0, "n")
        await fill(shard)
        config = Path(small.folder / "server.conf")
        config.write_text(config.read_text().replace("max_file_store: 1MB", "max_file_store: 10MB"))
        small.signal(signal.SIGHUP)
        await eventually(lambda: any("Reloaded server configuration" in line for line in small.log), "the reload")
        assert await takes(shard)


async def test_fewer_entries_with_update_existing_free_a_full_server(small: RealNats) -> None:
    async with NatsLink(quick(small.url)) as link:
        await ensure_streams(link, FULL)
        shard = JetStreamShard(link, FULL, 0, "n")
        count = await fill(shard)
        assert await ensure_streams(link, StreamSettings(max_entries=10, update_existing=True)) == []
        assert (await Stream(JetStream(link), "harmonylite-changes-0", 0).details()).info.messages == 10 < count
        assert await takes(shard)
