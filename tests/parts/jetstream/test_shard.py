"""Publishing to a real JetStream: what is acknowledged is in the stream, and every other outcome has a name."""

from __future__ import annotations

import asyncio
import os
import time

import pytest

from harmonylite.errors import (
    NotAcknowledgedError,
    StreamError,
    StreamFullError,
    StreamLostError,
    WrongLastSequenceError,
)
from harmonylite.jetstream.settings import StreamSettings
from harmonylite.jetstream.shard import JetStreamShard
from harmonylite.jetstream.streams import ensure_streams
from harmonylite.nats.link import NatsLink
from tests.parts.fix_nats import PATIENCE, NatsFactory, RealNats, eventually, quick


@pytest.fixture
def shard(link: NatsLink, streams: StreamSettings) -> JetStreamShard:
    return JetStreamShard(link, streams, 0, "node-1", publish_seconds=PATIENCE)


async def test_a_published_message_is_the_newest_of_its_node(shard: JetStreamShard) -> None:
    assert await shard.last_own() is None
    first = await shard.publish(b"one", message_id="1", expected_last=0)
    second = await shard.publish(b"\x00two\xff", message_id="2", expected_last=first)
    last = await shard.last_own()
    assert last is not None
    assert (last.seq, last.payload, last.subject) == (second, b"\x00two\xff", shard.subject)
    assert abs(last.time - time.time()) < 60
    info = await shard.info()
    assert (info.first, info.last, info.messages) == (1, 2, 2)


async def test_an_empty_stream_begins_after_its_end(shard: JetStreamShard) -> None:
    info = await shard.info()
    assert (info.first, info.last) == (1, 0)


async def test_a_second_process_with_the_same_node_id_is_fenced_off(
    link: NatsLink, streams: StreamSettings, shard: JetStreamShard
) -> None:
    twin = JetStreamShard(link, streams, 0, "node-1")
    seq = await shard.publish(b"mine", message_id="a", expected_last=0)
    with pytest.raises(WrongLastSequenceError):
        await twin.publish(b"its", message_id="b", expected_last=0)
    assert (await shard.info()).last == seq


async def test_nodes_with_different_ids_do_not_fence_each_other(
    link: NatsLink, streams: StreamSettings, shard: JetStreamShard
) -> None:
    odd = [JetStreamShard(link, streams, 0, name) for name in ("node 1", "node.1", "nöde>1", "node*1", "node=201")]
    await shard.publish(b"", message_id="x", expected_last=0)
    for number, other in enumerate(odd):
        assert await other.publish(b"", message_id=f"x{number}", expected_last=0) == number + 2
    assert len({other.subject for other in odd}) == len(odd)


async def test_a_message_sent_twice_is_stored_once(shard: JetStreamShard) -> None:
    first = await shard.publish(b"one", message_id="same")
    assert await shard.publish(b"one", message_id="same") == first
    assert (await shard.info()).messages == 1


async def test_shards_do_not_mix(link: NatsLink, streams: StreamSettings, shard: JetStreamShard) -> None:
    other = JetStreamShard(link, streams, 1, "node-1")
    await shard.publish(b"zero", message_id="0")
    await other.publish(b"one", message_id="1")
    assert (await shard.info()).messages == (await other.info()).messages == 1


async def test_many_publishes_at_once_are_each_acknowledged(shard: JetStreamShard) -> None:
    seqs = await asyncio.gather(*(shard.publish(b"x" * 1000, message_id=str(i)) for i in range(500)))
    assert sorted(seqs) == list(range(1, 501))


async def test_a_publish_that_a_frozen_server_does_not_answer_is_ambiguous(
    nats: RealNats, link: NatsLink, streams: StreamSettings
) -> None:
    shard = JetStreamShard(link, streams, 0, "node-1", publish_seconds=0.2)
    await nats.freeze()
    with pytest.raises(NotAcknowledgedError):
        await shard.publish(b"perhaps", message_id="1", expected_last=0)
    nats.thaw()
    await link.connection()


async def test_a_publish_under_way_fails_as_soon_as_the_server_dies(
    nats: RealNats, link: NatsLink, streams: StreamSettings
) -> None:
    shard = JetStreamShard(link, streams, 0, "node-1", publish_seconds=60)
    await nats.freeze()
    publish = asyncio.create_task(shard.publish(b"perhaps", message_id="1"))
    await asyncio.sleep(0)
    await nats.kill()
    with pytest.raises(NotAcknowledgedError):
        await asyncio.wait_for(publish, 20)


async def test_without_a_connection_a_publish_fails_at_once_and_is_never_sent_later(
    nats: RealNats, link: NatsLink, shard: JetStreamShard
) -> None:
    await nats.kill()
    await eventually(lambda: not link.connected)
    with pytest.raises(StreamError) as caught:
        await shard.publish(b"lost", message_id="1")
    assert not isinstance(caught.value, NotAcknowledgedError), "it is certain that it was not stored"
    await nats.start()
    await link.connection()
    assert await shard.publish(b"kept", message_id="2", expected_last=0) == 1


async def test_a_message_above_max_payload_is_refused_and_the_connection_stays(
    link: NatsLink, shard: JetStreamShard
) -> None:
    connection = link.now()
    with pytest.raises(StreamFullError, match="max_payload"):
        await shard.publish(b"x" * connection.max_payload, message_id="1")
    await shard.publish(b"x" * shard.max_message, message_id="2")
    assert link.now() is connection


async def test_a_full_store_is_a_full_stream_and_has_room_again_after_a_purge(new_nats: NatsFactory) -> None:
    server = await new_nats(jetstream="max_file: 2MB")
    async with NatsLink(quick(server.url)) as link:
        settings = StreamSettings(max_entries=0)
        await ensure_streams(link, settings)
        shard = JetStreamShard(link, settings, 0, "n")
        publishes = [shard.publish(os.urandom(500_000), message_id=str(i)) for i in range(10)]
        with pytest.raises(StreamFullError):
            await asyncio.gather(*publishes)
        await link.now().request(f"$JS.API.STREAM.PURGE.{shard.name}", seconds=30)
        await shard.publish(b"fits", message_id="again")


async def test_a_stream_that_does_not_exist_takes_nothing_and_says_so(link: NatsLink) -> None:
    shard = JetStreamShard(link, StreamSettings(stream_prefix="absent", subject_prefix="absent"), 0, "n")
    with pytest.raises(StreamError, match="no answer on"):
        await shard.publish(b"", message_id="1")
    with pytest.raises(StreamLostError):
        await shard.info()
    with pytest.raises(StreamLostError):
        await shard.last_own()


async def test_a_publish_does_not_land_in_another_stream(link: NatsLink, streams: StreamSettings) -> None:
    wrong = JetStreamShard(link, StreamSettings(stream_prefix="another"), 0, "n")
    with pytest.raises(StreamError, match="expected stream"):
        await wrong.publish(b"", message_id="1")
