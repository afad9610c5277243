"""docs/regions.md, done: its files and its commands, with addresses of this machine; then links and servers die."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from tests.cluster.application import TABLES
from tests.cluster.fix_cluster import Site, make, start
from tests.cluster.processes import Node, agree, free_port, until, until_equal
from tests.cluster.servers import Proxy

pytestmark = pytest.mark.timeout(300)

PAGE = Path(__file__).parents[2] / "docs" / "regions.md"


def block(name: str) -> str:
    """Return what stands in the page's code block called ``name``."""
    found = re.search(rf"<!-- test: {re.escape(name)} -->\n```\w+\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert found, f"no block {name} in {PAGE.name}"
    return found[1]


class PageNode(Node):
    """A node whose configuration and flags are the page's."""

    text = ""

    def write_config(self) -> None:
        """Write the page's configuration, and how this test reaches the node's health."""
        more = f'[health_check]\nenable = true\nbind = "127.0.0.1:{self.port}"\n[logging]\nverbose = true\n'
        self.config.write_text(self.text.replace("/data/app.db", str(self.db)) + more)


def as_on_the_page(site: Site) -> tuple[list[PageNode], list[Proxy]]:
    """Return the six nodes, not started, and the ways that leaf links can go."""
    routes = {f"{region}{i}": free_port() for region in "ab" for i in (1, 2, 3)}
    leafs = {f"a{i}": free_port() for i in (1, 2, 3)}
    lines = {name: site.proxy(leafs[name]) for name in ("a1", "a2")}
    nodes = []
    for command in block("nodes").splitlines():
        words = shlex.split(re.sub(r"([ab]\d)\.example:4248", lambda m: f"127.0.0.1:{routes[m[1]]}", command))
        assert words[:2] == ["harmonylite", "-config"]
        name = words[words.index("-node-id") + 1]
        node = PageNode(name, site.folder / name, arguments=words[3:])
        text = block(words[2]).replace("0.0.0.0:7422", f"127.0.0.1:{leafs.get(name, 0)}")
        node.text = re.sub(r"(a\d)\.example:7422", lambda m: f"127.0.0.1:{lines[m[1]].port}", text)
        make(node.db, TABLES)
        site.running.insert(0, node)
        nodes.append(node)
    return nodes, list(lines.values())


def heard(nodes: list[PageNode], key: str) -> bool:
    return all(node.value("SELECT 1 FROM events WHERE id = ?", [key]) for node in nodes)


def test_three_and_three_nodes_come_up_from_the_page_and_survive_a_dead_link_and_a_dead_server(
    region_site: Site,
) -> None:
    nodes, lines = as_on_the_page(region_site)
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
    code, shown = nodes[5].command("region", "show")
    assert code == 0
    assert re.findall(r"^(\w\d): region (\w), home(?: (\w) in [\d.]+ ms)?", shown, re.MULTILINE) == [
        *((f"a{i}", "a", "") for i in (1, 2, 3)), *((f"b{i}", "b", "a") for i in (1, 2, 3)),
    ]  # fmt: skip
    lines[0].order("reset")
    all_write("with one way cut", nodes)
    assert nodes[0].get("/readyz")[0] == 200
    lines[0].order("pass")
    nodes[1].kill()
    left = [node for node in nodes if node is not nodes[1]]
    all_write("with a server of home dead", left)
    nodes[1].start()
    content = until_equal(nodes)
    assert len(content["events"]) == 17
    for node in nodes:
        node.ready()
    agree(nodes[::5])
