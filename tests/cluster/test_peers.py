"""A dead node is seen on every other node, and so is its return."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.cluster.fix_cluster import Site, start
from tests.cluster.processes import Node, until

pytestmark = pytest.mark.timeout(200)


def peers(node: Node) -> dict[str, Any]:
    """Return the peers that the node's health lists, by id."""
    return {peer["node_id"]: peer for peer in node.health().get("peers", ())}


def states(node: Node) -> dict[str, str]:
    return {name: peer["state"] for name, peer in peers(node).items()}


def test_a_killed_node_is_seen_by_all_others_and_so_is_its_return(site: Site) -> None:
    a, b, c = nodes = [site.node(name) for name in ("a", "b", "c")]
    start(nodes)
    for node in nodes:
        until(lambda: set(states(node).values()) == {"up"} and len(states(node)) == 2, "both others are up")  # noqa: B023
    c.kill()
    for node in (a, b):
        until(lambda: states(node).get("c") == "silent", "the dead node is silent")  # noqa: B023
        other = "a" if node is b else "b"
        until(lambda: states(node).get(other) == "up", "the other one is not")  # noqa: B023
        node.ready()  # its death stops nobody
        node.logged("peers are silent: ")
        node.logged("c (last heartbeat")
        code, text = node.command("status", "-json")
        assert code == 0
        assert {peer["node_id"]: peer["state"] for peer in json.loads(text)["peers"]}["c"] == "silent"
        assert "silent" in node.command("status")[1]
    a.kill()
    a.start()
    a.ready()
    until(lambda: states(a).get("b") == "up", "a restarted node hears who is there")
    c.start()
    for node in (a, b):
        until(lambda: states(node).get("c") == "up", "the node is back")  # noqa: B023
    b.logged("peers are back: ")
    b.logged("c (silent for")
    assert c.stop() == 0
    until(lambda: states(b).get("c") == "stopped", "a stop is no death")
