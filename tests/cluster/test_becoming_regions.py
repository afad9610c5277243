"""docs/regions.md with servers of one's own, and clusters that become regions while applications write."""

from __future__ import annotations

import json
import re
import shutil

import pytest

from tests.cluster.fix_cluster import Site, start
from tests.cluster.fix_regions import build
from tests.cluster.processes import Node, agree, until, until_equal
from tests.cluster.regions_page import Page, block

pytestmark = pytest.mark.timeout(300)


def count(node: Node, name: str) -> int:
    return int(node.value("SELECT count(*) FROM events WHERE writer = ?", [name]) or 0)


def single(server: str) -> str:
    """Return a server's file as it is in a cluster without regions."""
    found = re.sub(r"^leafnodes \{.*?^\}\n", "", server.replace("domain: a, ", ""), flags=re.M | re.S)
    assert "leaf" not in found
    return found


def goes_on(node: Node) -> None:
    """Wait until change sets that the node publishes from now on come back in the order."""
    reached = node.status("folded_change_sets")
    until(lambda: node.status("folded_change_sets") > reached + 5, f"changes of {node.name} come into the order")


def snapshots(node: Node) -> set[str]:
    """Return the names of the snapshots that new nodes may start from."""
    code, text = node.command("snapshot", "list", "-json")
    assert code == 0, text
    return {found["name"] for found in json.loads(text)["snapshots"]}


@pytest.mark.slow
def test_a_cluster_on_servers_of_its_own_becomes_a_region_and_gets_another_one(region_site: Site) -> None:
    page = Page(region_site)
    servers = [page.server(f"a{i}", "nats-a.conf") for i in (1, 2, 3)]
    for server in servers:
        server.text = single(server.text)
        server.start()
    near = page.node("a1", "external-a.toml")
    regional = near.text
    near.text = re.sub(r"^(primary_)?region = .*\n", "", regional, flags=re.M)
    near.start()
    near.ready()
    writing = [region_site.application(near)]
    writing[0].load("near", pause=0.02)
    goes_on(near)
    for server in servers:
        server.stop()
        server.text = page.server_text(server.name, "nats-a.conf")
        server.start()
        goes_on(near)
    assert "region" not in near.health(), "the servers have a domain, the node is in no region yet"
    near.stop()
    near.text = regional
    near.start()
    others = [page.server(f"b{i}", "nats-b.conf") for i in (1, 2, 3)]
    for server in others:
        server.start()
    far = [page.node(f"b{i}", "external-b.toml") for i in (1, 2)]
    for node in far:
        node.start()
    nodes = [near, *far]
    for node in nodes:
        node.ready()
    writing.append(region_site.application(far[0]))
    writing[1].load("far", pause=0.02)
    until(lambda: all(count(node, name) > 5 for node in nodes for name in ("near", "far")), "each hears the other")
    page.order("reset")
    for node in far:
        until(lambda: node.waits("can't reach primary region a since"), "region b says what is cut")  # noqa: B023
    goes_on(near)
    reached = writing[1].committed
    until(lambda: writing[1].committed > reached + 20, "region b writes on")
    page.order("pass")
    committed = [writer.kill() for writer in writing]
    content = until_equal(nodes)
    for name, most in zip(("near", "far"), committed, strict=True):
        found = sorted(n for _, writer, n, _ in content["events"] if writer == name)
        assert found == list(range(1, len(found) + 1))
        assert len(found) >= most
    for node in nodes:
        node.ready()
    agree(nodes)


@pytest.mark.slow
def test_the_rights_of_the_page_are_enough_for_a_cut_and_a_promotion(region_site: Site) -> None:
    page = Page(region_site)
    everything = 'authorization { user: harmonylite, password: "secure-password-here" }\njetstream'
    servers = [
        page.server(f"{r}1", f"nats-{r}.conf", without={everything: f"{block('rights.conf')}jetstream"}) for r in "ab"
    ]
    for server in servers:
        server.text = re.sub(r"^cluster \{.*?^\}\n", "", server.text, flags=re.M | re.S)
        server.start()
    nodes = [page.node(name, f"external-{name[0]}.toml") for name in ("a1", "b1", "b2")]
    for node in nodes:
        node.text = node.text.replace("replicas = 3", "replicas = 1") + "failover_after = 1\n"
        node.start()
    for node in nodes:
        node.ready()
    writers = [region_site.application(node) for node in nodes]
    for name, writer in zip(("near", "far"), writers, strict=False):
        writer.load(name, pause=0.05)
    until(lambda: all(count(node, name) > 5 for node in nodes for name in ("near", "far")), "each hears the other")
    page.order("hole")
    for node in nodes[1:]:
        until(lambda: node.health()["region"].get("failover"), "region b fails over")  # noqa: B023
    page.order("pass")
    for node in nodes[1:]:
        until(lambda: not node.health()["region"].get("failover"), "and fails back")  # noqa: B023
        node.ready()
    until(lambda: nodes[1].command("region", "promote")[0] == 0, "region b is promoted, or a further call resumes that")
    goes_on(nodes[0])
    until(lambda: nodes[1].command("snapshot", "save")[0] == 0, "it saves a snapshot")
    for writer in writers:
        writer.kill()
    until_equal(nodes)
    agree(nodes)
    for running in (*servers, *nodes):
        assert not re.search(r"Violation|does not let this node", running.log.read_text(errors="replace")), running.name


def test_an_embedded_cluster_becomes_the_primary_region_and_another_one_joins_it_with_its_rows(
    region_site: Site,
) -> None:
    regions = build(region_site)
    near, far = regions.nodes
    regional = [dict(node.sections["nats"]) for node in regions.nodes]
    keys = {"region", "primary_region", "leaf_addr", "leaf_servers"}
    for node in regions.nodes:
        node.sections["nats"] = {key: value for key, value in node.sections["nats"].items() if key not in keys}
    start(regions.nodes)
    writing = {node.name: region_site.application(node) for node in regions.nodes}
    for node in regions.nodes:
        writing[node.name].write(
            ("INSERT INTO events VALUES (?, ?, 1, NULL)", [f"own-{node.name}", node.name]),
            ("UPDATE fought SET value = ? WHERE id = 1", [node.name]),
        )
        node.sent()  # each has an order of its own
    before = until(lambda: snapshots(near), "its beginning is saved")
    for node, nats in zip(regions.nodes, regional, strict=True):
        assert node.stop() == 0
        node.sections["nats"] = nats
        writing[node.name].write(("INSERT INTO events VALUES (?, ?, 2, NULL)", [f"between-{node.name}", node.name]))
    start([near])
    assert snapshots(near) >= before, "the primary region has its snapshots from before"
    far.start()
    assert far.gone() == 2, "two orders are not joined by mistake"
    assert "primary_region is a, but the streams of region b take messages already" in far.last_words()
    shutil.rmtree(far.folder / "nats")
    assert far.command("-cleanup")[0] == 0
    start([far])
    content = until_equal(regions.nodes)
    assert [row[0] for row in content["events"]] == ["between-a1", "between-b1", "own-a1", "own-b1"]
    assert content["fought"][0][:2] == (1, "a1")
    assert "b1" in far.command("conflicts")[1], "what gave way is in the journal"
    agree(regions.nodes)
