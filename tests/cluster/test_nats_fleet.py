"""Twenty nodes on one external cluster: all write, all end equal. `bench/fleet.py` measures what each one costs."""

from __future__ import annotations

import pytest

from tests.cluster.fix_cluster import Site, start
from tests.cluster.processes import until, until_equal

pytestmark = pytest.mark.timeout(600)

NODES = 20
COMMITS = 6


def test_a_fleet_under_load_converges_although_one_node_is_far_away(site: Site) -> None:
    servers = site.servers(3)
    urls = [server.url for server in servers]
    log = {"replication_log": {"replicas": 3, "max_entries": 100_000}}
    far = site.proxy(servers[0].port)
    far.order("slow 100")
    near = [site.node(f"n{i}", urls=[*urls[i % 3 :], *urls[: i % 3]], sections=log) for i in range(NODES - 1)]
    nodes = [*near, site.node("far", urls=[far.url], sections=log)]
    start(nodes)
    writers = [site.application(node) for node in nodes]
    for node, writer in zip(nodes, writers, strict=True):
        writer.load(node.name, pause=0.2, most=COMMITS)
    for writer in writers:
        assert writer.finish() == COMMITS
    content = until_equal(nodes)
    assert len(content["events"]) == NODES * COMMITS
    assert [n for _, n in content["counters"]] == [COMMITS] * NODES
    until(lambda: all(node.health()["pending_rows"] == 0 for node in nodes), "nothing is pending")
