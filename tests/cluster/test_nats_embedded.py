"""Embedded servers in one cluster, by the guide's command lines: any one may die, all may, and all can move out."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path

import pytest

from tests.cluster.fix_cluster import Site, start
from tests.cluster.processes import Node, Running, agree, until, until_equal

pytestmark = pytest.mark.timeout(400)


def insert(name: str, n: int) -> tuple[str, list[object]]:
    return "INSERT INTO events VALUES (?, ?, ?, NULL)", [f"{name}-{n}", name, n]


def numbers(node: Node, name: str) -> list[int]:
    return [n for (n,) in node.rows("SELECT n FROM events WHERE writer = ? ORDER BY n", [name])]


def heard_by(nodes: list[Node], name: str, n: int) -> None:
    until(lambda: all(numbers(node, name)[-1:] == [n] for node in nodes), f"{name}-{n} is everywhere")


def test_three_nodes_survive_a_kill_a_full_restart_and_an_empty_disk(site: Site) -> None:
    nodes = site.embedded(3, replicas=3)
    start(nodes)
    writer = site.application(nodes[0])
    writer.write(insert("a", 0))
    heard_by(nodes, "a", 0)

    nodes[1].kill()
    writer.write(insert("a", 1))
    heard_by([nodes[0], nodes[2]], "a", 1)
    nodes[1].start()
    heard_by(nodes, "a", 1)

    for node in nodes:
        node.ready()
    for node in nodes:
        node.kill()
    writer.write(insert("a", 2))
    start(nodes)
    heard_by(nodes, "a", 2)

    assert nodes[2].stop() == 0
    for folder in ("mirror", "nats"):
        shutil.rmtree(nodes[2].folder / folder)
    for left in nodes[2].folder.glob("app.db*"):
        left.unlink()
    nodes[2].start()
    nodes[2].ready()
    until_equal(nodes, "after one lost its disk")
    agree(nodes)


@pytest.mark.slow
def test_three_nodes_move_out_to_an_external_server_and_back_while_the_application_writes_on(site: Site) -> None:
    nodes = site.embedded(3, replicas=3)
    start(nodes)
    writer = site.application(nodes[0])
    for n in range(3):
        writer.write(insert("a", n))
    heard_by(nodes, "a", 2)
    position = nodes[0].health()["shards"][0]["position"]
    external = site.server("external")
    flags = {node.name: node.arguments for node in nodes}
    writer.load("moving", pause=0.02)
    moved(nodes[0], config_of(nodes[0], "outside", {"urls": [external.url]}, 1))
    until(lambda: nodes[0].waits("the stream is full; changes queue"), "the old place takes nothing")
    for node in nodes:
        assert node.stop() == 0
    for node in nodes:
        node.sections["nats"]["urls"], node.sections["replication_log"]["replicas"] = [external.url], 1
        node.arguments = []
    start(nodes)
    reached = writer.committed
    until(lambda: (numbers(nodes[2], "moving") or [0])[-1] > reached, "what is written comes through at the new place")
    assert nodes[0].health()["shards"][0]["position"] > position, "the order continues where it was"
    assert "bootstrapped the mirror" not in log_since(nodes[0], external.url), "nobody needed a snapshot"

    for node in nodes:
        assert node.stop() == 0
    inside = {}
    for node in nodes:
        _, address, _, peers = flags[node.name]
        inside[node.name] = config_of(node, "inside", {"cluster_addr": address, "cluster_peers": peers.split(",")}, 3)
    servers = [serve(site, node, inside[node.name]) for node in nodes]
    moved(nodes[0], inside[nodes[0].name])
    for server in servers:
        assert server.stop() == 0
    external.stop()
    for node in nodes:
        node.sections["nats"]["urls"], node.sections["replication_log"]["replicas"] = [], 3
        node.arguments = flags[node.name]
    start(nodes)
    most = writer.kill()
    until_equal(nodes)
    found = numbers(nodes[1], "moving")
    assert found == list(range(1, len(found) + 1))
    assert len(found) >= most
    agree(nodes)


def moved(node: Node, target: Path) -> None:
    """Move the streams of a node's configuration to those of ``target``."""
    words = [*node.arguments, "nats", "move", str(target)]
    code, text = node.command(*words)
    assert code == 0, text
    assert "3 streams moved" in text


