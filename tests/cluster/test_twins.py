"""A second process under a node id that is in use ends at its own start; the first one runs on."""

from __future__ import annotations

import pytest

from tests.cluster.application import TABLES
from tests.cluster.fix_cluster import Site, make, start
from tests.cluster.processes import Node, until, until_equal
from tests.ports import free_port

pytestmark = pytest.mark.timeout(300)


def refused(twin: Node, first: Node) -> None:
    twin.start()
    assert twin.gone() == 8
    log = twin.log.read_text()
    assert first.process
    assert f"node id {first.sections['']['node_id']} is in use: process {first.process.pid} on host " in log
    assert str(first.db) in log


def test_a_copied_configuration_is_refused_and_a_restart_after_a_crash_is_not(site: Site) -> None:
    first, other = site.node("first"), site.node("other")
    twin = site.node("twin")
    twin.sections[""]["node_id"] = "first"
    start([first, other])
    for _ in range(2):
        refused(twin, first)
        site.application(first).write(("INSERT INTO events VALUES (hex(randomblob(8)), 'x', 1, NULL)", []))
        until_equal([first, other])
        assert first.alive
        first.kill()
        first.start()
        first.ready()
    assert "is in use" not in first.log.read_text()


def test_a_twin_with_a_server_of_its_own_never_joins_the_servers_of_the_cluster(site: Site) -> None:
    nodes = site.embedded(3, replicas=3)
    start(nodes)
    peers = nodes[0].arguments[3]
    twin = Node(
        "twin",
        site.folder / "twin",
        arguments=["-cluster-addr", f"127.0.0.1:{free_port()}", "-cluster-peers", peers],
        sections={"replication_log": {"replicas": 3}, "": {"node_id": "node1"}},
    )
    make(twin.db, TABLES)
    site.running.append(twin)
    refused(twin, nodes[0])
    assert not (twin.folder / "nats").exists()
    for node in nodes:
        assert "duplicate name" not in node.log.read_text()
        site.application(node).write(("INSERT INTO events VALUES (hex(randomblob(8)), 'x', 1, NULL)", []))
    assert len(until_equal(nodes)["events"]) == 3

    twin.sections[""]["node_id"] = "node4"
    twin.start()
    twin.ready()
    until(lambda: (twin.folder / "nats" / "node4").is_dir(), "it has a place of its own")
    until_equal([*nodes, twin])
