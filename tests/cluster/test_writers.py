"""Three nodes as the guide starts them, with embedded servers, and applications that fight over few rows."""

from __future__ import annotations

import os
import signal

import pytest

from tests.cluster.fix_cluster import Site, start
from tests.cluster.processes import Node, Rows, agree, until, until_equal

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def nodes(module_site: Site) -> list[Node]:
    """Three nodes that are ready."""
    nodes = module_site.embedded(3, replicas=3)
    start(nodes)
    return nodes


def counter(content: dict[str, Rows], writer: str) -> int:
    return next((int(n) for name, n in content["counters"] if name == writer), 0)


def events(content: dict[str, Rows], writer: str) -> list[int]:
    return sorted(n for _, name, n, _ in content["events"] if name == writer)


def money(content: dict[str, Rows], writer: str) -> int:
    return sum(amount for name, _, amount in content["accounts"] if name == writer)


def test_three_writers_on_few_rows_end_equal_and_every_writer_counts_right(
    module_site: Site, nodes: list[Node]
) -> None:
    writers = {f"fight{i}": module_site.application(node) for i, node in enumerate(nodes)}
    for name, writer in writers.items():
        writer.load(name, pause=0.002, most=150)
    for writer in writers.values():
        assert writer.finish() == 150
    content = until_equal(nodes)
    for name in writers:
        assert counter(content, name) == 150, "its own echo overwrote a writer's row"
        assert events(content, name) == list(range(1, 151)), "rows are missing permanently"
        assert money(content, name) == 0
    assert {last for _, _, last in content["fought"]} <= set(writers) | {""}
    agree(nodes)


def test_a_killed_node_gets_what_was_written_meanwhile_and_gives_what_it_had(
    module_site: Site, nodes: list[Node]
) -> None:
    writers = {f"kill{i}": module_site.application(node) for i, node in enumerate(nodes)}
    for name, writer in writers.items():
        writer.load(name, pause=0.01)
    until(lambda: all(writer.committed > 20 for writer in writers.values()), "everybody writes")
    nodes[2].kill()
    reached = {name: writer.committed for name, writer in writers.items()}
    until(lambda: all(writer.committed > reached[name] + 50 for name, writer in writers.items()), "all write on")
    until(
        lambda: counter(nodes[0].content(), "kill1") > reached["kill1"] + 20,
        "the survivors continue without the third",
    )
    committed = {name: writer.kill() for name, writer in writers.items()}
    assert nodes[2].value("SELECT n FROM counters WHERE writer = 'kill2'") >= committed["kill2"]
    nodes[2].start()
    nodes[2].ready()
    content = until_equal(nodes)
    for name, n in committed.items():
        assert counter(content, name) in (n, n + 1), "the last one may have been committed and not told"
        assert events(content, name) == list(range(1, counter(content, name) + 1))
        assert money(content, name) == 0
    agree(nodes)


def test_a_dead_embedded_server_is_started_again_and_nobody_stays_deaf(module_site: Site, nodes: list[Node]) -> None:
    writers = {f"nats{i}": module_site.application(node) for i, node in enumerate(nodes)}
    for round_, victim in enumerate(nodes):
        for name, writer in writers.items():
            writer.load(name, pause=0.01, most=60)
        until(lambda: all(writer.committed > 60 * round_ + 20 for writer in writers.values()), "all write")  # noqa: B023
        os.kill(victim.pid_of_server(), signal.SIGKILL)
        for writer in writers.values():
            writer.finish()
    content = until_equal(nodes)
    for name in writers:
        assert counter(content, name) == 180
    for node in nodes:
        node.ready()
    agree(nodes)


def test_all_nodes_killed_and_started_again_go_on_where_they_were(module_site: Site, nodes: list[Node]) -> None:
    writers = {f"all{i}": module_site.application(node) for i, node in enumerate(nodes)}
    for name, writer in writers.items():
        writer.load(name, pause=0.005)
    until(lambda: all(writer.committed > 20 for writer in writers.values()), "everybody writes")
    for node in nodes:
        node.kill()
    committed = {name: writer.kill() for name, writer in writers.items()}
    start(nodes)
    content = until_equal(nodes)
    for name, n in committed.items():
        assert counter(content, name) in (n, n + 1)
        assert events(content, name) == list(range(1, counter(content, name) + 1))
    agree(nodes)
