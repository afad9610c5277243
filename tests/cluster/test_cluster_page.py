"""The page's data of a real cluster: nodes, tables, snapshots, conflicts, changes; and a conflict settled from it."""

from __future__ import annotations

import http.client
import json
import signal
from typing import Any

import pytest

from tests.cluster.fix_cluster import Site, start
from tests.cluster.processes import Node, until, until_equal

pytestmark = pytest.mark.timeout(300)

TOKEN = "a-token-of-thirty-two-characters"
TABLES = "CREATE TABLE fought(id INTEGER PRIMARY KEY, value TEXT); INSERT INTO fought VALUES (1, 'at first');"


def asked(node: Node, path: str, body: dict[str, Any] | None = None, token: str = "") -> tuple[int, Any]:
    """Return status and JSON of an answer of the page's server."""
    connection = http.client.HTTPConnection("127.0.0.1", node.port, timeout=60)
    try:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        connection.request(
            "POST" if body is not None else "GET", path, None if body is None else json.dumps(body), headers
        )
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def details(node: Node) -> dict[str, Any]:
    """Return what the page shows beyond the status."""
    return dict(asked(node, "/details.json")[1])


def first_change(node: Node, value: str) -> dict[str, Any]:
    """Return the first change of the page's tail that set ``value``."""
    connection = http.client.HTTPConnection("127.0.0.1", node.port, timeout=60)
    try:
        connection.request("GET", "/changes.ndjson")
        for line in connection.getresponse():
            for change in json.loads(line).get("changes", ()):
                if ["value", "text", value] in change["after"]:
                    return dict(change)
    finally:
        connection.close()
    raise AssertionError(f"no change to {value} passed")


def test_the_page_tells_of_the_cluster_and_settles_a_conflict(site: Site) -> None:
    guarded = {"page": {"token": TOKEN}}
    nodes = [site.node(name, tables=TABLES, sections=guarded) for name in ("a", "b")]
    start(nodes)
    a, b = nodes
    until(lambda: len(asked(a, "/status.json")[1]["peers"]) == 1, "the nodes know each other")

    # Both write one row while one of them stands still.
    writers = [site.application(node) for node in nodes]
    a.sent()
    b.freeze()
    before = a.status("published_change_sets")
    for node, writer in zip(nodes, writers, strict=True):
        writer.write(("UPDATE fought SET value = ? WHERE id = 1", [f"of {node.name}"]))
    until(lambda: a.status("published_change_sets") > before, "the change of a is in the order")
    b.signal(signal.SIGCONT)
    until_equal(nodes)
    (found,) = until(lambda: asked(a, "/conflicts.json?search=id=1")[1]["conflicts"], "a knows of the conflict")
    assert found["table"] == "fought"
    assert (found["winning"], found["overruled"]) == (["text", "of b"], ["text", "of a"])
    assert (found["winner"], found["loser"], found["can_put_back"]) == ("b", "a", True)
    assert asked(a, "/conflicts.json?search=nothing-like-it")[1]["conflicts"] == []
    assert ["value", "text", "at first"] in first_change(b, "of b")["before"]

    def whole() -> bool:
        """Each part of the page knows the others a while after they are there."""
        told = details(a)
        by_name = {row["node_id"]: row for row in told.get("nodes", ())}
        return (
            not told["errors"]
            and by_name.keys() == {"a", "b"}
            and by_name["a"]["state"] == "this node"
            and by_name["b"]["page"] == f"http://127.0.0.1:{b.port}/"
            and by_name["a"]["schema"] == by_name["b"]["schema"] != ""
            and [[table[key] for key in ("name", "rows", "exact", "pending", "held")] for table in told["tables"]]
            == [["fought", 1, True, 0, 0]]
            and told["snapshots"]["count"] >= 1
        )

    try:
        until(whole, "all is told")
    except AssertionError as error:
        raise AssertionError(f"{error}; it tells {details(a)}") from None
    until(lambda: asked(a, "/hour.json")[1]["samples"], "the hour has a sample")
    until(
        lambda: any("ready: database" in line["text"] for line in asked(a, "/log.json")[1]["lines"]),
        "the log's end is there",
    )

    # Settled by a person: without the token nothing happens, with it the value travels like any write.
    order = {"conflict": found["id"]}
    assert asked(a, "/actions/put-back", order)[0] == 401
    assert asked(a, "/actions/put-back", {"conflict": "strange"}, TOKEN)[0] == 409
    assert a.value("SELECT value FROM fought") == "of b"
    assert asked(a, "/actions/put-back", order, TOKEN)[0] == 200
    until(lambda: {node.value("SELECT value FROM fought") for node in nodes} == {"of a"}, "the value is back")
    code, refused = asked(a, "/actions/put-back", order, TOKEN)
    assert code == 409
    assert "does not hold of b any more" in refused["error"]

    assert asked(a, "/actions/verify", {}, TOKEN) == (200, {"agree": True, "said": "all nodes agree"})
    code, saved = asked(a, "/actions/snapshot", {}, TOKEN)
    assert code == 200
    assert saved["name"] in [listed["name"] for listed in details(a)["snapshots"]["listed"]]
    assert details(a)["verified"]["said"] == "all nodes agree"


def test_the_list_of_nodes_says_since_when_one_is_gone(site: Site) -> None:
    nodes = [site.node(name, tables=TABLES) for name in ("a", "b")]
    start(nodes)
    until(lambda: len(asked(nodes[0], "/status.json")[1]["peers"]) == 1, "the nodes know each other")
    nodes[1].kill()

    def peer() -> dict[str, Any]:
        return dict(asked(nodes[0], "/status.json")[1]["peers"][0])

    until(lambda: peer()["state"] == "silent", "the killed node is silent")
    assert peer()["silent_seconds"] >= 9
    assert peer()["last_heard"] > 0
