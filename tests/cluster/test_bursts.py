"""An application that writes without a pause: the node stops listening meanwhile, and copies the log beside it."""

from __future__ import annotations

import pytest

from tests.cluster.fix_cluster import Site
from tests.cluster.processes import Node, until, until_equal

pytestmark = pytest.mark.timeout(300)

ALONE = {"": {"polling_interval": 3_600_000}}
"""Nothing is found by looking now and then."""
WAL_MOST = 80 << 20


def test_after_a_burst_a_lone_commit_is_heard_at_once(site: Site) -> None:
    nodes = [site.node(name, sections=ALONE) for name in ("one", "two")]
    for node in nodes:
        node.start()
        node.ready()
    writer = site.application(nodes[0], "PRAGMA synchronous = normal")
    for round_ in range(3):
        writer.load(f"burst{round_}", pause=0, most=2000)
        assert writer.finish() == 2000
        until_equal(nodes, "the burst arrives")
        writer.write(("UPDATE fought SET value = ? WHERE id = 1", [f"alone {round_}"]))
        until(
            lambda: nodes[1].value("SELECT value FROM fought WHERE id = 1") == f"alone {round_}",  # noqa: B023
            "a commit after the burst arrives",
        )


def test_a_node_that_is_killed_in_a_burst_leaves_the_log_to_the_application(site: Site) -> None:
    nodes = [site.node(name) for name in ("one", "two")]
    for node in nodes:
        node.start()
        node.ready()
    writer = site.application(nodes[0], "PRAGMA synchronous = normal")
    writer.load("burst", pause=0)
    for _ in range(3):
        until(lambda: wal_bytes(nodes[0]) > 5 << 20, "the log is longer than the application alone would let it become")
        nodes[0].kill()
        reached = writer.committed
        until(lambda: writer.committed > reached + 3000, "the application writes on")  # noqa: B023
        assert wal_bytes(nodes[0]) < WAL_MOST
        nodes[0].start()
        nodes[0].ready()
    reached = writer.committed
    until(lambda: writer.committed > reached + 20_000, "and on")
    assert wal_bytes(nodes[0]) < WAL_MOST
    committed = writer.kill()
    content = until_equal(nodes)
    assert content["counters"] in ([("burst", committed)], [("burst", committed + 1)])


def wal_bytes(node: Node) -> int:
    """Return the size of the database's write-ahead log."""
    return node.db.with_name(node.db.name + "-wal").stat().st_size