def serve(site: Site, node: Node, config: Path) -> Running:
    """Run only the embedded server of a node."""
    server = Running(f"server-of-{node.name}", node.folder)
    site.running.append(server)
    server.spawn([sys.executable, "-m", "harmonylite", "-config", str(config), "nats", "serve"])
    until(lambda: server.alive and "nats-server listens at" in server.last_words(), f"the server of {node.name} is up")
    return server


def config_of(node: Node, name: str, nats: dict[str, object], replicas: int) -> Path:
    """Write another configuration of a node."""
    path = node.folder / f"{name}.toml"
    lines = [f"db_path = {json.dumps(str(node.db))}", f"node_id = {json.dumps(node.name)}", "[nats]"]
    lines += [f"{key} = {json.dumps(value)}" for key, value in nats.items()]
    path.write_text("\n".join([*lines, "[replication_log]", f"replicas = {replicas}"]) + "\n")
    return path


def log_since(node: Node, word: str) -> str:
    """Return a node's log from the first mention of ``word`` on."""
    text = node.log.read_text(errors="replace")
    return text[text.find(word.removeprefix("nats://")) :]


def test_five_nodes_go_on_without_two(site: Site) -> None:
    nodes = site.embedded(5, replicas=5)
    start(nodes)
    writer = site.application(nodes[4])
    writer.write(insert("a", 0))
    heard_by(nodes, "a", 0)
    for dead in nodes[:2]:
        dead.kill()
    writer.write(insert("a", 1))
    heard_by(nodes[2:], "a", 1)
    assert nodes[2].stop() == 0
    until(lambda: nodes[4].waits("no quorum: 2 of 5 servers of the cluster are here, 3 are needed"), "two don't do")
    writer.write(insert("a", 2))
    start(nodes[:3])
    heard_by(nodes, "a", 2)
    for node in nodes:
        node.ready()
    agree(nodes)


def test_of_two_nodes_the_one_that_is_left_says_that_it_has_no_quorum_and_goes_on_with_both(site: Site) -> None:
    nodes = site.embedded(2, replicas=1)
    start(nodes)
    site.application(nodes[0]).write(insert("a", 0))
    heard_by(nodes, "a", 0)
    nodes[1].kill()
    until(lambda: nodes[0].waits("no quorum: 1 of 2 servers of the cluster are here, 2 are needed"), "it says why")
    until(lambda: nodes[0].waits("not reached: node2"), "and who is missing")
    until(lambda: nodes[0].get("/readyz")[0] == 503, "it is not ready")
    writer = site.application(nodes[0])
    writer.write(insert("a", 1))
    nodes[1].start()
    heard_by(nodes, "a", 1)
    for node in nodes:
        node.ready()


def test_a_dead_peers_server_is_one_line_in_the_log_and_not_four_a_second(site: Site) -> None:
    nodes = site.embedded(3, replicas=3)
    for node in nodes:
        node.start()
    for node in nodes:
        node.ready()
    until(lambda: [peer["state"] for peer in nodes[0].health()["peers"]] == ["up", "up"], "all have met")
    before = len(nodes[0].log.read_text())
    nodes[2].kill()
    # a line names all that became silent at once, on a busy machine the other one too for a moment
    until(lambda: re.search("peers are silent: .*node3", nodes[0].log.read_text()[before:]), "node3 is seen to be gone")
    refused = [line for line in nodes[0].log.read_text()[before:].splitlines() if "trying to connect to route" in line]
    # none where the same line came at the start already, within the minute
    assert len(refused) <= 2, refused
    nodes[2].start()
    nodes[2].ready()
    until(lambda: re.search("peers are back: .*node3", nodes[0].log.read_text()[before:]), "and to be back")


def test_two_of_three_at_the_very_first_start_name_who_is_here_and_what_is_not_reached(site: Site) -> None:
    nodes = site.embedded(3, replicas=3)
    third = nodes[2].arguments[1]
    nodes[0].start()
    until(lambda: nodes[0].waits(f"not reached: {nodes[1].arguments[1]}, {third}"), "one alone names both others")
    nodes[1].start()
    for node in nodes[:2]:
        until(lambda: node.waits("3 servers are needed (replicas = 3)"), "two say that three are needed")  # noqa: B023
        until(lambda: node.waits(f"here: node1, node2; not reached: {third}"), "and who is here")  # noqa: B023
        assert not node.waits("10005"), "nobody has to know JetStream's codes"
    nodes[2].start()
    for node in nodes:
        node.ready()
