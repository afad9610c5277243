"""The change feed on NATS: events of real nodes, as a subscriber and a stream of the user's receive them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import nats
import pytest

from tests.parts.fix_nats import RealNats, eventually
from tests.parts.replication.fix_nodes import Running, write

DDL = "CREATE TABLE note(id INTEGER PRIMARY KEY, text TEXT, body BLOB)"
FEED = '[feed]\nsubject = "shop.changes"\nstream = "shop-events"\n'


class Events:
    """What a subscriber received. ``ids``: of the messages."""

    def __init__(self) -> None:
        self.subjects: list[str] = []
        self.ids: list[str] = []
        self.bodies: list[dict[str, Any]] = []

    async def take(self, message: Any) -> None:
        self.subjects.append(message.subject)
        self.ids.append(message.headers["Nats-Msg-Id"])
        self.bodies.append(json.loads(message.data))

    def of(self, table: str) -> list[tuple[str, Any, Any]]:
        return [(e["op"], e["before"], e["after"]) for e in self.bodies if e["source"]["table"] == table]


@asynccontextmanager
async def subscriber(url: str) -> AsyncIterator[Events]:
    client, events = await nats.connect(url), Events()
    await client.subscribe("shop.>", cb=events.take)
    await client.flush()
    try:
        yield events
    finally:
        await client.close()


def publishes(*nodes: Running) -> Callable[[], bool]:
    def ready() -> bool:
        found = [node.node._services.feed for node in nodes if node.node._services is not None]
        return any(feed is not None and feed._lease.held and bool(feed._done) for feed in found)

    return ready


def counted(node: Running, events: int) -> Callable[[], bool]:
    return lambda: node.node.status_object.counters.feed_events == events


async def test_each_changed_row_is_an_event_on_its_tables_subject(nats: RealNats, tmp_path: Path) -> None:
    node = Running(tmp_path, "here", nats.url, DDL, more=FEED)
    await node.start()
    await eventually(publishes(node), "the turn to publish")
    async with subscriber(nats.url) as events:
        write(node.database, "INSERT INTO note VALUES(1, 'a', x'00ff')")
        await eventually(lambda: len(events.bodies) == 1, "the insert")
        write(node.database, "UPDATE note SET text = 'b' WHERE id = 1")
        await eventually(lambda: len(events.bodies) == 2, "the update")
        write(node.database, "DELETE FROM note WHERE id = 1")
        await eventually(lambda: len(events.bodies) == 3, "the delete")
    first, second = ({"id": 1, "text": text, "body": {"blob": "00ff"}} for text in "ab")
    assert events.of("note") == [("c", None, first), ("u", first, second), ("d", second, None)]
    assert set(events.subjects) == {"shop.changes.note"}
    assert len(set(events.ids)) == 3
    source = events.bodies[0]["source"]
    assert (source["connector"], source["node"], source["db"]) == ("harmonylite", "here", "app.db")
    assert events.bodies[0]["key"] == {"id": 1}
    await eventually(counted(node, 3), "they are counted, once each is acknowledged")
    await node.stop()


async def test_one_of_several_nodes_publishes_and_the_next_continues(nats: RealNats, tmp_path: Path) -> None:
    one, two = (Running(tmp_path, name, nats.url, DDL, more=FEED) for name in ("one", "two"))
    await one.start()
    await eventually(publishes(one), "the turn to publish")
    await two.start()
    async with subscriber(nats.url) as events:
        write(two.database, "INSERT INTO note VALUES(1, 'a', NULL)")
        await eventually(lambda: len(events.bodies) == 1, "the event of the other node")
        await eventually(counted(one, 1), "it is acknowledged")
        await one.stop()
        write(two.database, "INSERT INTO note VALUES(2, 'b', NULL)")
        await eventually(lambda: len(events.bodies) == 2, "the event after the turn passed on")
        await eventually(counted(two, 1), "it is acknowledged")
        await two.stop()
    assert [event["key"]["id"] for event in events.bodies] == [1, 2]
    assert events.bodies[0]["source"]["node"] == "two"
    assert (one.node.status_object.counters.feed_events, two.node.status_object.counters.feed_events) == (1, 1)


async def test_what_is_published_again_after_a_crash_is_stored_once(nats: RealNats, tmp_path: Path) -> None:
    node = Running(tmp_path, "here", nats.url, DDL, more=FEED)
    await node.start()
    await eventually(publishes(node), "the turn to publish")
    feed = node.node._services.feed if node.node._services is not None else None
    assert feed is not None
    at = feed._done
    async with subscriber(nats.url) as events:
        write(node.database, "INSERT INTO note VALUES(1, 'a', NULL), (2, 'b', NULL)")
        await eventually(lambda: len(events.bodies) == 2, "the events")
        await eventually(lambda: feed._kept == feed._done != at, "the position")
        # as if the process had been killed before it kept the position
        await node.stop()
        await set_position(nats.url, at)
        await node.restart()
        await eventually(lambda: len(events.bodies) == 4, "the same events again")
        await node.stop()
    assert events.ids[:2] == events.ids[2:]
    assert await stored(nats.url) == 2


async def stored(url: str) -> int:
    client = await nats.connect(url)
    info = await client.jetstream().stream_info("shop-events")
    await client.close()
    return info.state.messages


async def test_without_a_stream_that_takes_them_events_wait_and_the_node_says_so(
    nats: RealNats, tmp_path: Path
) -> None:
    node = Running(tmp_path, "here", nats.url, DDL, more='[feed]\nsubject = "shop.changes"\n')
    await node.start()
    await eventually(publishes(node), "the turn to publish")
    write(node.database, "INSERT INTO note VALUES(1, 'a', NULL)")
    part = node.node.status_object.part("feed")
    await eventually(lambda: "no stream takes shop.changes.note" in part.reason, "the reason")
    await make_stream(nats.url)
    await eventually(lambda: node.node.status_object.counters.feed_events == 1, "the event")
    assert part.state == "ok"
    await node.stop()


async def make_stream(url: str) -> None:
    client = await nats.connect(url)
    await client.jetstream().add_stream(name="mine", subjects=["shop.changes.>"])
    await client.close()


async def test_an_event_that_no_message_can_hold_says_its_size(nats: RealNats, tmp_path: Path) -> None:
    node = Running(tmp_path, "here", nats.url, DDL, more=FEED)
    await node.start()
    await eventually(publishes(node), "the turn to publish")
    async with subscriber(nats.url) as events:
        write(node.database, "INSERT INTO note VALUES(1, 'a', zeroblob(5000000))")
        await eventually(lambda: bool(events.bodies), "the event")
        await node.stop()
    found = events.bodies[0]
    assert (found["op"], found["key"], found["after"]) == ("c", {"id": 1}, None)
    assert found["oversized"] > 10_000_000


async def test_a_position_that_is_gone_is_an_event_of_its_own(nats: RealNats, tmp_path: Path) -> None:
    node = Running(tmp_path, "here", nats.url, DDL, more=FEED)
    await node.start()
    await eventually(publishes(node), "the turn to publish")
    await node.stop()
    await set_position(nats.url, "0:5@00000000")
    async with subscriber(nats.url) as events:
        await node.restart()
        await eventually(lambda: bool(events.bodies), "the gap")
        await node.stop()
    assert events.bodies[0]["op"] == "m"
    assert "belongs to a stream that is gone" in events.bodies[0]["message"]["content"]
    assert events.subjects[0] == "shop.changes"


async def set_position(url: str, value: str) -> None:
    client = await nats.connect(url)
    await client.jetstream().publish("$KV.harmonylite-changes-pointers.feed-position", value.encode())
    await client.close()


@pytest.mark.parametrize("subject", ["harmonylite-change-log", "harmonylite-change-log.x"])
def test_a_subject_among_the_nodes_own_is_refused(tmp_path: Path, subject: str) -> None:
    from harmonylite.config import load
    from harmonylite.errors import ConfigError

    file = tmp_path / "n.toml"
    file.write_text(f'db_path = "{tmp_path}/app.db"\n[feed]\nsubject = "{subject}"\n')
    with pytest.raises(ConfigError, match=r"nats\.subject_prefix"):
        load(file)
