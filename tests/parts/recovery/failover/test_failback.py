"""Going to a failover and back.

One node brings it the primary region, the others follow and publish only what is new.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

import msgspec
import pytest

from harmonylite.changes.epochs import Lineage
from harmonylite.changes.failover import beginning
from harmonylite.changes.reassembler import Reassembler
from harmonylite.db.snapshot import save_copy
from harmonylite.db.sqlite.thread import SqliteThread
from harmonylite.errors import StreamError, StreamLostError
from harmonylite.jetstream.regions.failover_streams import FailoverStreams
from harmonylite.jetstream.regions.mirror_streams import ensure_region_streams
from harmonylite.jetstream.regions.promotion import promote
from harmonylite.jetstream.regions.region_objects import RegionObjects
from harmonylite.jetstream.regions.region_shard import RegionShard
from harmonylite.jetstream.stream_metadata import PrimaryRegion
from harmonylite.recovery.failover import failback
from harmonylite.recovery.failover.failback import Failback
from harmonylite.recovery.failover.failback_owner import FailbackClaim
from harmonylite.recovery.failover.failback_settings import FailbackHooks, FailbackSettings
from harmonylite.snapshots.repository import RepositorySettings, SnapshotRepository
from harmonylite.status import NodeStatus
from tests.parts.db.fix_replicas import Group, Member
from tests.parts.fix_nats import PATIENCE
from tests.parts.jetstream.regions.fix_sides import Side, up_to

TABLE = "CREATE TABLE t(id TEXT PRIMARY KEY NOT NULL, v TEXT)"


class Node:
    """A replica and what brings it from order to order, driven by hand."""

    def __init__(self, member: Member, side: Side) -> None:
        self.member, self.replica = member, member.replica
        self.name = member.options.node
        settings, self.home = replace(side.settings, shards=1), PrimaryRegion(side.name, "a")
        self.shard = RegionShard(side.link, settings, 0, self.name, self.home, confirm_seconds=0.2)
        self.failovers = FailoverStreams(side.link, settings, self.home)
        self.thread, self.status = SqliteThread(), NodeStatus()
        pointers = RegionObjects(side.link, settings, self.home)
        self.pointers = pointers.of_region()
        folder, copy = member.options.folder, partial(save_copy, member.options.mirror)
        repository = SnapshotRepository(
            pointers, pointers, RepositorySettings(folder, self.name, "c", 3), self.status, copy=copy
        )
        self.answering = True
        self.failback = Failback(
            self.thread,
            self.status,
            repository,
            self.pointers,
            self.failovers,
            [self.shard],
            FailbackSettings(self.name, folder, may_bring_back=True),
            FailbackHooks(copy, self.answers, self.idle, self.request_snapshot),
        )
        self.number = 0

    async def answers(self, _: str) -> bool:
        return self.answering

    async def idle(self) -> None:
        assert await self.send() == 0, "all was sent before"

    async def request_snapshot(self) -> bool:
        return False

    async def send(self, *, heard: bool = True) -> int:
        """Publish what is pending, and fold what is in the order by then; return the number of rows.

        ``heard``: False when no acknowledgement comes, nor anything else.
        """
        self.number += 1
        out = self.replica.capture(self.number, message_bytes=900_000)
        if out is None:
            return 0
        rows = out.rows
        for payload in out.payloads(0):
            await self.shard.publish(payload, message_id=f"{self.name}-{self.number}")
        out.close()
        if heard:
            await self.fold()
        return rows

    async def fold(self) -> None:
        """Fold everything in the order that the node is in."""
        self.replica.set_created({0: (await self.shard.info()).created})
        reassembler, end = Reassembler(self.replica.positions()), await self.shard.end()
        if reassembler.read_up_to(0) < end:
            for message in await up_to(self.shard, reassembler.read_up_to(0) + 1, end):
                reassembler.add(message)
        while (batch := reassembler.take(own=(self.name, self.replica.options.session))) is not None:
            self.replica.apply(batch)
            batch.close()
        self.status.caught_up = True

    async def back(self) -> None:
        await self.failback.back(self.replica)
        await self.failback.settle(self.replica)

    def rows(self) -> dict[str, str]:
        return dict(self.member.run("SELECT id, v FROM t"))


@pytest.fixture
async def nodes(sides: tuple[Side, Side], group: Group) -> AsyncIterator[tuple[Node, Node, Node]]:
    """Node ``a`` in region a, ``b`` and ``c`` in region b, which has a failover that both are in."""
    for side in sides:
        await ensure_region_streams(side.link, replace(side.settings, shards=1), side.home)
    a, b, c = (Node(m, sides[i]) for m, i in zip(group.several(3, TABLE), (0, 1, 1), strict=True))
    async with AsyncExitStack() as stack:
        for node in (a, b, c):
            stack.push_async_callback(node.thread.aclose)
        a.member.run("INSERT INTO t VALUES ('x', 'at first'), ('gone', 'at first')")
        await a.send()
        async with asyncio.timeout(PATIENCE):
            while (await b.failovers.copied())[0][1] < 1:  # noqa: ASYNC110 - another server tells
                await asyncio.sleep(0.05)
        for node in (b, c):
            await node.fold()
        assert await b.failovers.make(beginning(await b.failovers.copied(), {})[0])
        for node in (b, c):
            await node.failback.settle(node.replica)
        yield a, b, c


async def closed(*nodes: Node) -> None:
    (failover,) = await nodes[0].failovers.all()
    await nodes[0].failovers.close(failover)
    for node in nodes:
        with pytest.raises(StreamLostError, match="is over"):
            await node.failback.settle(node.replica)


async def finished(node: Node) -> None:
    assert await node.failback._finished(node.replica)


async def test_one_carries_the_others_follow_and_what_changed_since_stays(nodes: tuple[Node, Node, Node]) -> None:
    a, b, c = nodes
    b.member.run("UPDATE t SET v = 'of b' WHERE id = 'x'")
    b.member.run("DELETE FROM t WHERE id = 'gone'")
    assert await b.send() == 2
    await c.fold()
    assert c.rows() == {"x": "of b"}, "siblings see each other"
    c.member.run("INSERT INTO t VALUES ('own', 'of c')")
    a.member.run("INSERT INTO t VALUES ('home', 'of a')")
    await a.send()
    assert a.rows()["x"] == "at first"
    await closed(b, c)
    await b.back()
    with pytest.raises(StreamError, match="node b publishes what it holds"):
        await c.back()
    await b.fold()
    assert await b.send() == 2, "what the failover changed, and nothing else"
    await finished(b)
    assert not await b.failovers.all(), "its streams are needed no more"
    await a.fold()
    a.member.run("UPDATE t SET v = 'newer' WHERE id = 'x'")
    await a.send()
    await c.back()
    assert c.rows() == {"x": "of b", "home": "of a", "own": "of c"}
    assert c.replica.count_pending() == 1, "only its own row is to be published"
    await c.fold()
    await c.send()
    for node in nodes:
        await node.fold()
        assert node.rows() == {"x": "newer", "home": "of a", "own": "of c"}
        assert not list(node.member.options.folder.glob("interim-*"))


async def test_a_carrier_that_is_silent_is_replaced_and_publishes_nothing_old_when_it_is_back(
    nodes: tuple[Node, Node, Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b, c = nodes
    b.member.run("UPDATE t SET v = 'of b' WHERE id = 'x'")
    await b.send()
    await c.fold()
    await closed(b, c)
    await b.back()
    c.answering = False
    with pytest.raises(StreamError, match="node b publishes"):
        await c.back()
    monkeypatch.setattr(failback, "SILENT", 0.0)
    await c.back()
    await c.fold()
    assert await c.send() == 1
    await finished(c)
    assert await b.failback.overtaken()
    assert not await c.failback.overtaken()
    await a.fold()
    assert a.rows()["x"] == "of b"


async def test_who_folded_more_than_the_carrier_brings_that_itself(nodes: tuple[Node, Node, Node]) -> None:
    a, b, c = nodes
    b.member.run("INSERT INTO t VALUES ('first', 'of b')")
    await b.send()
    end = await b.shard.end()
    b.member.run("INSERT INTO t VALUES ('late', 'of b')")
    await b.send()
    await c.fold()
    await closed(b, c)
    created = (await a.shard.info()).created
    record = FailbackClaim("z", {0: end}, {0: (created, await a.shard.end())})
    mark = (await b.failovers.all())[0].mark
    assert await b.pointers.set_pointer(f"interim-{mark}", msgspec.json.encode(record), revision=0)
    await c.back()
    await c.fold()
    assert await c.send() == 2
    await a.fold()
    assert a.rows().keys() == {"x", "gone", "first", "late"}


@pytest.mark.parametrize("carrier", ["its writer", "another node"])
async def test_what_was_on_its_way_home_at_the_cut_does_not_undo_what_the_failover_made_of_it(
    nodes: tuple[Node, Node, Node], carrier: str
) -> None:
    a, b, c = nodes
    failover, b.home.failover = b.home.failover, None
    b.member.run("INSERT INTO t VALUES ('flight', 'of b'), ('stays', 'of b')")
    b.member.run("UPDATE t SET v = 'of b' WHERE id = 'x'")
    assert await b.send(heard=False) == 3
    await a.fold()
    assert a.rows()["flight"] == "of b", "it got the primary region, and nobody in region b knows"
    b.home.failover = failover
    assert await b.send() == 3, "so it goes into the failover, too"
    await c.fold()
    c.member.run("DELETE FROM t WHERE id = 'flight'")
    c.member.run("UPDATE t SET v = 'at first' WHERE id = 'x'")
    await c.send()
    await b.fold()
    await closed(b, c)
    for node in (b, c) if carrier == "its writer" else (c, b):
        await node.back()
        await node.fold()
        await node.send()
        await finished(node)
    for node in nodes:
        await node.fold()
        assert node.rows() == {"x": "at first", "gone": "at first", "stays": "of b"}


async def test_what_home_ordered_before_the_failover_began_is_no_change_of_it(
    sides: tuple[Side, Side], group: Group
) -> None:
    for side in sides:
        await ensure_region_streams(side.link, replace(side.settings, shards=1), side.home)
    a, b = (Node(m, side) for m, side in zip(group.several(2, TABLE), sides, strict=True))
    a.member.run("INSERT INTO t VALUES ('x', 'at first')")
    await a.send()
    async with asyncio.timeout(PATIENCE):
        while (await b.failovers.copied())[0][1] < 1:  # noqa: ASYNC110 - another server tells
            await asyncio.sleep(0.05)
    await b.fold()
    a.member.run("UPDATE t SET v = 'second' WHERE id = 'x'")
    await a.send()
    async with asyncio.timeout(PATIENCE):
        while (await b.failovers.copied())[0][1] < 2:  # noqa: ASYNC110 - the same
            await asyncio.sleep(0.05)
    assert await b.failovers.make(beginning(await b.failovers.copied(), {})[0])
    await b.failback.settle(b.replica)
    assert b.failback.failed_over, "it enters although it has not folded all that the copy has"
    await b.fold()
    assert b.rows()["x"] == "second"
    a.member.run("UPDATE t SET v = 'third' WHERE id = 'x'")
    await a.send()
    await closed(b)
    await b.back()
    await b.fold()
    assert await b.send() == 0, "nothing happened in the failover"
    assert b.rows()["x"] == "third"
    for node in (a, b):
        await node.thread.aclose()


async def test_who_comes_late_does_not_bring_home_again_what_is_there_since_home_was_moved(
    sides: tuple[Side, Side], nodes: tuple[Node, Node, Node]
) -> None:
    a, b, c = nodes
    b.member.run("UPDATE t SET v = 'of b' WHERE id = 'x'")
    await b.send()
    await c.fold()
    await closed(b, c)
    await b.back()
    await b.fold()
    assert await b.send() == 1
    await finished(b)
    await a.fold()
    a.member.run("UPDATE t SET v = 'newer' WHERE id = 'x'")
    await a.send()
    await promote(sides[1].link, replace(sides[1].settings, shards=1, domain="b"), sides[1].home)
    await c.shard.info()  # as every start asks: so a node learns where the primary region is
    await c.back()
    await c.fold()
    assert await c.send() == 0
    for node in nodes:
        await node.fold()
        assert node.rows()["x"] == "newer"


async def test_values_that_were_overruled_between_siblings_stay_in_the_journal(nodes: tuple[Node, Node, Node]) -> None:
    _, b, c = nodes
    b.member.run("UPDATE t SET v = 'of b' WHERE id = 'x'")
    c.member.run("UPDATE t SET v = 'of c' WHERE id = 'x'")
    await b.send()
    await c.send()
    await b.fold()
    before = [conflict.overruled for conflict in b.replica.conflicts()]
    assert before == ["of b"]
    await closed(b, c)
    await b.back()
    assert [conflict.overruled for conflict in b.replica.conflicts()] == before
    await b.fold()
    await b.send()
    await finished(b)
    await c.back()
    assert [conflict.overruled for conflict in c.replica.conflicts()] == before


async def test_a_node_with_no_room_for_a_copy_of_its_mirror_stays_in_homes_order(
    sides: tuple[Side, Side], nodes: tuple[Node, Node, Node], monkeypatch: pytest.MonkeyPatch, group: Group
) -> None:
    late = Node(group.member(), sides[1])
    late.replica.set_created({0: (await nodes[0].shard.info()).created})

    def full(target: Path, **_: object) -> Lineage:
        raise OSError(28, "No space left on device", str(target))

    monkeypatch.setattr(late.failback, "_hooks", replace(late.failback._hooks, copy=full))
    await late.failback.settle(late.replica)
    assert late.home.failover is None
    assert not late.failback.failed_over
    assert not await late.failback.due(late.replica), "it is not asked again and again"
    await late.thread.aclose()


@pytest.mark.parametrize("carrier", ["its writer", "another node"])
@pytest.mark.parametrize("late", ["never", "before", "after"])
@pytest.mark.parametrize("flown", [False, True])
async def test_where_one_node_alone_wrote_there_is_no_conflict(
    nodes: tuple[Node, Node, Node], carrier: str, late: str, flown: bool
) -> None:
    """``flown``.

    What it sent at the cut came the primary region unheard; ``late``: when it writes more that it has not sent yet.
    """
    a, b, c = nodes
    b.member.run("UPDATE t SET v = 'one' WHERE id = 'x'")
    if flown:
        failover, b.home.failover = b.home.failover, None
        assert await b.send(heard=False) == 1
        b.home.failover = failover
        await a.fold()
    assert await b.send() == 1
    b.member.run("UPDATE t SET v = 'two' WHERE id = 'x'")
    await b.send()
    await c.fold()
    assert c.rows()["x"] == "two"
    if late == "before":
        b.member.run("UPDATE t SET v = 'three' WHERE id = 'x'")
    await closed(b, c)
    if late == "after":
        b.member.run("UPDATE t SET v = 'three' WHERE id = 'x'")
    for node in (b, c) if carrier == "its writer" else (c, b):
        await node.back()
        await node.fold()
        await node.send()
        await finished(node)
    for node in nodes:
        await node.fold()
    for node in nodes:
        assert node.rows()["x"] == ("two" if late == "never" else "three")
        found = [(x.overruled, x.winning, x.loser, x.winner, x.kind) for x in node.replica.conflicts()]
        assert found == [], f"{node.name} tells a conflict of one writer with itself"
