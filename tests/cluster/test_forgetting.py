"""`harmonylite node list` and `forget`: a node that is gone for good ends to be waited for, on every node."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.cluster.fix_cluster import Site, start
from tests.cluster.processes import Node, until, until_equal

pytestmark = pytest.mark.timeout(300)


def listed(node: Node) -> dict[str, dict[str, Any]]:
    code, text = node.command("node", "list", "-json")
    assert code == 0, text
    return {row["node_id"]: row for row in json.loads(text)["nodes"]}


def cluster(node: Node) -> set[str]:
    return {row["node_id"] for row in json.loads(node.command("status", "-cluster", "-json")[1])["nodes"]}


def checked(node: Node) -> str:
    """Return what `doctor` says of the nodes."""
    rows = json.loads(node.command("doctor", "-json")[1])["rows"]
    return next(str(row["found"]) for row in rows if row["name"] == "nodes")


def peers(node: Node) -> set[str]:
    return {peer["node_id"] for peer in node.health()["peers"]}


@pytest.mark.slow
def test_a_node_that_is_gone_is_forgotten_by_all_and_known_again_when_it_is_back(site: Site) -> None:
    nodes = a, b, c = site.node("a"), site.node("b"), site.node("c")
    start(nodes)
    for node in nodes:
        site.application(node).write(("INSERT INTO events VALUES (?, 'x', 1, NULL)", [node.name]))
    until_equal(nodes)
    until(lambda: [row["state"] for row in listed(a).values()] == ["this node", "up", "up"], "all are heard")
    assert set(listed(a)) == {"a", "b", "c"}
    assert all(row["version"] and row["last_seen"] for row in listed(a).values())

    def refused() -> bool:
        """One that takes seconds for its answer is forgotten, and known again by its next heartbeat."""
        code, text = a.command("node", "forget", "c")
        return (code, "node c answers, so it is not forgotten" in text) == (1, True)

    until(refused, "a node that answers is not forgotten")
    until(lambda: "c" in listed(a), "it is listed")
    c.kill()
    assert a.command("verify", "-timeout", "3")[0] == 4
    until(lambda: checked(a) == "3, silent: c", "doctor names it")
    code, text = a.command("node", "forget", "c")
    assert (code, "c is forgotten" in text) == (0, True), text
    for node in (a, b):
        until(lambda n=node: "c" not in peers(n), "the peers are without it")  # type: ignore[misc]
        assert node.command("verify")[0] == 0
        assert set(listed(node)) == cluster(node) == {"a", "b"}
        until(lambda n=node: checked(n) == "2", "none of them is silent")  # type: ignore[misc]
    b.stop()
    b.start()
    b.ready()
    assert "c" not in peers(b) | set(listed(b)) | cluster(b)
    code, text = a.command("node", "forget", "c")
    assert (code, "no node c is known" in text) == (15, True), text

    c.start()
    c.ready()
    for node in (a, b):
        until(lambda n=node: listed(n).get("c", {}).get("state") == "up", "it is known again")  # type: ignore[misc]
        assert node.command("verify")[0] == 0


def test_the_old_name_of_a_renamed_node_is_forgotten_by_itself(site: Site) -> None:
    nodes = a, b = site.node("a"), site.node("b")
    start(nodes)
    site.application(b).write(("INSERT INTO events VALUES ('1', 'x', 1, NULL)", []))
    until_equal(nodes)
    until(lambda: set(listed(a)) == {"a", "b"}, "both are listed")
    assert b.stop() == 0
    b.sections[""]["node_id"] = "renamed"
    b.start()
    b.ready()
    until(lambda: set(listed(a)) == {"a", "renamed"}, "the old name is gone")
    for node in nodes:
        assert node.command("verify")[0] == 0


def test_a_node_at_the_end_of_a_slow_line_is_neither_forgotten_nor_left_out_of_a_migration(site: Site) -> None:
    """Each of its answers takes 2.4 seconds, and more if the machine is busy; a request waits 4."""
    server = site.server()
    line = site.proxy(int(server.url.rpartition(":")[2]))
    a, far = site.node("a", urls=[server.url]), site.node("far", urls=[line.url])
    start([a, far])
    until(lambda: listed(a).get("far", {}).get("state") == "up", "it is heard")
    line.order("slow 1200")
    code, text = a.command("node", "forget", "far")
    assert (code, "node far answers, so it is not forgotten" in text) == (1, True), text
    migration = a.folder / "migration.sql"
    migration.write_text("CREATE TABLE later(id INTEGER PRIMARY KEY, v)")
    code, text = a.command("schema", "apply", "-timeout", "80", str(migration))
    assert code == 0, text
    assert "far has it after" in text
    assert far.value("SELECT count(*) FROM sqlite_schema WHERE name = 'later'") == 1
    far.kill()
    code, text = a.command("node", "forget", "far")
    assert (code, "far is forgotten" in text) == (0, True), text
