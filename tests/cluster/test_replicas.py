"""Without a word on replicas a cluster survives the loss of any one server: three of them make three replicas."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import nats
import pytest

from tests.cluster.fix_cluster import Site
from tests.cluster.processes import Node, until, until_equal

pytestmark = pytest.mark.timeout(300)

STREAMS = ("harmonylite-changes-0", "KV_harmonylite-changes-pointers", "OBJ_harmonylite-changes-snapshots")


def unset(nodes: Sequence[Node]) -> list[Node]:
    """Take replicas out of the configuration of ``nodes``."""
    for node in nodes:
        del node.sections["replication_log"]["replicas"]
    return list(nodes)


def info(node: Node, stream: str) -> dict[str, Any]:
    """Return what the node's embedded server says of a stream, {} when it can't."""
    folder = node.folder / "nats" / node.name

    async def ask() -> bytes:
        user = json.loads((folder / "client-auth.json").read_text())
        (ports,) = [json.loads(path.read_text()) for path in folder.glob("*.ports")]
        url, login = ports["nats"][0], {"user": user["user"], "password": user["password"]}
        client = await nats.connect(url, allow_reconnect=False, **login)
        try:
            return bytes((await client.request(f"$JS.API.STREAM.INFO.{stream}", b"", timeout=5)).data)
        finally:
            await client.close()

    try:
        return dict(json.loads(asyncio.run(ask())))
    except (OSError, ValueError, nats.errors.Error):  # also of a file that is being written
        return {}


def replicas(node: Node) -> list[int]:
    """Return on how many servers each stream is kept and up to date."""
    found = [info(node, stream) for stream in STREAMS]
    return [
        min(
            each["config"]["num_replicas"], 1 + sum(r["current"] for r in each.get("cluster", {}).get("replicas") or ())
        )
        for each in found
        if "config" in each
    ]


@pytest.mark.slow
def test_servers_that_join_one_by_one_make_three_replicas_and_any_of_them_may_die(site: Site) -> None:
    nodes = unset(site.embedded(3, replicas=0))
    nodes[0].start()
    until(lambda: nodes[0].waits("not reached: "), "one of three waits")
    nodes[1].start()
    for node in nodes[:2]:
        node.ready()
    writer = site.application(nodes[0])
    writer.write("INSERT INTO events VALUES ('of two', 'node1', 1, NULL)")
    until_equal(nodes[:2])
    until(lambda: replicas(nodes[0]) == [2, 2, 2], "as many replicas as servers")
    nodes[2].start()
    until(lambda: replicas(nodes[0]) == [3, 3, 3], "a server that joins gets its replica")
    raised = "to 3 replicas (2 before)"
    until(lambda: any(raised in node.log.read_text() for node in nodes), "the one that raised them logs it")
    nodes[2].ready()
    for number, victim in enumerate(nodes):
        others = [node for node in nodes if node is not victim]
        victim.kill()
        site.application(others[0]).write(f"INSERT INTO events VALUES ('without {number}', 'x', {number}, NULL)")
        until_equal(others, f"without {victim.name}")
        victim.start()
        victim.ready()
        until_equal(nodes)
        until(lambda: replicas(others[0]) == [3, 3, 3], "all replicas are up to date again")  # noqa: B023
    assert all("(3 before)" not in node.log.read_text() for node in nodes), "nothing is ever lowered"


def test_streams_of_one_replica_are_raised_in_a_cluster_that_is_written_to(site: Site) -> None:
    """So were they made before: the cluster stopped when the one server died that held them."""
    nodes = site.embedded(3, replicas=1)
    for node in nodes:
        node.start()
    for node in nodes:
        node.ready()
    until(lambda: replicas(nodes[0]) == [1, 1, 1], "each stream is on one server")
    for node in nodes:
        node.stop()
    unset(nodes)
    for node in nodes:
        node.start()
    for node in nodes:
        node.ready()
    writer, number = site.application(nodes[0]), 0
    while replicas(nodes[0]) != [3, 3, 3]:
        number += 1
        writer.write(f"INSERT INTO events VALUES ('row {number}', 'node1', {number}, NULL)")
        until(lambda: nodes[1].value("SELECT max(n) FROM events") == number, "writes arrive meanwhile")  # noqa: B023
        assert number < 5000
    until_equal(nodes)
    for node in nodes:
        node.ready()
