"""docs/regions.md as a program: its files and commands, with addresses and folders of a test.

Invariant: what runs is the page's own text; only addresses and folders are exchanged, and what a test says it leaves
out.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.cluster.application import TABLES
from tests.cluster.fix_cluster import Site, make
from tests.cluster.processes import Node
from tests.cluster.servers import NatsServer, Proxy
from tests.ports import free_port

PAGE = Path(__file__).parents[2] / "docs" / "regions.md"
_ADDRESS = re.compile(r"\b(0\.0\.0\.0|([ab]\d)\.example):(\d{4})\b")

LEAF = "7422"
"""The port of leaf links on the page; a test reaches it through lines that it can cut."""


def block(name: str) -> str:
    """Return what is in the page's code block called ``name``."""
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


class PageServer(NatsServer):
    """A nats-server whose file is the page's. ``text``: what the next start runs with."""

    text = ""

    def start(self) -> None:
        """Write the file and start."""
        (self.folder / f"{self.name}.conf").write_text(self.text.replace("/data/nats", str(self.folder / "store")))
        super().start()


class Page:
    """The page's machines on this one. ``lines``: the ways to those that take leaf links, by their names."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.lines: dict[str, Proxy] = {}
        self._ports: dict[tuple[str, str], int] = {}

    def here(self, text: str, machine: str) -> str:
        """Return ``text`` of the page as it is for ``machine``, with this test's addresses."""

        def address(match: re.Match[str]) -> str:
            named = match[2] or machine
            if match[2] and match[3] == LEAF:
                return f"127.0.0.1:{self._line(named).port}"
            return f"127.0.0.1:{self.port(named, match[3])}"

        return _ADDRESS.sub(address, text)

    def port(self, machine: str, port: str) -> int:
        """Return the port that means a machine's port of the page."""
        return self._ports.setdefault((machine, port), free_port())

    def _line(self, machine: str) -> Proxy:
        if machine not in self.lines:
            self.lines[machine] = self.site.proxy(self.port(machine, LEAF))
        return self.lines[machine]

    def order(self, word: str) -> None:
        """Cut every line, or let it pass; see `tests/cluster/proxy.py`."""
        for line in self.lines.values():
            line.order(word)

    def nodes(self) -> list[PageNode]:
        """Return the six nodes of the page's command lines, not started."""
        nodes = []
        for command in block("nodes").splitlines():
            words = shlex.split(command)
            assert words[:2] == ["harmonylite", "-config"]
            name = words[words.index("-node-id") + 1]
            nodes.append(self.node(name, words[2], [self.here(word, name) for word in words[3:]]))
        return nodes

    def node(self, name: str, file: str, arguments: Sequence[str] = ()) -> PageNode:
        """Return a node with the page's configuration ``file``, not started."""
        given = ["-node-id", name] if "-node-id" not in arguments else []
        node = PageNode(name, self.site.folder / name, arguments=[*given, *arguments])
        node.text = self.here(block(file), name)
        make(node.db, TABLES)
        self.site.running.insert(0, node)
        return node

    def server(self, name: str, file: str, *, without: Mapping[str, str] | None = None) -> PageServer:
        """Return a nats-server with the page's ``file``, which is the first one's there, not started.

        ``without``: pieces of its text, and what is there instead.
        """
        server = PageServer(name, self.site.folder / f"nats-{name}")
        server.port = self.port(name, "4222")
        server.text = self.server_text(name, file, without=without)
        self.site.running.append(server)
        return server

    def server_text(self, name: str, file: str, *, without: Mapping[str, str] | None = None) -> str:
        """Return the page's server file as it is for the server ``name``."""
        text = block(file)
        for piece, instead in {f"server_name: {name[0]}1\n": f"server_name: {name}\n", **(without or {})}.items():
            assert piece in text, f"{file} has no {piece!r}"
            text = text.replace(piece, instead)
        return self.here(text, name)
