"""Rails' ActiveRecord and Knex migrate replicated files: on one node, on each in turn, on two at once.

They are left out where they are not: ActiveRecord comes with Debian's packages, Knex with `make libraries WHICH=node`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from tests.cluster.fix_cluster import Site, start
from tests.cluster.libraries import INSTALLED, PROGRAMS
from tests.cluster.processes import SECONDS, Node, agree, until, until_equal
from tests.needs import Need

pytestmark = pytest.mark.timeout(300)

MODULES = INSTALLED / "node" / "node_modules"
BEGUN = "CREATE TABLE begun(id TEXT PRIMARY KEY NOT NULL);"
BOOKS = "SELECT id, name, author, pages FROM books ORDER BY id"


@dataclass(frozen=True)
class Tool:
    """A program that migrates a file. ``notes``: asks a file for what it has recorded; ``find``: is the tool there?"""

    name: str
    command: tuple[str, ...]
    notes: str
    find: tuple[str, ...]
    install: str

    def skip(self) -> None:
        """Leave the test out where the tool is missing."""
        there = shutil.which(self.find[0]) is not None and self._run(*self.find).returncode == 0
        Need(self.name, "" if there else self.install).skip()

    def migrate(self, nodes: Sequence[Node], version: int) -> list[str]:
        """Migrate the files of all ``nodes`` at once; return what failed, "" for what did not."""
        running = [self._start(*self.command, str(node.db), str(version)) for node in nodes]
        told = [each.communicate(timeout=SECONDS)[0] for each in running]
        return ["" if each.returncode == 0 else text for each, text in zip(running, told, strict=True)]

    def _run(self, *command: str) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"NODE_PATH": str(MODULES)}
        return subprocess.run(command, env=environment, text=True, check=False, capture_output=True, timeout=SECONDS)

    def _start(self, *command: str) -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        environment = os.environ | {"NODE_PATH": str(MODULES)}
        return subprocess.Popen(command, env=environment, text=True, stdout=pipe, stderr=subprocess.STDOUT)


TOOLS = (
    Tool(
        "ActiveRecord",
        ("ruby", str(PROGRAMS / "active_record" / "migrate.rb")),
        "SELECT CAST(version AS INTEGER) FROM schema_migrations ORDER BY 1",
        ("ruby", "-e", "require 'active_record'; require 'sqlite3'"),
        "apt-get install ruby-activerecord ruby-sqlite3",
    ),
    Tool(
        "Knex",
        ("node", str(PROGRAMS / "knex.js")),
        "SELECT instr('books author title note', name) > 0 FROM knex_migrations ORDER BY name",
        ("node", "-e", "require('knex'); require('better-sqlite3')"),
        "make libraries WHICH=node",
    ),
)


@pytest.mark.parametrize("where", ["on one node", "on each in turn", "on two at once"])
@pytest.mark.parametrize("tool", TOOLS, ids=[tool.name for tool in TOOLS])
def test_a_tool_migrates(site: Site, tool: Tool, where: str) -> None:
    tool.skip()
    nodes = [site.node(name, tables=BEGUN) for name in ("a", "b")]
    start(nodes)
    a, b = nodes
    writer = site.application(b)

    def migrate(version: int, expected: set[str]) -> None:
        at_once = nodes if where == "on two at once" else nodes[:1]
        for _ in range(20):  # a table that the other one's migration just brought ends a migration: then once more
            failed = [text for text in tool.migrate(at_once, version) if text]
            if not failed:
                break
            # a transaction that has read and meets a merge is refused, too
            assert where == "on two at once" or all("locked" in text for text in failed), failed
        assert not failed
        for node in nodes:
            until(lambda: columns(node) == expected, f"{node.name} has {sorted(expected)}")  # noqa: B023
            until(lambda: len(node.rows(tool.notes)) == version, f"{node.name} has {version} notes")  # noqa: B023
        if where == "on each in turn":
            assert tool.migrate(nodes[1:], version) == [""]

    migrate(2, {"id", "title", "note", "author"})
    writer.write("INSERT INTO books(id, title, note) VALUES ('b1', 'first', 'old')")
    migrate(3, {"id", "name", "note", "author"})
    writer.write("INSERT INTO books(id, name, note, author) VALUES ('b2', 'second', 'old', NULL)")
    until_equal(nodes)
    migrate(4, {"id", "name", "author", "pages"})
    writer.write("INSERT INTO books(id, name) VALUES ('b3', 'third')")
    until_equal(nodes)
    assert a.rows(BOOKS) == [("b1", "first", "nobody", 7), ("b2", "second", "nobody", 7), ("b3", "third", "nobody", 0)]
    until(lambda: len({node.health()["schema"]["hash"] for node in nodes}) == 1, "both have one schema")
    agree(nodes)


def columns(node: Node) -> set[str]:
    """Return the columns of the table in the file of ``node``."""
    return {str(name) for (name,) in node.rows("SELECT name FROM pragma_table_info('books')")}
