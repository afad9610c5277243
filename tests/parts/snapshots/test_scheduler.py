"""When a snapshot is due: for the holder of the lease, for anybody, and for nobody."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from harmonylite.changes.epochs import Lineage
from harmonylite.jetstream.object_store import JetStreamObjects
from harmonylite.jetstream.settings import StreamSettings
from harmonylite.model import Position
from harmonylite.nats.link import NatsLink
from harmonylite.nats.peers import NatsPeers
from harmonylite.snapshots import scheduler
from harmonylite.snapshots.lease import Lease
from harmonylite.snapshots.repository import RepositorySettings, SnapshotRepository
from harmonylite.snapshots.scheduler import SnapshotScheduler
from harmonylite.status import NodeStatus
from tests.fix_clock import Clock, run
from tests.parts.fix_nats import eventually

HOUR = 3600.0


class Place:
    """A saver on a real NATS over a mirror that only says at which position it is."""

    def __init__(self, link: NatsLink, folder: Path, node: str) -> None:
        self.status = NodeStatus(node_id=node)
        self.status.caught_up = True
        self.history, self.past = "", tuple[str, ...]()
        self.at(0)
        objects = JetStreamObjects(link, StreamSettings())
        self.repository = SnapshotRepository(
            objects, objects, RepositorySettings(folder, node, "c", keep=3), self.status, copy=self._copy
        )
        self.lease = Lease(objects, node, "s", seconds=30.0)
        self.scheduler = SnapshotScheduler(
            self.repository,
            self.lease,
            NatsPeers(link, "c"),
            self.status,
            interval=0.0,
            history=lambda: self.history,
            past=lambda: self.past,
        )

    def at(self, seq: int) -> None:
        shard = self.status.shard(0)
        shard.position, shard.resume, shard.most = seq, seq + 1, 90

    def _copy(self, target: Path, *, beginning: object = None) -> Lineage:
        seq = self.status.shard(0).position
        target.write_bytes(b"a mirror")
        return Lineage(self.history, {0: Position(0, seq, seq + 1, "then")}, {name: {} for name in self.past})

    async def poll(self) -> int:
        """Poll once; return where the newest snapshot stands."""
        self.scheduler._asked = float("-inf")
        await self.scheduler._poll()
        newest = await self.repository.newest()
        return -1 if newest is None else newest.positions[0]


@pytest.fixture
def holder(link: NatsLink, tmp_path: Path) -> Place:
    return Place(link, tmp_path, "a")


@pytest.fixture
def other(link: NatsLink, tmp_path: Path) -> Place:
    return Place(link, tmp_path, "b")


async def test_the_holder_saves_at_a_third_and_anybody_at_a_half(holder: Place, other: Place) -> None:
    assert await holder.poll() == 0, "there is none: anyone who comes first saves one"
    assert holder.lease.held
    holder.at(29)
    assert await holder.poll() == 0
    holder.at(30)
    other.at(30)
    assert await other.poll() == 0, "the others leave it to the holder"
    assert await holder.poll() == 30
    other.at(75)
    assert await other.poll() == 75, "the holder is slow: anybody does it"


async def test_a_node_that_has_not_caught_up_saves_nothing(holder: Place) -> None:
    holder.status.caught_up = False
    assert await holder.poll() == -1


async def test_a_wanted_snapshot_is_saved_by_the_holder_and_by_whoever_wants_it_when_the_holder_does_not(
    holder: Place, other: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler, "PATIENCE", HOUR)
    await holder.poll()
    serving = asyncio.create_task(holder.scheduler.serve())
    for place in (holder, other):
        place.at(5)
    assert (await holder.poll(), await other.poll()) == (0, 0)
    await asyncio.sleep(0)  # the holder listens
    other.scheduler.want()
    assert await other.poll() == 0, "the holder is asked"
    await eventually(holder.scheduler._wanted.is_set, "the holder hears of it")
    assert await holder.poll() == 5
    serving.cancel()
    other.at(6)
    other.scheduler.want()
    assert await other.poll() == 5
    other.scheduler._wanted_first -= HOUR
    other.scheduler.want()
    assert await other.poll() == 6, "the holder does not hear"
    other.scheduler.want()
    saved = other.status.counters.snapshots_saved
    await other.poll()
    assert other.status.counters.snapshots_saved == saved, "another one would be the same"


async def test_a_change_set_under_way_is_no_reason_to_save_the_same_again_and_counts_once_it_is_whole(
    holder: Place,
) -> None:
    assert await holder.poll() == 0
    holder.at(80)
    shard = holder.status.shard(0)
    shard.resume = 1
    assert await holder.poll() == 0, "what a new node needs would not be less"
    shard.resume = 81
    assert await holder.poll() == 80
    holder.at(82)
    shard.first = 82
    assert await holder.poll() == 82, "the stream forgot what the newest needs, for whatever reason"


async def test_a_pointer_into_the_past_is_set_forward(holder: Place) -> None:
    """NATS may forget in a power cut that the pointer continued to another history."""
    assert await holder.poll() == 0
    holder.history, holder.past = "new", ("",)
    holder.at(3)
    assert await holder.poll() == 3
    holder.history, holder.past = "one that nobody knows", ()
    holder.at(4)
    assert await holder.poll() == 3, "that one is taken up, not overruled"


async def test_a_node_with_another_store_saves_a_snapshot_there_by_itself(
    holder: Place, link: NatsLink, tmp_path: Path
) -> None:
    holder.at(5)
    assert await holder.poll() == 5
    saved = holder.status.counters.snapshots_saved
    assert await holder.poll() == 5
    assert holder.status.counters.snapshots_saved == saved
    new = Place(link, tmp_path, "a")
    new.at(5)
    new.repository._store = new.repository.catalog._store = JetStreamObjects(link, StreamSettings(), bucket="another")
    await new.poll()
    assert new.status.counters.snapshots_saved == 1
    assert [snapshot.positions for snapshot in await new.repository.catalog.listed()] == [{0: 5}]
    assert new.repository.damaged == set()


async def test_it_says_what_keeps_it_and_gives_the_lease_back_when_it_ends(holder: Place, other: Place) -> None:
    running = asyncio.create_task(holder.scheduler.run())
    await eventually(lambda: holder.lease.held and holder.scheduler.newest is not None, "a snapshot and the lease")
    running.cancel()
    await asyncio.wait({running})
    assert await other.lease.renew(), "it need not be waited for"


class Unheld:
    """The lease of a node that never took it."""

    async def release(self) -> None:
        """Return at once: there is nothing to give back."""


def test_a_wish_that_can_not_be_met_now_costs_one_poll(clock: Clock) -> None:
    polls = list[float]()

    def away() -> bool:
        polls.append(clock.now)
        return True

    async def wished() -> None:
        nothing: Any = Unheld()
        waits = SnapshotScheduler(
            nothing, nothing, nothing, NodeStatus(), interval=0.0, history=str, past=tuple, away=away
        )
        running = asyncio.create_task(waits.run())
        await clock.passes(0.0)
        waits.want()
        await clock.passes(10.0)
        running.cancel()
        await asyncio.wait({running})

    run(clock, wished())
    assert len(polls) == 11, "one for the wish, one each second"
