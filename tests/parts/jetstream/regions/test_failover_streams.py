"""Failovers on real servers: one continues from the copy, no order takes the other's messages, closed is closed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial

import pytest

from harmonylite.changes.failover import Failover, Start, beginning
from harmonylite.errors import StreamError, StreamGapError, StreamLostError
from harmonylite.jetstream.regions.failover_streams import FailoverStreams
from harmonylite.jetstream.regions.mirror_streams import RegionWatch
from harmonylite.jetstream.regions.promotion import rejoin
from harmonylite.jetstream.regions.region_shard import RegionShard
from harmonylite.jetstream.settings import StreamSettings
from harmonylite.jetstream.stream_metadata import PrimaryRegion
from harmonylite.nats.link import NatsLink
from harmonylite.nats.peers import NatsPeers
from harmonylite.node.failover_controller import STEADY, FailoverController, Sibling, siblings
from tests.parts.fix_nats import PATIENCE, NatsFactory, quick
from tests.parts.jetstream.regions.fix_sides import Side, up_to, whole
from tests.ports import free_ports


async def begun(a: Side, b: Side, messages: int = 2) -> None:
    """Make the streams of both regions, with some messages in the first shard, all of them copied."""
    await a.ensure()
    await b.ensure()
    for n in range(1, messages + 1):
        await a.shard("near").publish(b"home %d" % n, message_id=f"home {n}")
    await whole(a, b)


def failover_controller(side: Side) -> FailoverStreams:
    return FailoverStreams(side.link, side.settings, side.home)


async def starts_of(streams: FailoverStreams) -> dict[int, Start]:
    return beginning(await streams.copied(), {})[0]


async def made(side: Side) -> tuple[FailoverStreams, Failover]:
    """Make a failover and let the side's nodes use it."""
    streams = failover_controller(side)
    assert await streams.make(await starts_of(streams))
    (failover,) = await streams.all()
    streams.use(failover)
    return streams, failover


async def test_of_nodes_that_make_one_at_the_same_time_one_succeeds_and_all_see_the_same(
    sides: tuple[Side, Side],
) -> None:
    a, b = sides
    await begun(a, b)
    await a.server.stop()
    makers = [failover_controller(b) for _ in range(5)]
    starts = await starts_of(makers[0])
    assert sorted(await asyncio.gather(*(maker.make(starts) for maker in makers))) == [False] * 4 + [True]
    seen = [await maker.all() for maker in makers]
    assert all(found == seen[0] for found in seen)
    (failover,) = seen[0]
    assert (failover.open, failover.whole, failover.number) == (True, True, 1)
    assert (failover.starts[0].upto, failover.starts[1].upto) == (2, 0)


async def test_it_goes_on_from_the_copy_under_the_next_numbers_and_neither_order_takes_the_others_messages(
    sides: tuple[Side, Side],
) -> None:
    a, b = sides
    await begun(a, b)
    far, near = b.shard("far"), a.shard("near")
    before = await far.info()
    _, failover = await made(b)  # the link is up: nothing may get across by accident
    assert await far.last_own() is None
    assert await far.publish(b"apart 3", message_id="x", expected_last=0) == 3
    assert await far.publish(b"apart 4", message_id="y", expected_last=3) == 4
    assert await near.publish(b"home 3", message_id="z") == 3
    assert [m.payload for m in await up_to(far, 1, 4)] == [b"home 1", b"home 2", b"apart 3", b"apart 4"]
    assert [m.payload for m in await up_to(near, 1, 3)] == [b"home 1", b"home 2", b"home 3"]
    info = await far.info()
    assert (info.first, info.last, info.created, await far.end()) == (1, 4, failover.order(0), 4)
    assert info.created != before.created
    for seq, payload in ((2, b"home 2"), (3, b"apart 3")):
        message = await far.get(seq)
        assert message is not None
        assert message.payload == payload
    last = await far.last_own()
    assert last is not None
    assert last.payload == b"apart 4"
    assert [m.payload for m in await up_to(far, 4, 4)] == [b"apart 4"], "also from the middle of it"
    empty = await RegionShard(b.link, b.settings, 1, "far", b.home).info()
    assert (empty.first, empty.last) == (1, 0), "a shard that nobody wrote to begins at its beginning"


