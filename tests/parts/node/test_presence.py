"""Heartbeats: a dead peer is seen by every node, a live one never counts as dead, and news are logged once."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harmonylite.nats.link import NatsLink
from harmonylite.nats.peers import NatsPeers
from harmonylite.node import presence
from harmonylite.node.presence import (
    MISSED,
    MOST_A_SECOND,
    MOST_PEERS,
    MOST_TWINS,
    NAMED,
    Heartbeat,
    Presence,
    decode,
)
from harmonylite.status import NodeStatus
from tests.parts.fix_nats import RealNats, eventually, quick

LEFT = MISSED * 3.0 + 0.1


def listening(node: str = "a") -> Presence:
    """Return the heartbeats of a connected node, not started: its clock is the test's."""
    status = NodeStatus(node_id=node)
    status.nats_connected = True
    return Presence(None, status, "s")  # type: ignore[arg-type] # it publishes nothing in these tests


def states(found: Presence) -> dict[str, str]:
    return {name: peer.state for name, peer in found._status.peers.items()}


def heartbeat(node: str, *, every: float = 3.0, leaving: bool = False) -> Heartbeat:
    return Heartbeat(node, "s", every, leaving)


def test_another_process_under_this_nodes_id_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    a = listening()
    for session in ("s", "other", "other"):
        a.receive(Heartbeat("a", session, 3.0, host="db-2"), 1.0)
    assert caplog.messages == ["found another process on host db-2 as node a; stop one of the two"]
    assert states(a) == {}


def test_made_up_processes_under_this_nodes_id_do_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    a = listening()
    for _ in range(2):
        for number in range(100):
            a.receive(Heartbeat("a", f"session {number}", 3.0), 1.0)
    assert len(caplog.messages) == MOST_TWINS


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    with caplog.at_level(logging.INFO, "harmonylite.node.presence"):
        yield caplog


def test_a_peer_that_goes_and_comes_back_is_logged_once_each(log: pytest.LogCaptureFixture) -> None:
    a = listening()
    a.poll(0.0)
    for node in ("b", "c"):
        a.receive(heartbeat(node), 1.0)
    a.poll(2.0)
    for now in range(3, 60):
        a.receive(heartbeat("b"), now)
        a.poll(now)
    assert states(a) == {"b": "up", "c": "silent"}
    a.receive(heartbeat("c"), 61.0)
    a.poll(62.0)
    assert states(a) == {"b": "up", "c": "up"}
    assert log.messages == [
        "peers are up: b, c",
        "peers are silent: c (last heartbeat 10 s ago)",
        "peers are back: c (silent for 60 s)",
    ]


def test_many_peers_that_go_together_are_one_line(log: pytest.LogCaptureFixture) -> None:
    a = listening()
    for number in range(20):
        a.receive(heartbeat(f"n{number:02}"), 1.0)
    a.poll(1.0)
    a.poll(1.0 + LEFT)
    assert len(log.messages) == 2
    assert all(f"n{number:02} (last heartbeat 9 s ago)" in log.messages[1] for number in range(20))


def test_however_many_heartbeats_come_between_two_looks_each_node_is_news_once(log: pytest.LogCaptureFixture) -> None:
    a = listening()
    for turn in range(200):
        for number in range(NAMED + 10):
            a.receive(heartbeat(f"n{number:02}", leaving=turn % 2 == 1), 1.0)
    assert sum(map(len, a._news.values())) == 2 * (NAMED + 10)
    a.poll(1.0)
    names = ", ".join(f"n{number:02}" for number in range(NAMED))
    assert log.messages == [f"peers are up: {names} and 10 more", f"peers stopped: {names} and 10 more"]


def test_an_outage_of_this_node_makes_no_peer_silent(log: pytest.LogCaptureFixture) -> None:
    a = listening()
    a.receive(heartbeat("b"), 1.0)
    a.poll(1.0)
    a._status.nats_connected = False
    a.poll(1000.0)
    assert states(a) == {"b": "unknown"}
    a._status.nats_connected = True
    a.poll(1001.0)
    assert states(a) == {"b": "unknown"}, "it has its time to be heard"
    a.receive(heartbeat("b"), 1002.0)
    a.poll(1003.0)
    assert log.messages == ["peers are up: b"]


def test_a_known_peer_that_is_never_heard_is_silent(log: pytest.LogCaptureFixture) -> None:
    a = listening()
    a.expect(["a", "b"])
    a.poll(0.0)
    a.poll(LEFT)
    assert states(a) == {"b": "silent"}
    assert log.messages == ["peers are silent: b (no heartbeat since this node's start)"]


