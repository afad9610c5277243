"""The cluster's list of nodes: kept by all, changed by compare-and-set, and never without a node that runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest

from harmonylite.errors import HarmonyLiteError, StreamError
from harmonylite.jetstream.object_store import JetStreamObjects
from harmonylite.jetstream.settings import StreamSettings
from harmonylite.nats.link import NatsLink
from harmonylite.nats.peers import NatsPeers
from harmonylite.node import registry
from harmonylite.node.claim import Claim, runs
from harmonylite.node.members import all_nodes, known_nodes, node_rows, refuse_to_forget
from harmonylite.node.registry import CODEC, KEY, MOST, ListedNode, NodeList, Registry, SchemaNote, _fitting, _without
from harmonylite.peer import NodeHealth, Peer
from harmonylite.status import NodeStatus
from tests.parts.fix_nats import RealNats, eventually


@dataclass
class Member:
    """One node's view of the list."""

    registry: Registry
    objects: JetStreamObjects
    forgot: list[str] = field(default_factory=list)


async def nobody(_: str) -> bool:
    return False


def member(link: NatsLink, node: str, place: str = "") -> Member:
    objects = JetStreamObjects(link, StreamSettings())
    forgot: list[str] = []
    entry = ListedNode(place or f"place of {node}", "host", "1.0")
    return Member(Registry(objects, NatsPeers(link, "p", node), node, entry, forgot.append), objects, forgot)


@pytest.fixture
async def serving(link: NatsLink) -> AsyncIterator[list[asyncio.Task[None]]]:
    tasks: list[asyncio.Task[None]] = []
    yield tasks
    for task in tasks:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_nodes_that_enrol_at_once_are_all_on_the_list(link: NatsLink) -> None:
    members = [member(link, f"n{i}") for i in range(12)]
    await asyncio.gather(*(each.registry.enrol(nobody) for each in members))
    roll = await members[0].registry.read()
    assert sorted(roll.nodes) == sorted(f"n{i}" for i in range(12))
    assert all(entry.seen > 0 and entry.version == "1.0" for entry in roll.nodes.values())


async def test_who_is_forgotten_is_so_for_all_until_it_is_back(
    link: NatsLink, serving: list[asyncio.Task[None]]
) -> None:
    a, b, c = (member(link, name) for name in "abc")
    serving.append(asyncio.create_task(b.registry.run(nobody)))
    for each in (a, c):
        await each.registry.enrol(nobody)
    await a.registry.forget("c")
    await eventually(lambda: b.forgot == ["c"], "b hears it")
    assert a.forgot == ["c"]
    roll = await b.registry.read()
    assert ("c" in roll.nodes, "c" in roll.forgotten) == (False, True)
    await c.registry.enrol(nobody)
    roll = await b.registry.read()
    assert ("c" in roll.nodes, "c" in roll.forgotten) == (True, False)


@pytest.mark.parametrize("alive", [False, True])
async def test_a_renamed_node_forgets_its_old_name_unless_somebody_else_has_it(link: NatsLink, alive: bool) -> None:
    async def answers(_: str) -> bool:
        return alive

    await member(link, "old", "here").registry.enrol(nobody)
    await member(link, "other").registry.enrol(nobody)
    new = member(link, "new", "here")
    await new.registry.enrol(answers)
    roll = await new.registry.read()
    assert ("old" in roll.nodes, "old" in roll.forgotten) == (alive, not alive)
    assert "other" in roll.nodes
    assert new.forgot == ([] if alive else ["old"])


@pytest.mark.parametrize("value", [b"", b"\xff", b"[]", b'{"nodes": 1}', b'{"nodes": {"a": {"seen": -1}}}'])
async def test_a_list_that_can_not_be_read_is_empty_and_replaced(link: NatsLink, value: bytes) -> None:
    a = member(link, "a")
    assert await a.objects.set_pointer(KEY, value, revision=0)
    assert await a.registry.read() == NodeList()
    await a.registry.enrol(nobody)
    assert list((await a.registry.read()).nodes) == ["a"]


async def test_a_node_that_runs_replaces_a_bad_list_at_once_and_logs_each_value_once(
    link: NatsLink, serving: list[asyncio.Task[None]], caplog: pytest.LogCaptureFixture
) -> None:
    a = member(link, "a")
    serving.append(asyncio.create_task(a.registry.run(nobody)))
    for number in (1, 2):
        spoilt = False
        async with asyncio.timeout(60):
            while not spoilt:  # the node may note once more that it is there
                roll, revision = await a.registry._read()
                spoilt = bool(roll.nodes) and await a.objects.set_pointer(KEY, b"\xff\xfe", revision=revision)
        await asyncio.gather(*(a.registry.read() for _ in range(5)))
        async with asyncio.timeout(60):
            while not (await a.registry.read()).nodes:
                pass
        assert sum("counts as absent" in message for message in caplog.messages) == number