async def test_closed_it_takes_nothing_keeps_what_it_has_and_the_next_one_has_another_number(
    sides: tuple[Side, Side],
) -> None:
    a, b = sides
    await begun(a, b)
    streams, failover = await made(b)
    far = b.shard("far")
    await far.publish(b"apart", message_id="x")
    await streams.close(failover)
    await streams.close(failover)
    with pytest.raises(StreamError):
        await far.publish(b"late", message_id="y")
    assert await streams.ends(failover) == {0: 3, 1: 0}
    assert [m.payload for m in await up_to(far, 3, 3)] == [b"apart"]
    assert await streams.make(await starts_of(streams))
    first, second = await streams.all()
    assert (first.open, second.open, second.number) == (False, True, 2)
    assert first.mark != second.mark
    assert not await streams.make(await starts_of(streams)), "one at a time"
    streams.use(second)
    assert await far.publish(b"again", message_id="x") == 3
    await streams.remove(first)
    assert [found.mark for found in await streams.all()] == [second.mark]


async def test_what_was_read_from_home_beyond_the_copy_is_told_as_a_gap_to_who_lacks_it(
    sides: tuple[Side, Side],
) -> None:
    a, b = sides
    await begun(a, b)
    streams = failover_controller(b)
    starts = {shard: replace(start, upto=start.upto + 2) for shard, start in (await starts_of(streams)).items()}
    await streams.make(starts)
    streams.use((await streams.all())[0])
    far = b.shard("far")
    assert await far.publish(b"apart", message_id="x") == 5
    assert [m.payload for m in await up_to(far, 5, 5)] == [b"apart"]
    for start in (3, 4):
        with pytest.raises(StreamGapError):
            await up_to(far, start, 5)
    assert (await far.info()).first == 5


async def test_a_maker_that_did_not_come_to_all_shards_is_helped_and_its_order_is_not_used_before(
    sides: tuple[Side, Side],
) -> None:
    a, b = sides
    await begun(a, b)
    streams, failover = await made(b)
    await b.stream().own.api.call("STREAM.DELETE.harmonylite-changes-1-interim-1")
    assert [found.whole for found in await streams.all()] == [False]
    await streams.complete(failover)
    await streams.complete(failover)
    assert [found.whole for found in await streams.all()] == [True]


async def test_a_region_that_orders_itself_has_no_failover(sides: tuple[Side, Side]) -> None:
    a, b = sides
    await begun(a, b)
    with pytest.raises(StreamError, match="is no copy of the primary region's"):
        await failover_controller(a).copied()
    assert not failover_controller(a).needed
    assert failover_controller(b).needed


async def test_a_majority_of_the_regions_servers_is_enough_to_make_one(new_nats: NatsFactory) -> None:
    ports = free_ports(3)
    routes = ", ".join(f'"nats-route://127.0.0.1:{port}"' for port in ports)
    servers = [
        await new_nats(
            f'server_name: b{i}\ncluster {{ name: b, listen: "127.0.0.1:{port}", routes: [{routes}] }}', "domain: b"
        )
        for i, port in enumerate(ports)
    ]
    async with NatsLink(quick(servers[0].url)) as link:
        streams = FailoverStreams(link, StreamSettings(replicas=3, shards=2), PrimaryRegion("b", "a"))
        starts = {0: Start("order", 7, 7), 1: Start("order", 0, 0)}
        await _until(lambda: streams.all())
        await servers[2].stop()
        await _until(lambda: streams.make(starts))
        await _until(lambda: streams.all())
        (failover,) = streams.seen
        await _until(lambda: streams.complete(failover))
        (failover,) = await streams.all()
        assert (failover.whole, failover.starts) == (True, starts)


