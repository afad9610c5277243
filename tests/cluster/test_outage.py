"""NATS goes away, for a while or behind a cut line: the application never notices, and nothing is lost."""

from __future__ import annotations

import signal

import pytest

from tests.cluster.fix_cluster import Site, start
from tests.cluster.processes import Node, agree, until, until_equal

pytestmark = pytest.mark.timeout(300)


def insert(name: str, n: int) -> tuple[str, list[object]]:
    return "INSERT INTO events VALUES (?, ?, ?, NULL)", [f"{name}-{n}", name, n]


def count(node: Node, name: str) -> int:
    return int(node.value("SELECT count(*) FROM events WHERE writer = ?", [name]) or 0)


def test_writes_of_an_outage_arrive_although_the_node_was_restarted_in_it(site: Site) -> None:
    server = site.server()
    nodes = [site.node(name, urls=[server.url]) for name in ("a", "b")]
    start(nodes)
    writers = [site.application(node) for node in nodes]
    server.stop()
    for n in range(6):
        writers[0].write(insert("a", n))
        writers[1].write(insert("b", n), ("UPDATE fought SET value = ? WHERE id = 1", [f"b{n}"]))
    until(lambda: nodes[0].get("/health")[0] == 503 and nodes[0].waits("nats"), "health tells that NATS is away")
    until(lambda: nodes[0].health()["pending_rows"] >= 6, "health counts what is pending")
    assert nodes[0].stop() == 0, "a node ends well without NATS, too"
    writers[0].write(insert("a", 6))
    nodes[0].start()
    until(lambda: nodes[0].waits("nats"), "the restarted node says what it waits for")
    writers[0].write(insert("a", 7))
    server.start()
    content = until_equal(nodes)
    assert [n for _, name, n, _ in content["events"] if name == "a"] == list(range(8))
    for node in nodes:
        node.ready()
    agree(nodes)


@pytest.mark.parametrize(("way", "writes"), [("hole", 280), ("reset", 80)])
def test_after_a_cut_line_nobody_is_deaf_and_health_told_the_truth_meanwhile(site: Site, way: str, writes: int) -> None:
    server = site.server()
    line = site.proxy(server.port)
    nodes = [site.node("near", urls=[server.url]), site.node("far", urls=[line.url])]
    start(nodes)
    near, far = nodes
    writers = [site.application(node) for node in nodes]
    writers[0].write(insert("near", 0))
    writers[1].write(insert("far", 0))
    until_equal(nodes, "before the cut")
    line.order(way)
    writers[0].load("n", pause=0.05)
    writers[1].load("f", pause=0.05)
    until(lambda: far.get("/health")[0] == 503, "health tells of the cut")
    until(lambda: writers[1].committed > writes, "the application writes on, 20 times a second")
    near.ready()  # who is not cut off is well
    assert far.get("/health")[0] == 503
    until(lambda: far.health()["pending_rows"] > 0, "what can't be sent is counted")
    line.order("pass")
    until(lambda: far.get("/readyz")[0] == 200, "the line works again and the node knows")
    reached = [writer.committed for writer in writers]
    until(lambda: all(w.committed > n + 20 for w, n in zip(writers, reached, strict=True)), "both write")
    until(lambda: count(far, "n") > reached[0] and count(near, "f") > reached[1], "both hear what is written after it")
    committed = [writer.kill() for writer in writers]
    content = until_equal(nodes)
    for name, n in zip(("n", "f"), committed, strict=True):
        counted = next(c for writer, c in content["counters"] if writer == name)
        assert counted in (n, n + 1)
        assert sorted(i for _, w, i, _ in content["events"] if w == name) == list(range(1, counted + 1))
    agree(nodes)


def test_a_frozen_server_is_noticed_and_survived(site: Site) -> None:
    server = site.server()
    nodes = [site.node(name, urls=[server.url]) for name in ("a", "b")]
    start(nodes)
    writer = site.application(nodes[0])
    server.signal(signal.SIGSTOP)
    writer.write(insert("a", 1))
    until(lambda: nodes[0].get("/health")[0] == 503, "a server that answers nothing is as good as none")
    writer.write(insert("a", 2))
    server.signal(signal.SIGCONT)
    until(lambda: count(nodes[1], "a") == 2, "both rows arrive")
    until_equal(nodes)
    assert len(nodes[1].rows("SELECT * FROM events")) == 2
