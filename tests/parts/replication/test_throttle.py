"""Publishing waits for snapshots: a stream never forgets what anyone who starts from the newest one needs."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harmonylite.errors import StreamError
from harmonylite.jetstream.settings import StreamSettings
from harmonylite.jetstream.streams import ensure_streams
from harmonylite.nats.link import NatsLink
from harmonylite.replication.throttle import Throttle
from harmonylite.status import NodeStatus
from tests.parts.fix_nats import RealNats, eventually
from tests.parts.replication.fix_writers import Writer, writers

pytestmark = pytest.mark.timeout(300)

SECONDS = 240.0
"""Who tries again does so at intervals that grow up to half a minute: a busy machine may need several."""


async def left_out(writer: Writer) -> list[str]:
    """Return what the streams have forgotten and the newest snapshot does not hold, at this moment."""
    while True:
        before = await writer.repository.newest()
        infos = [await shard.info() for shard in writer.shards]
        after = await writer.repository.newest()
        assert before is not None
        assert after is not None
        if before.name == after.name:
            needed = after.resume
            return [f"{i.first} > {needed[i.shard]} of {i.shard}" for i in infos if i.first > needed[i.shard]]


async def watched(writer: Writer, work: list[asyncio.Task[None]]) -> tuple[int, set[str]]:
    """Look until all ``work`` is done; return how often, and what was ever left out."""
    looks, found = 0, set[str]()
    async with asyncio.timeout(SECONDS):
        while not all(task.done() for task in work):
            found |= set(await left_out(writer))
            looks += 1
    for task in work:
        task.result()
    return looks, found | set(await left_out(writer))


@pytest.fixture
async def small(link: NatsLink) -> StreamSettings:
    """Two streams that keep 40 messages."""
    settings = StreamSettings(shards=2, max_entries=40)
    await ensure_streams(link, settings)
    return settings


@pytest.mark.parametrize("gated", [True, False])
async def test_fast_writers_never_outrun_the_snapshots(
    nats: RealNats, small: StreamSettings, tmp_path: Path, gated: bool
) -> None:
    """Without the throttle they do, or the test would show nothing."""
    counts = [{0: 1}, {1: 1}, {0: 1, 1: 1}, {0: 3}, {0: 1}, {1: 2, 0: 1}] * 12
    async with writers(nats.url, small, tmp_path, "a", "b", "c", gated=gated) as (a, b, c):
        work = [asyncio.create_task(w.write(*counts[i:], *counts[:i])) for i, w in enumerate((a, b, c))]
        looks, found = await watched(a, work)
        assert looks > 20 or not gated
        assert (found == set()) == gated, found
        await a.sees(b.folded[-1])
    assert sum(each.status.counters.snapshots_saved for each in (a, b, c)) > (2 if gated else 0)


async def test_while_the_store_is_away_publishing_waits_and_says_so_and_goes_on_by_itself(
    nats: RealNats, small: StreamSettings, tmp_path: Path
) -> None:
    async with writers(nats.url, small, tmp_path, "a", "b") as (a, b):
        for each in (a, b):
            each.objects.away = True
        work = [asyncio.create_task(w.write(*[{0: 1}] * 40)) for w in (a, b)]
        for each in (a, b):
            part = each.status.part("publish")
            await eventually(lambda: "waiting for a snapshot: the stream would forget" in part.reason)  # noqa: B023
        assert await left_out(a) == []
        with pytest.raises(StreamError, match="waiting for a snapshot"):
            await a.publisher.checkpoint("h")
        for each in (a, b):
            each.objects.away = False
        _, found = await watched(a, work)
        assert found == set()
        assert [each.status.part("publish").state for each in (a, b)] == ["ok", "ok"]


async def test_large_change_sets_at_once_take_turns_and_fit(
    nats: RealNats, small: StreamSettings, tmp_path: Path
) -> None:
    """Each alone leaves room; all at once they would not."""
    async with writers(nats.url, small, tmp_path, *"abcdef") as found:
        work = [asyncio.create_task(w.write(*[{0: 12}, {0: 12, 1: 2}] * 2)) for w in found]
        looks, forgotten = await watched(found[0], work)
        assert looks > 10
        assert forgotten == set()
        assert all(not each.voided for each in found)


async def test_a_change_set_larger_than_the_stream_goes_through_and_is_in_a_snapshot_soon(
    nats: RealNats, small: StreamSettings, tmp_path: Path
) -> None:
    async with writers(nats.url, small, tmp_path, "a", "b") as (a, b):
        await b.write(*[{0: 1}] * 10)
        async with asyncio.timeout(SECONDS):
            await b.write({0: 90})
            (event,) = b.status.part("publish").events
        assert "a change set of 90 messages on shard 0, which keeps 40" in event.sentence
        work = asyncio.create_task(b.write({0: 1}))
        await watched(a, [work])
        assert await left_out(a) == [], "the next change set waited for a snapshot"


async def test_nothing_is_waited_for_where_the_stream_keeps_everything(
    link: NatsLink, nats: RealNats, tmp_path: Path
) -> None:
    settings = StreamSettings(shards=1, max_entries=0)
    await ensure_streams(link, settings)
    writer = Writer(link, settings, tmp_path, "a", gated=True)
    await writer.publisher.open()
    async with asyncio.timeout(SECONDS):
        await writer.publisher.publish(writer.change_set({0: 30}))


async def test_a_writer_waits_for_its_own_reader_before_the_stream_forgets_what_it_wrote() -> None:
    status, read = NodeStatus(), 0
    status.shard(0).most = 40
    reading: Any = SimpleNamespace(read_up_to=lambda shard: read)
    throttle = Throttle(status, "a", lambda: reading, None)
    throttle.note_end(0, 11)
    waiting = asyncio.create_task(throttle.wait_for_reader(0))
    done, _ = await asyncio.wait({waiting}, timeout=0.05)
    assert not done, "11 messages are unread, which is more than a quarter of what the stream keeps"
    read = 1
    async with asyncio.timeout(SECONDS):
        await waiting