async def _until(call: Callable[[], Awaitable[object]]) -> None:
    """Call until it raises no StreamError: servers elect for a while."""
    async with asyncio.timeout(2 * PATIENCE):
        while True:
            try:
                await call()
            except (StreamError, StreamLostError):
                await asyncio.sleep(0.2)
            else:
                return


class Region:
    """Nodes of one region that look after it together, without their databases."""

    def __init__(self, side: Side, *names: str, after: float = 1e-6) -> None:
        self.turned: list[str] = []
        self.reaching: set[str] = set()
        self.side = side
        self.nodes: dict[str, FailoverController] = {}
        self.watches: dict[str, RegionWatch] = {}
        self.peers = NatsPeers(side.link, side.settings.subject_prefix)
        for name in names:
            streams, home = failover_controller(side), side.home
            self.nodes[name] = FailoverController(
                streams,
                home.region,
                self.peers,
                after=after,
                turn=partial(self.turned.append, name),
                own=partial(self.own, name),
            )
            self.watches[name] = RegionWatch(side.link, side.settings, home, side.status, rejoin=self.rejoin)

    async def rejoin(self) -> None:
        await rejoin(self.side.link, self.side.settings, self.side.home)

    async def own(self, name: str) -> Sibling:
        created, last = (await failover_controller(self.side).copied())[0]
        other, _ = (await failover_controller(self.side).copied())[1]
        return Sibling(name, self.side.name, name in self.reaching, {0: (created, last, last + 1), 1: (other, 0, 1)})

    async def check(self) -> None:
        """Let every node check once, all at the same time."""
        for watch in self.watches.values():
            await watch.check()
        await asyncio.gather(*(node.check(self.watches[name]) for name, node in self.nodes.items()))


async def test_nodes_that_all_miss_home_make_one_failover_and_close_it_when_home_is_back_for_good(
    sides: tuple[Side, Side],
) -> None:
    a, b = sides
    await begun(a, b)
    region = Region(b, "b1", "b2")
    async with asyncio.TaskGroup() as group:
        serving = [group.create_task(node.serve()) for node in region.nodes.values()]
        await _until(lambda: _answering(region, 2))
        await region.check()
        assert not await failover_controller(b).all(), "home answers"
        await a.server.stop()
        region.reaching = {"b2"}
        for _ in range(3):
            await region.check()
        assert not await failover_controller(b).all(), "a sibling still reaches home"
        region.reaching.clear()
        while not (found := await failover_controller(b).all()):
            await region.check()
        assert [(failover.open, failover.starts[0].upto) for failover in found] == [(True, 2)]
        await region.check()
        assert set(region.turned) == {"b1", "b2"}, "both hear of it"
        await a.server.start()
        end = asyncio.get_running_loop().time() + PATIENCE
        while (await failover_controller(b).all())[0].open:
            steady = max(watch.steady for watch in region.watches.values())
            assert steady < STEADY, "now it is back for good"
            assert asyncio.get_running_loop().time() < end
            await region.check()
        assert max(watch.steady for watch in region.watches.values()) == STEADY, "a link that flaps is not back"
        for task in serving:
            task.cancel()


@pytest.mark.parametrize("case", ["alone", "never"])
async def test_none_is_made_where_there_is_nobody_to_converge_with_or_none_is_wanted(
    sides: tuple[Side, Side], case: str
) -> None:
    a, b = sides
    await begun(a, b)
    region = Region(b, "b1", *(["b2"] if case == "never" else []), after=0.0 if case == "never" else 1e-6)
    async with asyncio.TaskGroup() as group:
        serving = [group.create_task(node.serve()) for node in region.nodes.values()]
        await _until(lambda: _answering(region, len(region.nodes)))
        await a.server.stop()
        for _ in range(3):
            await region.check()
        assert region.watches["b1"].unreachable_for > 0
        assert not await failover_controller(b).all()
        for task in serving:
            task.cancel()


async def _answering(region: Region, count: int) -> None:
    found = await siblings(region.peers, region.side.name)
    if len(found) < count:
        raise StreamError(f"{sorted(found)} answer")