SCHEMA = SchemaNote("ab12", "", 5.0, 3, 2, columns="0123456789abcdef")


def reading_every(seconds: float, link: NatsLink, monkeypatch: pytest.MonkeyPatch) -> list[Member]:
    """Return two members that read the list by themselves after so many seconds, and at once where one announces."""
    monkeypatch.setattr(registry, "REFRESH_SECONDS", seconds)
    monkeypatch.setattr(registry, "REFRESH_PAUSE", 0.01)
    return [member(link, name) for name in "ab"]


async def test_a_new_schema_reaches_every_node_that_runs_without_a_question(
    link: NatsLink, serving: list[asyncio.Task[None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = reading_every(3600.0, link, monkeypatch)
    serving += [asyncio.create_task(each.registry.run(nobody)) for each in (a, b)]
    await eventually(lambda: {"a", "b"} <= b.registry.last().nodes.keys(), "b knows a")
    for change in ("one", "two", "three"):
        a.registry.note(msgspec.structs.replace(SCHEMA, hash=change))
        await eventually(lambda: b.registry.last().nodes["a"].schema.hash == change, f"b has {change}")  # noqa: B023


async def test_what_was_announced_while_a_node_was_cut_off_reaches_it_once_it_is_back(
    link: NatsLink, nats: RealNats, serving: list[asyncio.Task[None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = reading_every(3600.0, link, monkeypatch)
    serving.append(asyncio.create_task(b.registry.run(nobody)))
    await eventually(lambda: "b" in b.registry.last().nodes and not b.registry._stale.is_set(), "b is listed")
    monkeypatch.setattr(a.registry._peers, "publish", never)
    a.registry.note(SCHEMA)
    await a.registry.enrol(nobody)
    assert "a" not in b.registry.last().nodes
    await nats.kill()
    await nats.start()
    await eventually(lambda: b.registry.last().nodes.get("a", ListedNode()).schema == SCHEMA, "b read it again")


async def test_a_change_that_an_older_version_does_not_announce_is_read_within_a_while(
    link: NatsLink, serving: list[asyncio.Task[None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = reading_every(0.05, link, monkeypatch)
    serving.append(asyncio.create_task(b.registry.run(nobody)))
    await eventually(lambda: "b" in b.registry.last().nodes, "b is listed")
    monkeypatch.setattr(a.registry._peers, "publish", never)
    a.registry.note(SCHEMA)
    await a.registry.enrol(nobody)
    await eventually(lambda: b.registry.last().nodes.get("a", ListedNode()).schema == SCHEMA, "b has it")


@pytest.mark.parametrize(
    ("nodes", "every", "pause"), [(0, 60.0, 1.0), (3, 60.0, 1.0), (300, 150.0, 6.0), (3000, 600.0, 60.0)]
)
def test_a_large_cluster_reads_its_long_list_less_often(nodes: int, every: float, pause: float) -> None:
    assert registry.paces(nodes) == (every, pause)


async def never(*_: object) -> None:
    """Announce nothing."""


async def test_while_nats_is_away_what_was_read_last_counts(link: NatsLink, nats: RealNats) -> None:
    a = member(link, "a")
    await a.registry.enrol(nobody)
    await nats.kill()
    assert list((await a.registry.read()).nodes) == ["a"]
    with pytest.raises(StreamError):
        await a.registry.forget("b")
    await nats.start()
    await eventually(lambda: link.connected, "the connection is back")


async def test_no_node_is_expected_before_it_is_known_who_is_forgotten(
    link: NatsLink, nats: RealNats, serving: list[asyncio.Task[None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "READ_SECONDS", 0.1)
    monkeypatch.setattr(registry, "REFRESH_PAUSE", 0.01)
    a, b = member(link, "a"), member(link, "b")
    await a.registry.enrol(nobody)
    await a.registry.forget("c")
    expected: list[bool] = []

    async def expect() -> None:
        expected.append("c" in b.registry.last().forgotten)

    await nats.freeze()
    serving.append(asyncio.create_task(b.registry.run(nobody, expect)))
    await asyncio.sleep(0.5)  # not a wait: the list is asked for in vain
    assert not expected
    nats.thaw()
    await eventually(lambda: bool(expected), "the list is read")
    assert expected == [True]


async def test_a_node_that_runs_is_told_from_one_that_does_not(link: NatsLink) -> None:
    peers = NatsPeers(link, "p", "a")
    claim = Claim(peers, "a", "session", Path("/db"))
    assert not await runs(peers, "a")
    await claim.open()
    await eventually(lambda: link.connected)
    async with asyncio.timeout(30):
        while not await runs(peers, "a"):  # noqa: ASYNC110 -- NATS has no event for a subscription
            await asyncio.sleep(0.01)
    await claim.aclose()


def test_the_list_is_bounded_and_the_oldest_go() -> None:
    roll = NodeList({}, {f"n{i}": float(i) for i in range(MOST)})
    shorter = _fitting(_without(roll, ["newest"]))
    assert len(shorter.forgotten) == MOST
    assert "n0" not in shorter.forgotten
    assert "newest" in shorter.forgotten
    assert CODEC.decode(CODEC.encode(shorter)) == shorter


FULL = {
    "as many as there may be, from the future": NodeList(
        {f"n{i}": ListedNode(seen=4e9) for i in range(MOST)}, {f"f{i}": 4e9 for i in range(MOST)}
    ),
    "as many bytes as are read": NodeList({f"n{i}": ListedNode("x" * 1000, seen=4e9) for i in range(900)}),
    "as many bytes of forgotten ones": NodeList({}, {f"{'f' * 120}{i}": 4e9 for i in range(MOST)}),
}


@pytest.mark.parametrize("full", FULL.values(), ids=FULL)
async def test_a_node_that_runs_gets_onto_a_list_that_is_full(link: NatsLink, full: NodeList) -> None:
    a, value = member(link, "a"), CODEC.encode(full)
    assert CODEC.decode(value) == full
    assert await a.objects.set_pointer(KEY, value, revision=0)
    for _ in range(2):
        await a.registry.enrol(nobody)
        assert "a" in (await member(link, "b").registry.read()).nodes
    await a.registry.forget("n0")
    assert "n0" in (await member(link, "b").registry.read()).forgotten


def status_with(**states: str) -> NodeStatus:
    status = NodeStatus(node_id="me", version="2.0")
    for name, state in states.items():
        heard = 0.0 if state == "unknown" else 5.0
        health = NodeHealth(version="1.9", host="h")
        status.peers[name] = Peer(name, state, heard, 1000.0 if heard else 0.0, health=health)  # type: ignore[arg-type]
    return status


def test_ghosts_take_no_part_and_those_that_are_heard_do() -> None:
    roll = NodeList({"listed": ListedNode(seen=1.0)}, {"ghost": 1.0, "back": 1.0})
    status = status_with(back="up", silent="silent", ghost="silent")
    known = known_nodes(["ghost", "writer", "back"], roll, status)
    assert known == {"writer", "back", "me"}
    assert all_nodes(known, roll, status) == {"writer", "back", "me", "listed", "silent"}


def test_a_row_says_what_is_known_of_a_node() -> None:
    status = status_with(up="up", quiet="unknown")
    roll = NodeList({"up": ListedNode(seen=10.0), "quiet": ListedNode("", "q", "1.0", 20.0, SCHEMA)})
    rows = {row["node_id"]: row for row in node_rows(["me", "up", "quiet", "strange"], roll, status)}
    assert (rows["me"]["state"], rows["me"]["version"], rows["me"]["lag_messages"]) == ("this node", "2.0", 0)
    assert (rows["up"]["state"], rows["up"]["last_seen"], rows["up"]["version"]) == ("up", 1000.0, "1.9")
    assert (rows["quiet"]["last_seen"], rows["quiet"]["host"], rows["quiet"]["lag_messages"]) == (20.0, "q", None)
    assert {name: row["schema"] for name, row in rows.items()} == {
        "me": "",
        "up": "",
        "quiet": "01234567",
        "strange": "",
    }
    assert (rows["strange"]["state"], rows["strange"]["last_seen"]) == ("unknown", 0.0)


@pytest.mark.parametrize(
    ("node", "told"),
    [("me", "is this node"), ("nobody", "known are gone, me, odd, up"), ("up", "answers"), ("odd", "answers")],
)
def test_only_a_listed_node_that_does_not_answer_is_forgotten(node: str, told: str) -> None:
    reports: list[dict[str, Any]] = [
        {"node_id": "me", "status": "healthy"},
        {"node_id": "up", "status": "unhealthy"},
        {"node_id": "gone", "status": "unknown"},
        {"node_id": "odd", "status": "unknown", "waits": ["unreadable"]},
    ]
    listed = {"me", "up", "gone", "odd"}
    with pytest.raises(HarmonyLiteError, match=told):
        refuse_to_forget(node, listed, reports, "me")
    refuse_to_forget("gone", listed, reports, "me")
