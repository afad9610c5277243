"""When a snapshot is due: for the holder of the lease, for anybody, and for nobody."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from harmonylite.changes.histories import Standing
from harmonylite.jetstream import JetStreamObjects, NatsLink, StreamSettings
from harmonylite.model import Position
from harmonylite.snapshots.keeper import Keeper
from harmonylite.snapshots.lease import Lease
from harmonylite.snapshots.saving import Saver
from harmonylite.status import NodeStatus
from tests.parts.fix_nats import eventually


class Place:
    """A saver on a real NATS over a mirror that only says where it stands."""

    def __init__(self, link: NatsLink, folder: Path, node: str) -> None:
        self.status = NodeStatus(node_id=node)
        self.status.caught_up = True
        self.at(0)
        objects = JetStreamObjects(link, StreamSettings())
        self.keeper = Keeper(objects, objects, folder, node, "c", self.status, keep=3, copy=self._copy)
        self.lease = Lease(objects, node, "s", seconds=30.0)
        self.saver = Saver(self.keeper, self.lease, self.status, max_entries=90, interval=0.0, history=lambda: "")

    def at(self, seq: int) -> None:
        self.status.shard(0).position = seq

    def _copy(self, target: Path, *, beginning: object = None) -> Standing:
        seq = self.status.shard(0).position
        target.write_bytes(b"a mirror")
        return Standing("", {0: Position(0, seq, seq + 1, "then")})

    async def look(self) -> int:
        """Look once; return where the newest snapshot stands."""
        self.saver._asked = float("-inf")
        await self.saver._look()
        newest = await self.keeper.newest()
        return -1 if newest is None else newest.positions[0]


@pytest.fixture
def holder(link: NatsLink, tmp_path: Path) -> Place:
    return Place(link, tmp_path, "a")


@pytest.fixture
def other(link: NatsLink, tmp_path: Path) -> Place:
    return Place(link, tmp_path, "b")


async def test_the_holder_saves_at_a_third_and_anybody_at_a_half(holder: Place, other: Place) -> None:
    assert await holder.look() == 0, "there is none: whoever comes first saves one"
    assert holder.lease.held
    holder.at(29)
    assert await holder.look() == 0
    holder.at(30)
    other.at(30)
    assert await other.look() == 0, "the others leave it to the holder"
    assert await holder.look() == 30
    other.at(75)
    assert await other.look() == 75, "the holder is slow: anybody does it"


async def test_a_node_that_has_not_caught_up_saves_nothing(holder: Place) -> None:
    holder.status.caught_up = False
    assert await holder.look() == -1


async def test_it_says_what_keeps_it_and_gives_the_lease_back_when_it_ends(holder: Place, other: Place) -> None:
    running = asyncio.create_task(holder.saver.run())
    await eventually(lambda: holder.lease.held and holder.saver.newest is not None, "a snapshot and the lease")
    running.cancel()
    await asyncio.wait({running})
    assert await other.lease.renew(), "it need not be waited for"
