"""An external cluster of three nats-servers, three replicas of the stream: any one of them may die."""

from __future__ import annotations

import asyncio
import json

import nats
import pytest

from tests.cluster.fix_cluster import Site, start
from tests.cluster.processes import agree, until, until_equal
from tests.cluster.servers import NatsServer

pytestmark = pytest.mark.timeout(300)


def leader_of(server: NatsServer, stream: str) -> str:
    """Return the name of the server that leads ``stream``, "" when there is none."""

    async def ask() -> str:
        client = await nats.connect(server.url, allow_reconnect=False)
        try:
            answer = await client.request(f"$JS.API.STREAM.INFO.{stream}", b"", timeout=10)
        except (nats.errors.Error, TimeoutError):
            return ""
        finally:
            await client.close()
        return str(json.loads(answer.data).get("cluster", {}).get("leader", ""))

    return asyncio.run(ask())


def test_the_death_of_the_streams_leader_stops_nobody_for_long_and_loses_nothing(site: Site) -> None:
    servers = site.servers(3)
    urls = [server.url for server in servers]
    log = {"replication_log": {"replicas": 3}}
    nodes = [site.node(f"n{i}", urls=[urls[i], *urls[:i], *urls[i + 1 :]], sections=log) for i in range(3)]
    start(nodes)
    writers = {node.name: site.application(node) for node in nodes}
    for name, writer in writers.items():
        writer.load(name, pause=0.02)
    until(lambda: all(writer.committed > 20 for writer in writers.values()), "everybody writes")
    stream = f"{nodes[0].sections['nats']['stream_prefix']}-0"
    leader = until(lambda: leader_of(servers[0], stream), "the stream has a leader")
    victim = next(server for server in servers if server.name == leader)
    victim.kill()
    reached = {name: writer.committed for name, writer in writers.items()}

    def all_hear() -> bool:
        return all(
            (node.value("SELECT n FROM counters WHERE writer = ?", [name]) or 0) > n
            for node in nodes
            for name, n in reached.items()
        )

    until(all_hear, "everybody hears what was written after the leader died", 60)
    victim.start()
    committed = {name: writer.kill() for name, writer in writers.items()}
    content = until_equal(nodes)
    for name, n in committed.items():
        counted = next(c for writer, c in content["counters"] if writer == name)
        assert counted in (n, n + 1)
        assert sorted(i for _, w, i, _ in content["events"] if w == name) == list(range(1, counted + 1))
    for node in nodes:
        node.ready()
    agree(nodes)


def test_without_a_quorum_changes_queue_and_with_it_they_flow(site: Site) -> None:
    servers = site.servers(3)
    urls = [server.url for server in servers]
    log = {"replication_log": {"replicas": 3}}
    nodes = [site.node(name, urls=urls, sections=log) for name in ("a", "b")]
    start(nodes)
    for server in servers[1:]:
        server.kill()
    writer = site.application(nodes[0])
    for n in range(5):
        writer.write(("INSERT INTO events VALUES (?, 'a', ?, NULL)", [f"a{n}", n]))
    until(lambda: nodes[0].waits("changes queue"), "health tells that nothing gets through")
    assert nodes[0].get("/readyz")[0] == 503
    until(lambda: nodes[0].health()["pending_rows"] == 5, "what is written queues")
    for server in servers[1:]:
        server.start()
    assert len(until_equal(nodes)["events"]) == 5
    for node in nodes:
        node.ready()
