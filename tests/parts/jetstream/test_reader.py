"""Reading a real stream: each sequence once and in order, whatever happens, or an error that says why not."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from harmonylite.errors import StreamGapError, StreamLostError
from harmonylite.jetstream.settings import StreamSettings
from harmonylite.jetstream.shard import JetStreamShard
from harmonylite.jetstream.streams import ensure_streams
from harmonylite.model import StreamMessage
from harmonylite.nats.link import NatsLink
from harmonylite.status import NodeStatus
from tests.parts.fix_nats import PATIENCE, RealNats, eventually, frozen


@pytest.fixture
def shard(link: NatsLink, streams: StreamSettings, node_status: NodeStatus) -> JetStreamShard:
    part = node_status.part("stream-0")
    return JetStreamShard(link, streams, 0, "node-1", part=part, publish_seconds=PATIENCE, confirm_seconds=0.3)


class Collected:
    """What a reader in the background has yielded so far."""

    def __init__(self, shard: JetStreamShard, start: int) -> None:
        self.messages: list[StreamMessage] = []
        self.task = asyncio.create_task(self._run(shard, start))

    async def _run(self, shard: JetStreamShard, start: int) -> None:
        async for batch in shard.read(start):
            self.messages += batch

    @property
    def seqs(self) -> list[int]:
        return [message.seq for message in self.messages]

    async def until(self, last: int) -> None:
        await eventually(lambda: self.task.done() or bool(self.messages and self.messages[-1].seq >= last), "reading")
        if self.task.done():
            self.task.result()


@asynccontextmanager
async def reading(shard: JetStreamShard, start: int = 1) -> AsyncIterator[Collected]:
    collected = Collected(shard, start)
    try:
        yield collected
    finally:
        collected.task.cancel()
        await asyncio.wait([collected.task])


async def fill(shard: JetStreamShard, count: int, payload: bytes = b"x") -> int:
    """Publish ``count`` messages one after the other; return the last sequence."""
    last = 0
    for _ in range(count):
        last = await shard.publish(payload, message_id=f"{id(payload)}-{asyncio.get_running_loop().time()}")
    return last


async def api(link: NatsLink, verb: str, **body: object) -> dict[str, object]:
    message = await link.now().request(f"$JS.API.{verb}", json.dumps(body).encode() if body else b"", seconds=30)
    answer: dict[str, object] = json.loads(message.data)
    assert "error" not in answer, answer
    return answer


async def consumers(link: NatsLink, shard: JetStreamShard) -> list[str]:
    names = (await api(link, f"CONSUMER.NAMES.{shard.name}"))["consumers"] or []
    assert isinstance(names, list)
    return names


async def test_old_and_new_messages_come_once_and_in_order(shard: JetStreamShard) -> None:
    await fill(shard, 5)
    async with reading(shard, 3) as read:
        await read.until(5)
        last = await fill(shard, 700)
        await read.until(last)
        assert read.seqs == list(range(3, last + 1))


async def test_a_message_comes_with_all_that_was_published(shard: JetStreamShard) -> None:
    await shard.publish(b"\x00\xff payload", message_id="1")
    async with reading(shard) as read:
        await read.until(1)
        assert read.messages == [await shard.last_own()]


async def test_large_messages_come_whole_and_in_order(shard: JetStreamShard) -> None:
    payload = bytes(range(256)) * 4096
    await asyncio.gather(*(shard.publish(payload, message_id=str(i)) for i in range(60)))
    async with reading(shard) as read:
        await read.until(60)
        assert read.seqs == list(range(1, 61))
        assert all(message.payload == payload for message in read.messages)


async def test_messages_of_full_size_come(shard: JetStreamShard) -> None:
    for i in range(3):
        await shard.publish(b"x" * shard.max_message, message_id=str(i))
    async with reading(shard) as read:
        await read.until(3)
        assert read.seqs == [1, 2, 3]


async def test_a_slow_taker_loses_nothing(shard: JetStreamShard) -> None:
    await fill(shard, 1500)
    seqs: list[int] = []
    batches = shard.read(1)
    async for batch in batches:
        seqs += [message.seq for message in batch]
        if seqs[-1] == 1500:
            break
        await shard.info()  # other work in between
    assert seqs == list(range(1, 1501))


async def test_reading_goes_on_over_a_killed_and_restarted_server_without_loss_or_repeat(
    nats: RealNats, link: NatsLink, shard: JetStreamShard, node_status: NodeStatus
) -> None:
    last = await fill(shard, 20)
    async with reading(shard) as read:
        await read.until(last)
        for _ in range(2):
            await nats.kill()
            await nats.start()
            await link.connection()
            last = await fill(shard, 20)
            await read.until(last)
        assert read.seqs == list(range(1, last + 1))
    assert node_status.nats.reconnects == 2


@frozen
async def test_a_frozen_server_is_noticed_and_reading_goes_on_after(
    nats: RealNats, link: NatsLink, shard: JetStreamShard, node_status: NodeStatus
) -> None:
    last = await fill(shard, 3)
    async with reading(shard) as read:
        await read.until(last)
        await nats.freeze()
        await eventually(lambda: not node_status.nats_connected, "noticing that the server is frozen")
        await eventually(lambda: any("nats" in wait for wait in node_status.waits), "a word on what is away")
        nats.thaw()
        await link.connection()
        last = await fill(shard, 3)
        await read.until(last)
        assert read.seqs == list(range(1, last + 1))


async def test_a_consumer_deleted_under_the_reader_is_made_anew(link: NatsLink, shard: JetStreamShard) -> None:
    last = await fill(shard, 10)
    async with reading(shard) as read:
        await read.until(last)
        for _ in range(3):
            for name in await consumers(link, shard):
                await api(link, f"CONSUMER.DELETE.{shard.name}.{name}")
            last = await fill(shard, 10)
            await read.until(last)
        assert read.seqs == list(range(1, last + 1))


async def test_a_reader_that_is_closed_leaves_no_consumer_behind(link: NatsLink, shard: JetStreamShard) -> None:
    await fill(shard, 1)
    async with reading(shard) as read:
        await read.until(1)
        assert len(await consumers(link, shard)) == 1
    while await consumers(link, shard):
        pass


async def test_a_start_before_the_oldest_kept_message_is_a_gap(link: NatsLink) -> None:
    settings = StreamSettings(max_entries=5, stream_prefix="small", subject_prefix="small")
    await ensure_streams(link, settings)
    shard = JetStreamShard(link, settings, 0, "n")
    await fill(shard, 12)
    with pytest.raises(StreamGapError) as caught:
        await anext(shard.read(3))
    assert (caught.value.shard, caught.value.wanted, caught.value.first) == (0, 3, 8)


async def test_a_reader_that_falls_behind_the_oldest_kept_message_stops_at_the_gap(
    nats: RealNats, link: NatsLink, shard: JetStreamShard
) -> None:
    await fill(shard, 2000)
    seqs: list[int] = []
    batches = shard.read(1)
    seqs += [message.seq for message in await anext(batches)]
    await api(link, f"STREAM.PURGE.{shard.name}", seq=1900)

    async def to_the_end() -> None:
        async for batch in batches:
            seqs.extend(message.seq for message in batch)

    with pytest.raises(StreamGapError) as caught:
        await to_the_end()
    assert caught.value.wanted == len(seqs) + 1
    assert caught.value.first == 1900
    assert seqs == list(range(1, len(seqs) + 1))


async def test_single_deleted_messages_are_passed_over(link: NatsLink, shard: JetStreamShard) -> None:
    await fill(shard, 9)
    for seq in (4, 5, 8):
        await api(link, f"STREAM.MSG.DELETE.{shard.name}", seq=seq)
    async with reading(shard) as read:
        await read.until(9)
        assert read.seqs == [1, 2, 3, 6, 7, 9]


async def test_a_purge_of_what_was_read_disturbs_nobody(link: NatsLink, shard: JetStreamShard) -> None:
    await fill(shard, 5)
    async with reading(shard) as read:
        await read.until(5)
        await api(link, f"STREAM.PURGE.{shard.name}")
        await fill(shard, 2)
        await read.until(7)
        assert read.seqs == [1, 2, 3, 4, 5, 6, 7]


async def test_a_deleted_stream_is_a_lost_stream(link: NatsLink, shard: JetStreamShard) -> None:
    await fill(shard, 3)
    async with reading(shard) as read:
        await read.until(3)
        await api(link, f"STREAM.DELETE.{shard.name}")
        with pytest.raises(StreamLostError, match="does not exist"):
            await asyncio.wait_for(read.task, 30)


async def test_a_stream_made_anew_is_a_lost_stream(
    link: NatsLink, shard: JetStreamShard, streams: StreamSettings
) -> None:
    await fill(shard, 3)
    async with reading(shard) as read:
        await read.until(3)
        await api(link, f"STREAM.DELETE.{shard.name}")
        await ensure_streams(link, streams)
        await fill(shard, 10)
        with pytest.raises(StreamLostError, match="created again"):
            await asyncio.wait_for(read.task, 30)
        assert read.seqs == [1, 2, 3]


async def test_a_stream_that_is_shorter_than_what_was_read_is_a_lost_stream(shard: JetStreamShard) -> None:
    await fill(shard, 3)
    with pytest.raises(StreamLostError, match="lost its tail"):
        await anext(shard.read(7))


async def test_a_stream_whose_server_lost_and_rewrote_the_tail_is_a_lost_stream(
    nats: RealNats, link: NatsLink, shard: JetStreamShard
) -> None:
    await fill(shard, 10)
    before = nats.folder / "before"
    await nats.kill()
    await asyncio.to_thread(copy, nats.folder / "jetstream", before)
    await nats.start()
    await link.connection()
    last = await fill(shard, 5)
    async with reading(shard) as read:
        await read.until(last)
        await power_cut(nats, before)
        with pytest.raises(StreamLostError, match="lost its tail"):
            await asyncio.wait_for(read.task, 30)


async def test_a_rewritten_tail_is_noticed_also_when_it_is_as_long_as_the_lost_one(
    nats: RealNats, link: NatsLink, shard: JetStreamShard
) -> None:
    await fill(shard, 3)
    before = nats.folder / "before"
    await nats.kill()
    await asyncio.to_thread(copy, nats.folder / "jetstream", before)
    await nats.start()
    await link.connection()
    await fill(shard, 2)
    batches = shard.read(1)
    read = [message.seq for message in await anext(batches)]
    while read[-1] < 5:
        read += [message.seq for message in await anext(batches)]
    await power_cut(nats, before)
    await link.connection()
    assert await fill(shard, 4) == 7
    with pytest.raises(StreamLostError, match="is not the one that was read"):
        await anext(batches)


async def power_cut(nats: RealNats, before: Path) -> None:
    """What a power cut does to a server that does not sync: its last messages are gone, others take their place."""
    await nats.kill()
    await asyncio.to_thread(copy, before, nats.folder / "jetstream")
    await nats.start()


def copy(source: Path, target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)


async def test_waiting_readers_end_when_the_link_is_closed(
    nats: RealNats, shard: JetStreamShard, link: NatsLink
) -> None:
    async with reading(shard) as read:
        await link.aclose()
        with pytest.raises(Exception, match="closed"):
            await asyncio.wait_for(read.task, 30)


async def test_a_consumer_that_lives_and_passes_nothing_on_is_made_anew(link: NatsLink, shard: JetStreamShard) -> None:
    async with reading(shard) as read:
        await read.until(await fill(shard, 1))
        (name,) = await consumers(link, shard)
        # Its server continues with signs of life, as one whose copy of the stream lags.
        await api(link, f"CONSUMER.PAUSE.{shard.name}.{name}", pause_until="2100-01-01T00:00:00Z")
        await read.until(await fill(shard, 3))
        assert read.seqs == [1, 2, 3, 4]
        while name in await consumers(link, shard):
            pass
