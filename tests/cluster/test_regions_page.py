"""docs/regions.md, done: its files and its commands, with addresses of this machine; then links and servers die."""

from __future__ import annotations

import re

import pytest

from tests.cluster.fix_cluster import Site, start
from tests.cluster.processes import agree, until, until_equal
from tests.cluster.regions_page import Page, PageNode

pytestmark = pytest.mark.timeout(300)


def heard(nodes: list[PageNode], key: str) -> bool:
    return all(node.value("SELECT 1 FROM events WHERE id = ?", [key]) for node in nodes)


def test_three_and_three_nodes_come_up_from_the_page_and_survive_a_dead_link_and_a_dead_server(
    region_site: Site,
) -> None:
    page = Page(region_site)
    nodes = page.nodes()
    assert [node.name for node in nodes] == ["a1", "a2", "a3", "b1", "b2", "b3"]
    start(nodes)
    applications = {node.name: region_site.application(node) for node in nodes}

    def all_write(what: str, writing: list[PageNode]) -> None:
        for node in writing:
            key = f"{what}-{node.name}"
            applications[node.name].write(("INSERT INTO events VALUES (?, ?, 1, NULL)", [key, node.name]))
        for node in writing:
            until(lambda: heard(writing, f"{what}-{node.name}"), f"all hear {node.name}, {what}")  # noqa: B023

    all_write("well", nodes)
    line = re.compile(r"^(\w\d): region (\w), (?:the )?primary region(?: (\w) in [\d.]+ ms)?", re.MULTILINE)
    expected = [*((f"a{i}", "a", "") for i in (1, 2, 3)), *((f"b{i}", "b", "a") for i in (1, 2, 3))]
    until(lambda: line.findall(nodes[5].command("region", "show")[1]) == expected, "each node is shown in its region")
    page.lines["a1"].order("reset")
    all_write("with one way cut", nodes)
    nodes[0].ready()
    page.lines["a1"].order("pass")
    nodes[1].kill()
    left = [node for node in nodes if node is not nodes[1]]
    all_write("with a server of the primary region dead", left)
    nodes[1].start()
    content = until_equal(nodes)
    assert len(content["events"]) == 17
    for node in nodes:
        node.ready()
    agree(nodes[::5])
