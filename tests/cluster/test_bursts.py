"""An application that writes without a pause: the node stops listening meanwhile, and copies the log beside it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cluster.fix_cluster import Site
from tests.cluster.processes import Node, until, until_equal

pytestmark = pytest.mark.timeout(300)

ALONE = {"": {"polling_interval": 3_600_000}}
"""Nothing is found by looking now and then."""


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


@pytest.mark.slow
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
        before, reached = logs_so_far(nodes[0]), writer.committed
        until(lambda: logs_so_far(nodes[0]) > before, "the log starts again without the node")  # noqa: B023
        until(lambda: writer.committed > reached + 1000, "the application writes on")  # noqa: B023
        nodes[0].start()
        nodes[0].ready()
    before = logs_so_far(nodes[0])
    until(lambda: logs_so_far(nodes[0]) > before, "the log starts again with it")
    committed = writer.kill()
    content = until_equal(nodes)
    assert content["counters"] in ([("burst", committed)], [("burst", committed + 1)])


def wal(node: Node) -> Path:
    """Return the database's write-ahead log."""
    return node.db.with_name(node.db.name + "-wal")


def wal_bytes(node: Node) -> int:
    """Return its size."""
    return wal(node).stat().st_size


def logs_so_far(node: Node) -> int:
    """Return how often it has started again (SQLite: fileformat2, section 4.1, the checkpoint sequence number)."""
    with wal(node).open("rb") as file:
        return int.from_bytes(file.read(16)[12:], "big")
