"""A node asks for a snapshot: one node saves one, what did not help is not asked for again, another store is named."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from harmonylite.changes.epochs import Lineage
from harmonylite.errors import SnapshotError
from harmonylite.jetstream.object_store import JetStreamObjects
from harmonylite.jetstream.settings import StreamSettings
from harmonylite.model import Position
from harmonylite.nats.link import NatsLink
from harmonylite.nats.peers import NatsPeers
from harmonylite.snapshots.lease import Lease
from harmonylite.snapshots.repository import RepositorySettings, SnapshotRepository
from harmonylite.snapshots.requests import (
    LONGEST,
    PAUSE,
    REQUEST,
    TOPIC,
    Answering,
    NoUse,
    Reply,
    Request,
    Requests,
    ask_nodes,
    who_has,
)
from harmonylite.snapshots.scheduler import SnapshotScheduler
from harmonylite.status import NodeStatus
from harmonylite.stores.directory import DirectoryStore
from tests.parts.fix_nats import PATIENCE, eventually

HERE = b"here"
IS_THERE = Request("?", "")


class Member:
    """What of a node asks for and saves snapshots. ``store``: the folder that its configuration names."""

    def __init__(self, link: NatsLink, folder: Path, name: str, store: Path) -> None:
        self.status = NodeStatus(node_id=name)
        self.status.caught_up = True
        self.now = 0.0
        work = folder / name
        work.mkdir()
        objects = JetStreamObjects(link, StreamSettings())
        store.mkdir(exist_ok=True)
        self.repository = SnapshotRepository(
            DirectoryStore(store, owner=name),
            objects,
            RepositorySettings(work, name, "c", 0),
            self.status,
            copy=self._copy,
        )
        self.lease = Lease(objects, name, "s", seconds=30.0)
        self.peers = NatsPeers(link, "c")
        self.answering = Answering(self.repository, self.lease, self.status, clock=lambda: self.now)
        self.requests = Requests(
            self.status, lambda: self.peers, lambda: self.repository, lambda: self.lease, clock=lambda: self.now
        )

    @staticmethod
    def _copy(target: Path, *, beginning: object = None) -> Lineage:
        target.write_bytes(b"a mirror")
        return Lineage("h", {0: Position(0, 1, 2, "then")})

    async def answer(self, request: Request) -> bytes | None:
        return HERE if request.node == "?" else await self.answering.answer(request)

    @property
    def saved(self) -> int:
        return self.status.counters.snapshots_saved

    async def no_use(self) -> None:
        """Find that the newest snapshot is of no use, and ask for another, as a node that joins does."""
        newest = await self.repository.newest()
        if newest is not None:
            await self.repository.check(newest)
        assert await self.requests.request_snapshot()


Cluster = Callable[..., Awaitable[list[Member]]]


@pytest.fixture
async def cluster(link: NatsLink, tmp_path: Path) -> AsyncIterator[Cluster]:
    """Make members that answer, the first with the lease and a snapshot; each given as name and folder."""
    async with AsyncExitStack() as stack:

        async def made(*members: tuple[str, str]) -> list[Member]:
            found = [Member(link, tmp_path, name, tmp_path / store) for name, store in members]
            assert await found[0].lease.renew()
            await found[0].repository.save()
            for member in found:
                stack.callback(asyncio.create_task(member.peers.serve(TOPIC, REQUEST.decode, member.answer)).cancel)
            there = 0
            while there < len(found):
                asked = REQUEST.encode(IS_THERE)
                heard = await found[0].peers.ask(TOPIC, asked, bytes, seconds=0.2, expect=len(found))
                there = len(heard.answers)
            return found

        yield made


async def test_the_holder_of_the_lease_alone_saves_one_and_the_others_none(cluster: Cluster) -> None:
    holder, second, third, joining = await cluster(("a", "store"), ("b", "store"), ("c", "store"), ("j", "store"))
    await joining.no_use()
    assert (holder.saved, second.saved, third.saved) == (2, 0, 0)
    newest = await joining.repository.newest()
    assert newest is not None
    assert newest.node == "a"


async def test_what_did_not_help_is_not_asked_for_again_and_nothing_is_saved_for_whoever_does(cluster: Cluster) -> None:
    holder, joining = await cluster(("a", "store"), ("j", "store"))
    for _ in range(5):
        await joining.no_use()
    assert holder.saved == 2, "the first one, and one for the request"
    newest = await joining.repository.newest()
    assert newest is not None
    stubborn = Request("j", "elsewhere", newest.name)
    for _ in range(5):
        assert await holder.answering._reply(stubborn) == Reply("a", holder.repository.catalog.place)
    assert holder.saved == 2
    joining.now = holder.now = PAUSE + 1
    await joining.no_use()
    assert holder.saved == 3, "much later something may have changed"


async def test_a_node_that_asks_while_a_newer_one_is_there_gets_that_one(cluster: Cluster) -> None:
    holder, joining = await cluster(("a", "store"), ("j", "store"))
    old = await holder.repository.newest()
    new = await holder.repository.save()
    assert old is not None
    assert new is not None
    assert await holder.answering._reply(Request("j", "", old.name)) == Reply(
        "a", holder.repository.catalog.place, new.name
    )
    assert (holder.saved, joining.saved) == (2, 0)


async def test_a_node_with_another_store_is_named_on_both_sides_and_nobody_saves(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    holder, second, joining = await cluster(("a", "store"), ("b", "store"), ("j", "another"))
    for _ in range(5):
        await joining.no_use()
    assert (holder.saved, second.saved) == (1, 0)
    part = joining.status.part("snapshots")
    assert part.state == "failed"
    assert "is not in this node's store, the directory" in part.reason
    assert "another" in part.reason
    assert "set [snapshot] of this node as there" in part.reason
    named = [r.getMessage() for r in caplog.records if "found another store in" in r.getMessage()]
    assert named
    assert all("found another store in [snapshot] of node j: " in line for line in named)
    assert len(named) <= 2, "once on each node that has it"


async def test_a_running_node_whose_store_is_another_one_leaves_the_saving_to_the_others(cluster: Cluster) -> None:
    holder, strange = await cluster(("a", "store"), ("s", "another"))
    scheduler = SnapshotScheduler(
        strange.repository, strange.lease, strange.peers, strange.status, interval=0.0, history=lambda: "h", past=tuple
    )
    shard = strange.status.shard(0)
    shard.position, shard.resume, shard.most = 80, 81, 90
    for _ in range(3):
        scheduler._asked = float("-inf")
        await scheduler._poll()
    assert strange.saved == 0
    assert "is not in this node's store" in strange.status.part("snapshots").reason
    await holder.lease.release()
    await scheduler._poll()
    assert not strange.lease.held, "what it saved there, nobody else would find"
    scheduler._asked = float("-inf")
    for path in (holder.repository._store._folder).iterdir():  # type: ignore[attr-defined]
        (strange.repository._store._folder / path.name).write_bytes(path.read_bytes())  # type: ignore[attr-defined]
    await scheduler._poll()
    assert strange.status.part("snapshots").state == "ok", "its store has the newest one by now"
    assert strange.saved == 1


@pytest.mark.parametrize("lease", ["free", "held by this node's process before", "of another node"])
async def test_somebody_answers_the_first_time_unless_another_node_holds_the_lease(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, lease: str
) -> None:
    monkeypatch.setattr("harmonylite.snapshots.requests.SAVE", 2.0 if lease == "of another node" else PATIENCE)
    first, second, joining = await cluster(("a", "store"), ("b", "store"), ("j", "store"))
    await first.lease.release()
    if lease == "held by this node's process before":
        assert await Lease(joining.lease._pointers, "j", "before", seconds=30.0).renew()
    elif lease == "of another node":
        assert await Lease(joining.lease._pointers, "gone", "s", seconds=30.0).renew()
        assert not await joining.requests.request_snapshot(), "it may answer yet"
        assert first.saved + second.saved == 1
    newest = await joining.repository.newest()
    assert newest is not None
    assert await joining.requests.request_snapshot()
    assert 2 <= first.saved + second.saved <= 3, "both may have begun before one was through"


async def test_only_nodes_that_are_named_save_and_they_do_so_at_once(cluster: Cluster) -> None:
    holder, second, asking = await cluster(("a", "store"), ("b", "store"), ("j", "store"))
    names = await ask_nodes(asking.peers, ["b"], me="j")
    assert (len(names), holder.saved, second.saved) == (1, 1, 1)


async def test_who_has_one_saves_nothing(cluster: Cluster) -> None:
    holder, asking = await cluster(("a", "store"), ("j", "another"))
    newest = await holder.repository.newest()
    assert newest is not None
    found = await who_has(asking.peers, asking.repository, newest.name, me="j")
    assert found == Reply("a", holder.repository.catalog.place, has=True)
    assert await who_has(asking.peers, asking.repository, "snapshot-1-nowhere", me="j") is None
    assert (holder.saved, asking.saved) == (1, 0)


async def test_a_store_out_of_reach_is_no_answer(cluster: Cluster, tmp_path: Path) -> None:
    holder, asking = await cluster(("a", "store"), ("j", "another"))
    (tmp_path / "store").rename(tmp_path / "away")
    newest = await holder.repository.newest()
    assert newest is not None
    with pytest.raises(SnapshotError):
        await holder.repository.catalog.has(newest.name)
    assert await holder.answering.answer(Request("j", "", "x", missing=True)) is None
    assert await who_has(asking.peers, asking.repository, newest.name, me="j") is None


def test_the_pause_grows_while_nothing_helps_and_begins_again_with_another_one() -> None:
    no_use, now, pauses = NoUse(), 0.0, []
    assert not no_use.holds("a", now)
    for _ in range(10):
        no_use.note("a", now)
        until = now
        while no_use.holds("a", until):
            until += 1.0
        pauses.append(until - now)
        now = until
    assert pauses[:3] == [PAUSE, 2 * PAUSE, 4 * PAUSE]
    assert pauses[-1] == LONGEST
    assert not no_use.holds("b", now)
    no_use.note("b", now)
    assert no_use.holds("b", now + PAUSE - 1)
    assert not no_use.holds("b", now + PAUSE)


async def test_answers_come_only_from_nodes_that_have_caught_up(cluster: Cluster) -> None:
    (holder,) = await cluster(("a", "store"))
    question = Request("j", "", "x")
    holder.status.caught_up = False
    assert await holder.answering.answer(question) is None
    holder.status.caught_up = True
    assert await holder.answering.answer(question) is not None
    await eventually(lambda: holder.saved == 1, "what is there was offered")