def test_a_peer_that_stops_is_not_silent(log: pytest.LogCaptureFixture) -> None:
    a = listening()
    a.receive(heartbeat("b"), 1.0)
    a.poll(1.0)
    a.receive(heartbeat("b", leaving=True), 2.0)
    a.poll(1000.0)
    assert states(a) == {"b": "stopped"}
    a.receive(heartbeat("b"), 1001.0)
    a.poll(1002.0)
    assert log.messages == ["peers are up: b", "peers stopped: b", "peers are up: b"]


def test_a_forgotten_peer_is_gone_until_it_is_heard() -> None:
    a = listening()
    a.receive(heartbeat("b"), 0.0)
    a.forget("b")
    assert states(a) == {}
    a.receive(heartbeat("b"), 1.0)
    assert states(a) == {"b": "up"}


@given(st.lists(st.tuples(st.floats(0.1, 30.0), st.floats(0.0, 5.0)), max_size=20))
def test_a_peer_within_its_own_interval_never_counts_as_silent(beats: list[tuple[float, float]]) -> None:
    """Whatever interval a peer announces, it has three of them."""
    a, now = listening(), 1.0
    for every, late in beats:
        a.receive(heartbeat("b", every=every), now)
        now += min(every * 1.2 + late * every / 5, every * MISSED)
        a.poll(now)
        assert states(a) == {"b": "up"}


@pytest.mark.parametrize("nodes", [2, 3, 20, 200])
def test_a_node_hears_a_bounded_number_of_heartbeats(nodes: int) -> None:
    a = listening()
    for number in range(nodes - 1):
        a.receive(heartbeat(f"n{number}"), 0.0)
    assert nodes / a.every <= MOST_A_SECOND


def test_the_list_of_peers_is_bounded() -> None:
    a = listening()
    for number in range(MOST_PEERS + 50):
        a.receive(heartbeat(f"n{number}"), 0.0)
    assert len(a._status.peers) == MOST_PEERS


GOOD = msgspec.msgpack.encode(heartbeat("b"))


@given(
    st.binary(max_size=60)
    | st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)).map(
        lambda at: GOOD[: at[0]] + bytes([at[1]]) + GOOD[at[0] + 1 :]
    )
)
def test_no_bytes_make_a_heartbeat_raise(data: bytes) -> None:
    found = decode(data)
    if found is not None:
        a = listening()
        a.receive(found, 1.0)
        a.poll(2.0)
        assert a._status.report()["peers"] is not None


@pytest.mark.parametrize(
    "wrong",
    [
        {"node": ""},
        {"node": "x" * 300},
        {"every": 0.0},
        {"every": float("nan")},
        {"every": float("inf")},
        {"lag_messages": -1},
        {"lag_seconds": float("nan")},
        {"pending_rows": "many"},
        {"node": None},
    ],
)
def test_a_heartbeat_of_impossible_values_is_none(wrong: dict[str, object]) -> None:
    plain = msgspec.to_builtins(heartbeat("b"))
    assert decode(msgspec.msgpack.encode(plain)) is not None
    assert decode(msgspec.msgpack.encode(plain | wrong)) is None


def test_a_heartbeat_of_a_newer_version_is_understood() -> None:
    found = decode(msgspec.msgpack.encode(msgspec.to_builtins(heartbeat("b")) | {"moon": "full"}))
    assert found is not None
    assert found.node == "b"


async def test_nodes_hear_each_other_and_a_stop_over_nats(nats: RealNats, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presence, "LEAST_EVERY", 0.2)
    one, two = NodeStatus(node_id="a"), NodeStatus(node_id="b", version="7")
    async with NatsLink(quick(nats.url), one) as first, Presence(NatsPeers(first, "p"), one, "1"):
        async with NatsLink(quick(nats.url), two) as second, Presence(NatsPeers(second, "p"), two, "2"):
            await eventually(lambda: [*one.peers] == ["b"] and [*two.peers] == ["a"], "both are heard")
            assert (one.peers["b"].state, one.peers["b"].health.version) == ("up", "7")
            await nats.kill()
            await eventually(lambda: one.peers["b"].state == "unknown", "an outage says nothing about the peer")
            await nats.start()
            await eventually(lambda: one.peers["b"].state == "up", "it is heard again")
        await eventually(lambda: one.peers["b"].state == "stopped", "the peer announces its stop")


async def test_a_peer_whose_process_hangs_is_silent(nats: RealNats, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presence, "LEAST_EVERY", 0.2)
    one, two = NodeStatus(node_id="a"), NodeStatus(node_id="b")
    async with (
        NatsLink(quick(nats.url), one) as first,
        NatsLink(quick(nats.url), two) as second,
        Presence(NatsPeers(first, "p"), one, "1"),
        Presence(NatsPeers(second, "p"), two, "2") as peer,
    ):
        await eventually(lambda: [*one.peers] == ["b"], "it is heard")
        assert peer._task is not None
        peer._task.cancel()
        await eventually(lambda: one.peers["b"].state == "silent", "its silence is noticed")
