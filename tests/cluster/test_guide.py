"""The guide's three nodes with embedded servers, by its command lines as they are there, only on free ports."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

import pytest

from tests.cluster.application import TABLES
from tests.cluster.fix_cluster import Site, make
from tests.cluster.processes import Node, agree, until, until_equal
from tests.ports import free_port

pytestmark = pytest.mark.timeout(200)

GUIDE = """
# Node 1
harmonylite -config node1-config.toml -cluster-addr localhost:4221 -cluster-peers 'nats://localhost:4222/,nats://localhost:4223/'

# Node 2
harmonylite -config node2-config.toml -cluster-addr localhost:4222 -cluster-peers 'nats://localhost:4221/,nats://localhost:4223/'

# Node 3
harmonylite -config node3-config.toml -cluster-addr localhost:4223 -cluster-peers 'nats://localhost:4221/,nats://localhost:4222/'
"""
CONFIG = """
db_path = {db}

[nats]
# Empty URLs array = use embedded server
urls = []

[replication_log]
# Number of replicas for fault tolerance
replicas = 3

[health_check]
enable = true
bind = "127.0.0.1:{port}"
"""


class GuideNode(Node):
    """A node that is started by a line of the guide, in the folder of all three configuration files."""

    def __init__(self, number: int, folder: Path, line: str) -> None:
        super().__init__(f"node{number}", folder / f"node{number}")
        self.config = folder / f"node{number}-config.toml"
        self._line = line

    def start(self) -> None:
        """Give the line to a shell, which has the command as an installed one would be."""
        self.config.write_text(CONFIG.format(db=json.dumps(str(self.db)), port=self.port))
        command = f'harmonylite() {{ exec {shlex.quote(sys.executable)} -m harmonylite "$@"; }}'
        self.spawn(["/bin/bash", "-c", f"cd {shlex.quote(str(self.config.parent))}\n{command}\n{self._line}"])


@pytest.fixture
def nodes(site: Site) -> list[GuideNode]:
    """The guide's three nodes, ready."""
    text = GUIDE
    for port in ("4221", "4222", "4223"):
        text = text.replace(port, str(free_port()))
    lines = [line for line in text.splitlines() if line.startswith("harmonylite ")]
    nodes = [GuideNode(number, site.folder, line) for number, line in enumerate(lines, start=1)]
    for node in nodes:
        make(node.db, TABLES)
        site.running.append(node)
        node.start()
    for node in nodes:
        node.ready()
    return nodes


def test_the_guides_three_command_lines_make_a_cluster_of_which_one_may_be_killed_with_its_server(
    site: Site, nodes: list[GuideNode]
) -> None:
    writers = [site.application(node) for node in nodes]
    for n, writer in enumerate(writers):
        writer.write(("INSERT INTO events VALUES (?, 'x', ?, NULL)", [f"first {n}", n]))
    until_equal(nodes)

    def starting() -> list[str]:
        reports = [node.ask("GET", "/v1/status") for node in nodes]
        return [name for report in reports for name, part in report["parts"].items() if part["state"] == "starting"]

    until(lambda: not starting(), "every part has started")
    assert all((node.db.parent / "nats").is_dir() for node in nodes), "NATS's data lies beside db_path"
    server = nodes[2].pid_of_server()
    nodes[2].kill()
    until(lambda: not Path(f"/proc/{server}").exists(), "its nats-server goes with it")
    for n, writer in enumerate(writers):
        writer.write(("INSERT INTO events VALUES (?, 'x', ?, NULL)", [f"second {n}", n]))
    content = until_equal(nodes[:2], "without the third")
    assert len(content["events"]) == 5
    nodes[2].start()
    assert len(until_equal(nodes)["events"]) == 6
    for node in nodes:
        node.ready()
    agree(nodes)
