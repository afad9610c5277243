"""A stream goes from one NATS to another and back: same messages, same places, and never two that take some."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from harmonylite.errors import StreamError, StreamFullError, StreamLostError
from harmonylite.jetstream.api import JetStream
from harmonylite.jetstream.backup import MovedError, TransferredStream, check_not_sealed, release, seal, transfer
from harmonylite.jetstream.settings import StreamSettings
from harmonylite.jetstream.shard import JetStreamShard
from harmonylite.jetstream.stream import Stream
from harmonylite.jetstream.streams import ensure_streams
from harmonylite.nats.link import NatsLink
from tests.parts.fix_nats import NatsFactory, RealNats, quick

SETTINGS = StreamSettings(max_entries=40)
NAME = "harmonylite-changes-0"


@asynccontextmanager
async def at(server: RealNats) -> AsyncIterator[Stream]:
    async with NatsLink(quick(server.url)) as link:
        yield Stream(JetStream(link), NAME, 0)


async def filled(stream: Stream, count: int, size: int = 10) -> JetStreamShard:
    """Make the stream and store ``count`` messages, of which the first ones are forgotten."""
    await ensure_streams(stream.api.link, SETTINGS)
    shard = JetStreamShard(stream.api.link, SETTINGS, 0, "n")
    for number in range(count):
        await shard.publish(os.urandom(size), message_id=str(number), expected_last=number)
    return shard


async def moved(source: Stream, target: Stream) -> TransferredStream:
    await seal(source, "elsewhere")
    return await transfer(source, target.api, 1)


async def test_what_arrives_is_the_same_stream_to_the_last_bit(new_nats: NatsFactory) -> None:
    async with at(await new_nats()) as source, at(await new_nats()) as target:
        await filled(source, 60, size=100_000)
        before = await source.details()
        done = await moved(source, target)
        after = await target.details()
        assert (done.name, done.last, done.messages) == (NAME, 60, 40)
        assert after.info == before.info
        assert (after.info.first, after.info.last) == (21, 60)
        for seq in (21, 42, 60):
            assert await target.get(seq) == await source.get(seq)
        shard = JetStreamShard(target.api.link, SETTINGS, 0, "n")
        assert await shard.publish(b"next", message_id="61", expected_last=60) == 61, "the fence stands where it stood"


async def test_an_empty_stream_moves_too(new_nats: NatsFactory) -> None:
    async with at(await new_nats()) as source, at(await new_nats()) as target:
        await filled(source, 0)
        await moved(source, target)
        assert (await target.details()).info == (await source.details()).info


async def test_a_held_stream_refuses_changes_so_that_they_queue_and_says_where_it_went(new_nats: NatsFactory) -> None:
    async with at(await new_nats()) as source:
        shard = await filled(source, 3)
        await seal(source, "nats-1:4222")
        with pytest.raises(StreamFullError):
            await shard.publish(b"late", message_id="late", expected_last=3)
        with pytest.raises(MovedError, match="nats-1:4222"):
            check_not_sealed(NAME, (await source.details()).config)
        assert await release(source)
        assert not await release(source)
        assert await shard.publish(b"late", message_id="late", expected_last=3) == 4


async def test_the_way_back_replaces_the_older_copy_and_nothing_else(new_nats: NatsFactory) -> None:
    async with at(await new_nats()) as one, at(await new_nats()) as two:
        await filled(one, 3)
        await moved(one, two)
        shard = JetStreamShard(two.api.link, SETTINGS, 0, "n")
        await shard.publish(b"there", message_id="4", expected_last=3)
        await moved(two, one)
        assert (await one.details()).info.last == 4
        check_not_sealed(NAME, (await one.details()).config)
        with pytest.raises(StreamError, match="exists at the target"):
            await moved(two, one)  # it takes messages there: no older copy


async def test_a_stream_of_somebody_else_at_the_target_stays(new_nats: NatsFactory) -> None:
    async with at(await new_nats()) as source, at(await new_nats()) as target:
        await filled(source, 1)
        await filled(target, 2)
        with pytest.raises(StreamError, match="no older copy"):
            await moved(source, target)
        assert (await target.details()).info.last == 2


async def test_a_target_without_room_is_left_as_it_was(new_nats: NatsFactory) -> None:
    async with at(await new_nats()) as source, at(await new_nats(jetstream="max_file_store: 100KB")) as target:
        await filled(source, 40, size=50_000)
        with pytest.raises(StreamError):
            await moved(source, target)
        with pytest.raises(StreamLostError):
            await target.details()
