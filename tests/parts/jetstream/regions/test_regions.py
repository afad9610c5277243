"""Two nats-servers as two regions: copies of streams, who may acknowledge, what a hole in a copy leads to, moves."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from harmonylite.errors import ConfigError, NotAcknowledgedError, StreamError, StreamGapError, StreamLostError
from harmonylite.jetstream.regions import promotion
from harmonylite.jetstream.regions.mirror_streams import FOLLOW_AFTER, RegionStream, close_stream
from harmonylite.jetstream.regions.promotion import MoveError, promote, rejoin
from harmonylite.jetstream.regions.region_objects import RegionObjects
from harmonylite.jetstream.regions.region_shard import RegionShard
from harmonylite.jetstream.settings import StreamSettings
from harmonylite.jetstream.stream_metadata import role_of
from harmonylite.jetstream.streams import ensure_streams
from tests.parts.fix_nats import PATIENCE, eventually
from tests.parts.jetstream.regions.fix_sides import Side, up_to, whole


async def test_a_copy_has_the_same_messages_under_the_same_numbers_and_is_the_same_order(
    sides: tuple[Side, Side],
) -> None:
    a, b = sides
    await a.ensure()
    await b.ensure()
    near, far = a.shard("near"), b.shard("far")
    assert await near.publish(b"1", message_id="1", expected_last=0) == 1
    assert await far.publish(b"2", message_id="2", expected_last=0) == 2
    assert await far.publish(b"2", message_id="2") == 2, "the same message is stored once"
    read = [await up_to(shard, 1, 2) for shard in (near, far)]
    assert read[0] == read[1]
    assert [message.payload for message in read[0]] == [b"1", b"2"]
    await whole(a, b)
    infos = [await shard.info() for shard in (near, far)]
    assert infos[0] == infos[1]
    assert await far.last_own() == read[0][1]
    assert await far.end() == 2


async def test_a_region_waits_for_home_and_never_makes_an_order_of_its_own(sides: tuple[Side, Side]) -> None:
    a, b = sides
    task = asyncio.create_task(b.ensure())
    await b.waits_for("region a")
    assert not task.done()
    with pytest.raises(StreamLostError):
        await b.stream().own.details()
    await a.ensure()
    async with asyncio.timeout(PATIENCE):
        await task
    assert (await b.stream().own.details()).role.copy_of == "a"


async def test_only_the_home_regions_word_counts(sides: tuple[Side, Side]) -> None:
    a, b = sides
    await a.ensure()
    await b.ensure()
    far = b.shard()
    await far.publish(b"1", message_id="1", expected_last=0)
    # as if region a had been left for b: it takes messages, and nobody must believe it
    await whole(a, b)
    await promote(b.link, b.settings, b.home)
    for shard in (0, 1):
        await a.stream().own.api.call(f"STREAM.DELETE.{a.stream().name[:-1]}{shard}")
    await ensure_streams(a.link, replace(a.settings, domain="a"))
    stale = RegionShard(b.link, b.settings, 0, "other", b.home, publish_seconds=2.0)
    for n in range(5):
        try:
            assert await stale.publish(b"x", message_id=f"x{n}") == 2 + n
        except NotAcknowledgedError as error:
            assert "primary region is b" in error.message  # noqa: PT017 - either answer may come first
    assert await b.last("b") == 6


async def test_the_end_of_a_copy_is_that_of_the_order_only_while_home_answers(sides: tuple[Side, Side]) -> None:
    a, b = sides
    await a.ensure()
    await b.ensure()
    near, far = a.shard("near"), b.shard("far")
    await near.publish(b"1", message_id="1")
    await whole(a, b)
    assert (await near.info()).whole
    assert (await far.info()).whole
    await a.server.stop()
    info = await far.info()
    assert (info.last, info.whole) == (1, False)
    await a.server.start()

    async with asyncio.timeout(PATIENCE):
        while True:
            with suppress(StreamError):
                if (await far.info()).whole:
                    break
            await asyncio.sleep(0.05)


async def test_what_home_forgot_while_a_region_was_away_is_told_as_a_gap_and_the_rest_is_read(
    sides: tuple[Side, Side],
) -> None:
    a, b = sides
    await a.ensure()
    await b.ensure()
    near, far = a.shard("near"), b.shard("far")
    for n in range(1, 4):
        await near.publish(b"%d" % n, message_id=str(n))
    await whole(a, b)
    await b.server.stop()
    for n in range(4, 31):
        await near.publish(b"%d" % n, message_id=str(n))
    await b.server.start()
    await eventually(lambda: b.link.connected, "region b is back")
    with pytest.raises(StreamGapError) as gap:
        await up_to(far, 4, 30)
    assert (gap.value.wanted, gap.value.first > 4) == (4, True)
    assert [message.seq for message in await up_to(far, 25, 30)] == list(range(25, 31))


async def test_objects_and_pointers_of_home_are_reached_over_the_link(sides: tuple[Side, Side], tmp_path: Path) -> None:
    a, b = sides
    await a.ensure()
    await b.ensure()
    near, far = (RegionObjects(side.link, side.settings, side.home) for side in sides)
    source = tmp_path / "source"
    source.write_bytes(random.Random(1).randbytes(3_000_000))
    await far.put("snapshot", source)
    assert await far.set_pointer("newest", b"snapshot", revision=0)
    assert not await near.set_pointer("newest", b"other", revision=0)
    assert await near.pointer("newest") == (b"snapshot", 1)
    await near.get("snapshot", tmp_path / "target")
    assert (tmp_path / "target").read_bytes() == source.read_bytes()
    with b.home.storing("b"):
        assert await far.names() == []
        assert await far.pointer("newest") is None
        await far.put("mine", source)
    assert await near.names() == ["snapshot"], "what is stored in one region is not in the other's store"


async def test_moving_home_keeps_every_number_and_the_fence(sides: tuple[Side, Side]) -> None:
    a, b = sides
    await a.ensure()
    await b.ensure()
    near, far = a.shard("near"), b.shard("far")
    before = await near.info()
    last = await near.publish(b"1", message_id="1", expected_last=0)
    assert await promote(b.link, b.settings, b.home) == ["region b is the primary region now, region a no more"]
    assert await promote(b.link, b.settings, b.home) == ["region b is the primary region already"]
    second = await far.publish(b"2", message_id="2", expected_last=0)
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                third = await near.publish(b"3", message_id="3", expected_last=last)
                break
            except StreamError:
                await asyncio.sleep(0.1)
    assert (last, second, third) == (1, 2, 3)
    assert [message.payload for message in await up_to(near, 1, 3)] == [b"1", b"2", b"3"]
    for side in sides:
        info = await side.shard().info()
        assert (info.created, info.forks) == (before.created, ())
        assert not await side.ensure() or side is a
        assert (await side.watched()).region["primary"] == "b"
    assert a.home.now == "b"
    second_shard = RegionShard(a.link, a.settings, 1, "near", a.home)
    assert await second_shard.publish(b"1", message_id="other") == 1, "every shard moved"


def follow_at_once(side: Side, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the node hear of its region's new role in the middle of the move, as its own look at the streams may."""
    take_over = promotion._take_over

    async def overtaken(shards: Sequence[RegionStream], settings: StreamSettings) -> None:
        await take_over(shards, settings)
        side.home.follow((await shards[0].own.details()).role)

    monkeypatch.setattr(promotion, "_take_over", overtaken)


