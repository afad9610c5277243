"""A node that gets another name keeps its files, its streams and its place among the servers of its cluster."""

from __future__ import annotations

from typing import Any

import pytest

from tests.cluster.fix_cluster import Site, make, start
from tests.cluster.processes import Node, agree, until, until_equal

pytestmark = pytest.mark.timeout(400)

TABLE = "CREATE TABLE t(id INTEGER PRIMARY KEY, v)"


def report(node: Node) -> dict[str, Any]:
    return node.ask("GET", "/v1/status")


def folders(node: Node) -> list[str]:
    return sorted(path.name for path in (node.folder / "nats").iterdir())


def test_a_node_alone_that_is_given_a_name_goes_on_where_it_was(site: Site) -> None:
    node = Node("node", site.folder / "node")
    node.sections[""].pop("node_id")
    make(node.db, TABLE)
    site.running.append(node)
    node.start()
    node.ready()
    made = str(report(node)["node_id"])
    writer = site.application(node)
    for n in range(3):
        writer.write(("INSERT INTO t(v) VALUES (?)", [n]))
    node.sent()
    assert report(node)["shards"][0]["position"] > 0
    before = report(node)["shards"][0]["position"]
    assert node.stop() == 0
    assert f"this node is {made} from now on; set node_id to choose a name" in node.log.read_text()

    writer.write(("INSERT INTO t(v) VALUES (3)", []))
    for name in ("berlin", "paris"):
        node.sections[""]["node_id"] = name
        node.start()
        node.ready()
        assert report(node)["node_id"] == name
        assert f"is {name} from now on, with the same files and streams" in node.log.read_text()
        writer.write(("INSERT INTO t(v) VALUES (?)", [name]))
        until(lambda at=before: report(node)["shards"][0]["position"] > at, "it is published after the rest")  # type: ignore[misc]
        assert folders(node) == [made]
        before = report(node)["shards"][0]["position"]
        assert node.stop() == 0
    assert [v for (v,) in node.rows("SELECT v FROM t ORDER BY id")] == [0, 1, 2, 3, "berlin", "paris"]
    log = node.log.read_text()
    for word in ("created again", "was lost", "lost its tail", "snapshot became"):
        assert word not in log


def test_one_of_three_that_is_renamed_stays_the_server_that_the_others_know(site: Site) -> None:
    nodes = site.embedded(3, replicas=3)
    start(nodes)
    writer = site.application(nodes[2])
    writer.write(("INSERT INTO events VALUES ('one', 'x', 1, NULL)", []))
    until_equal(nodes)
    assert nodes[2].stop() == 0
    nodes[2].sections[""]["node_id"] = "renamed"
    nodes[2].start()
    nodes[2].ready()
    assert folders(nodes[2]) == ["node3"]
    nodes[1].kill()
    writer.write(("INSERT INTO events VALUES ('two', 'x', 2, NULL)", []))
    assert len(until_equal([nodes[0], nodes[2]], "with two of three servers")["events"]) == 2
    nodes[1].start()
    nodes[1].ready()
    until_equal(nodes)
    names = {"node1", "node2", "renamed"}
    for node in nodes:
        until(lambda n=node: {row["node_id"] for row in n.ask("GET", "/v1/nodes")["nodes"]} == names, "it is forgotten")  # type: ignore[misc]
    agree(nodes)
