"""Streams that are lost, emptied, or short of their tail: the cluster continues by itself, and no row is lost."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import nats
import pytest

from tests.cluster.fix_cluster import Site, start
from tests.cluster.processes import Node, agree, until, until_equal
from tests.cluster.servers import NatsServer
from tests.cluster.writing import Application

pytestmark = pytest.mark.timeout(300)


def insert(name: str, n: int) -> tuple[str, list[object]]:
    return "INSERT INTO events VALUES (?, ?, ?, NULL)", [f"{name}-{n}", name, n]


def ids(node: Node) -> list[str]:
    return [str(i) for (i,) in node.rows("SELECT id FROM events ORDER BY id")]


def store_of(server: NatsServer) -> Path:
    return server.folder / server.name


def js(node: Node, what: str) -> None:
    """Send one request to the node's NATS server."""

    async def ask() -> None:
        client = await nats.connect(node.sections["nats"]["urls"][0])
        await client.request(what, b"", timeout=30)
        await client.close()

    asyncio.run(ask())


def b_knows_more(site: Site) -> tuple[NatsServer, list[Node], list[Application]]:
    """Return a server, two nodes that are down, and their writers: what b wrote last is in the order, a missed it."""
    server = site.server()
    nodes = [site.node(name, urls=[server.url]) for name in ("a", "b")]
    a, b = nodes
    start(nodes)
    writers = [site.application(node) for node in nodes]
    writers[0].write(insert("a", 1), insert("a", 2))
    until_equal(nodes)
    assert a.stop() == 0
    writers[1].write(
        insert("b", 1), "UPDATE events SET note = 'newer' WHERE id = 'a-1'", "DELETE FROM events WHERE n = 2"
    )
    b.sent()
    assert b.stop() == 0
    return server, nodes, writers


def test_a_lost_nats_disk_under_running_nodes_loses_nothing(site: Site) -> None:
    server = site.server()
    nodes = [site.node(name, urls=[server.url]) for name in ("a", "b")]
    start(nodes)
    writers = [site.application(node) for node in nodes]
    writers[0].write(insert("a", 1))
    writers[1].write(insert("b", 1), "UPDATE fought SET value = 'b' WHERE id = 1")
    until_equal(nodes)
    server.stop()
    writers[0].write(insert("a", 2), "DELETE FROM events WHERE id = 'b-1'")
    writers[1].write(insert("b", 2), "UPDATE fought SET last = 'b' WHERE id = 2")
    shutil.rmtree(store_of(server))
    server.start()
    until(lambda: all(ids(node) == ["a-1", "a-2", "b-2"] for node in nodes), "all rows are on both nodes")
    for node in nodes:
        node.ready()
    writers[0].write(insert("a", 3))
    writers[1].write(insert("b", 3))
    content = until_equal(nodes)
    assert len(content["events"]) == 5
    assert (1, "b", "") in content["fought"]
    assert (2, "at first", "b") in content["fought"]
    agree(nodes)


def test_a_lost_nats_disk_while_all_nodes_are_down_loses_nothing_whoever_starts_first(site: Site) -> None:
    server, nodes, writers = b_knows_more(site)
    a, b = nodes
    writers[0].write(insert("a", 3))
    writers[1].write(insert("b", 2))
    server.stop()
    shutil.rmtree(store_of(server))
    server.start()
    a.start()  # the one that knows less
    until(lambda: a.waits("recovery"), "a looks for a better one first")
    b.start()
    for node in nodes:
        node.ready()
    until(lambda: ids(a) == ["a-1", "a-3", "b-1", "b-2"], "what was deleted stays deleted, what was not sent is sent")
    content = until_equal(nodes)
    assert ids(a) == ["a-1", "a-3", "b-1", "b-2"]
    assert ("a-1", "a", 1, "newer") in content["events"]
    agree(nodes)


def test_a_node_that_missed_a_new_beginning_brings_its_rows(site: Site) -> None:
    """The one that knows most is away: the others begin without it, and it publishes what they lack."""
    server, nodes, writers = b_knows_more(site)
    a, b = nodes
    server.stop()
    shutil.rmtree(store_of(server))
    server.start()
    start([a])
    writers[0].write(insert("a", 3))
    a.sent()  # it continues alone
    start([b])
    until(lambda: ids(a) == ["a-1", "a-3", "b-1"], "what only b had is there, and what it deleted is gone")
    content = until_equal(nodes)
    assert ("a-1", "a", 1, "newer") in content["events"]
    agree(nodes)


def test_a_stream_that_lost_its_tail_gets_it_back_from_the_nodes(site: Site) -> None:
    server = site.server()
    nodes = [site.node(name, urls=[server.url]) for name in ("a", "b")]
    a, b = nodes
    start(nodes)
    writers = [site.application(node) for node in nodes]
    writers[0].write(insert("a", 1), insert("a", 2))
    until_equal(nodes)
    assert b.stop() == 0
    server.stop()
    shutil.copytree(store_of(server), site.folder / "backup")
    server.start()
    a.ready()
    writers[0].write(insert("a", 3), "UPDATE fought SET value = 'tail' WHERE id = 1", "DELETE FROM events WHERE n = 2")
    a.sent()  # the tail is in the order
    assert a.stop() == 0
    server.stop()
    shutil.rmtree(store_of(server))
    shutil.copytree(site.folder / "backup", store_of(server))
    server.start()
    start([b])
    writers[1].write(insert("b", 1), "UPDATE fought SET value = 'other' WHERE id = 2")
    b.sent()  # others use the numbers of the lost tail
    start([a])
    until(lambda: ids(b) == ["a-1", "a-3", "b-1"], "the lost tail is published again")
    content = until_equal(nodes)
    assert content["fought"][:2] == [(1, "tail", ""), (2, "other", "")]
    agree(nodes)


def test_a_stream_that_was_emptied_while_nodes_were_behind(site: Site) -> None:
    server = site.server()
    nodes = [site.node(name, urls=[server.url]) for name in ("a", "b")]
    a, b = nodes
    start(nodes)
    writers = [site.application(node) for node in nodes]
    writers[0].write(insert("a", 1))
    until_equal(nodes)
    assert b.stop() == 0
    writers[0].write(insert("a", 2))
    a.sent()
    assert a.stop() == 0
    writers[1].write(insert("b", 1))
    prefix = a.sections["nats"]["stream_prefix"]
    js(a, f"$JS.API.STREAM.PURGE.{prefix}-0")
    b.start()
    until(lambda: b.waits("forgotten"), "b says what it lacks")
    a.start()
    until(lambda: all(ids(node) == ["a-1", "a-2", "b-1"] for node in nodes), "both have all")
    agree(nodes)