async def test_a_lost_home_is_left_behind_at_a_known_message_and_its_later_ones_never_pass_for_the_order(
    sides: tuple[Side, Side], monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = sides
    await a.ensure()
    await b.ensure()
    near, far = a.shard("near"), b.shard("far")
    old = (await near.info()).created
    await near.publish(b"1", message_id="1")
    await whole(a, b)
    with pytest.raises(MoveError, match="can be reached"):
        await promote(b.link, b.settings, b.home, force=True)
    await b.server.stop()
    await near.publish(b"lost", message_id="2")
    await a.server.stop()
    await b.server.start()
    await eventually(lambda: b.link.connected, "region b is back")
    with pytest.raises(MoveError, match="can't be reached"):
        await promote(b.link, b.settings, b.home)
    reading = asyncio.create_task(up_to(far, 1, 2))
    follow_at_once(b, monkeypatch)
    said = await promote(b.link, b.settings, b.home, force=True)
    assert said == ["region b is the primary region now; region a was not asked"]
    assert await far.publish(b"2", message_id="b2") == 2
    with pytest.raises(StreamLostError):
        await reading
    info = await far.info()
    assert info.forks == ((old, 1),)
    assert info.created != old
    assert info.same(old, 1)
    assert not info.same(old, 2)
    await a.server.start()
    await eventually(lambda: a.link.connected, "region a is back")
    async with asyncio.timeout(PATIENCE):
        while not a.home.left:
            await b.watched()
            await a.watched()
    assert "region rejoin" in a.status.part("primary region").reason
    with pytest.raises(StreamError, match="region b was promoted"):
        await near.publish(b"3", message_id="3")
    with pytest.raises(MoveError, match="rejoin"):
        await promote(a.link, a.settings, a.home)
    await rejoin(a.link, a.settings, a.home)
    with pytest.raises(MoveError, match="region b is the primary region"):
        await rejoin(b.link, b.settings, b.home)
    assert [message.payload for message in await up_to(a.shard(), 1, 2)] == [b"1", b"2"]
    assert (await a.shard().info()).forks == ((old, 1),)


@pytest.mark.parametrize("way", ["again", "force"])
async def test_a_move_that_was_cut_off_leaves_nobody_taking_messages_until_it_is_done_again(
    sides: tuple[Side, Side], way: str
) -> None:
    a, b = sides
    await a.ensure()
    await b.ensure()
    await a.shard("near").publish(b"1", message_id="1")
    await whole(a, b)
    for shard in (0, 1):
        stream = RegionStream(a.link, a.settings, shard, a.home).own
        await close_stream(stream, await stream.details())
    with pytest.raises(StreamError):
        await a.shard("near").publish(b"2", message_id="2")
    assert "takes no messages now: another region is being promoted" in (await a.watched()).waits[0]
    with pytest.raises(MoveError, match="a move was cut off half way"):
        await promote(a.link, a.settings, a.home)
    if way == "again":
        assert await promote(b.link, b.settings, b.home) == ["region b is the primary region now, region a no more"]
    else:
        await promote(a.link, a.settings, a.home, force=True)
        await b.watched(FOLLOW_AFTER + 1)
    for side in sides:
        await side.watched()
        assert side.home.now == ("b" if way == "again" else "a")
        node = side.shard(f"node-{side.name}")
        assert await node.publish(side.name.encode(), message_id=side.name) == 2 + sides.index(side)
    assert [m.payload for m in await up_to(b.shard(), 1, 3)] == [b"1", b"a", b"b"]


async def test_a_copy_is_not_followed_when_home_lost_its_stream_and_copied_anew_when_home_has_another(
    sides: tuple[Side, Side],
) -> None:
    a, b = sides
    await a.ensure()
    await b.ensure()
    near, far = a.shard("near"), b.shard("far")
    await near.publish(b"1", message_id="1")
    await whole(a, b)
    for shard in (0, 1):
        await a.stream().own.api.call(f"STREAM.DELETE.{a.stream().name[:-1]}{shard}")
    with pytest.raises(StreamLostError, match="primary region a has no stream"):
        await far.info()
    assert "it is made again there" in (await b.watched()).waits[0]
    await a.ensure()
    with pytest.raises(StreamLostError, match="was created again"):
        await far.info()
    assert "follows them soon" in (await b.watched()).waits[0]
    assert await b.last("b") == 1, "for a while the copy stays, for a person to decide"
    await b.watched(FOLLOW_AFTER + 1)
    assert await far.info() == await near.info()


def test_a_mirror_of_something_else_is_refused_by_name() -> None:
    for mirror in (
        {"name": "s"},
        {"name": "s", "external": {"api": "$JS.API"}},
        {"name": "other", "external": {"api": "$JS.a.API"}},
    ):
        with pytest.raises(ConfigError, match="stream s is a mirror of"):
            role_of({"name": "s", "mirror": mirror}, "now")
