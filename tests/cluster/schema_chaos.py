"""``python -m tests.cluster.schema_chaos SEED… 1..20``: schema changes of every kind on every node, and killed nodes.

Applications beside three real nodes change the schema and the rows as those of the simulation do (its `reshaping`),
with pauses from none to longer than a node takes to send one. Invariant that the schedule must keep: with all nodes up
again their files are intact and have the same objects, the same columns and the same rows, and the nodes agree.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import apsw

from tests.cluster.chaos import by_hand, told
from tests.cluster.fix_cluster import Site, start
from tests.cluster.processes import Node, agree, until, until_equal
from tests.seeds import seeds
from tests.simulation.reshaping import objects, transaction

STEPS = 40
PAUSES = (0.0, 0.002, 0.01, 0.05, 0.3)
"""Seconds after a transaction: in a burst with the next one, as long as a node takes to send it, or longer."""
TABLES = "CREATE TABLE x1(id TEXT PRIMARY KEY NOT NULL, p TEXT DEFAULT 'dp', q DEFAULT 'dq')"


class SchemaChaos:
    """One schedule. ``told``: what it did, for anyone who looks for the reason of a failure."""

    def __init__(self, site: Site, seed: int, *, changers: int) -> None:
        self.told: list[str] = []
        self._random = Random(seed)
        self._site = site
        self._changers = changers
        self._server = site.server()
        sections: dict[str, dict[str, Any]] = {
            "schema": {"apply": "all"},
            "replication_log": {"shards": self._random.choice([1, 1, 3])},
        }
        self.nodes = [
            site.node(name, urls=[self._server.url], sections=sections, tables=TABLES) for name in ("a", "b", "c")
        ]

    def run(self, steps: int) -> None:
        """Let applications commit ``steps`` transactions while nodes and the server come and go; then look."""
        start(self.nodes)
        until_equal(self.nodes)
        for _ in range(steps):
            self._transaction()
            if self._random.random() < 0.1:
                self._disturb()
            time.sleep(self._random.choice(PAUSES))
        self._end()

    def _transaction(self) -> None:
        place = self._random.randrange(len(self.nodes))
        node = self.nodes[place]
        with application(node.db) as connection:
            done = transaction(self._random, connection, changes=place < self._changers)
        self._say(f"{node.name}: {'; '.join(done)}")

    def _disturb(self) -> None:
        node = self._random.choice(self.nodes)
        if not self._server.alive:
            self._server.start()
            self._say("the server starts")
        elif not node.alive:
            node.start()
            self._say(f"{node.name} starts")
        elif self._random.random() < 0.3:
            self._server.kill()
            self._say("the server is killed")
        else:
            node.kill()
            self._say(f"{node.name} is killed")

    def _end(self) -> None:
        self._say("the end")
        if not self._server.alive:
            self._server.start()
        for node in self.nodes:
            if not node.alive:
                node.start()
        for node in self.nodes:
            node.ready()
        for node in self.nodes:
            until(partial(_all_sent, node), f"{node.name} sent all that it has")
        until(lambda: len({frozenset(schema(node)) for node in self.nodes}) == 1, f"one schema:\n{self._schemas()}")
        until_equal(self.nodes, "at the end")
        agree(self.nodes)
        for node in self.nodes:
            assert node.value("PRAGMA integrity_check") == "ok", node.name
            text = node.log.read_text()
            assert "unexpected error" not in text, f"{node.name}: an unexpected error"
            assert "Traceback" not in text, f"{node.name}: a traceback"
        self._say(f"equal with {sum(each[0] == 'object' for each in schema(self.nodes[0]))} objects")

    def _schemas(self) -> str:
        found = [schema(node) for node in self.nodes]
        common = set.intersection(*found)
        return "\n".join(f"{node.name}: {sorted(each - common)}" for node, each in zip(self.nodes, found, strict=True))

    def _say(self, what: str) -> None:
        self.told.append(f"{time.strftime('%H:%M:%S')} {what}")


def _all_sent(node: Node) -> bool:
    return node.health().get("pending_rows") == 0


@contextmanager
def application(path: Path) -> Iterator[apsw.Connection]:
    """Open a database as an application would."""
    connection = apsw.Connection(str(path))
    connection.set_busy_timeout(30_000)
    try:
        yield connection
    finally:
        connection.close()


def schema(node: Node) -> set[tuple[str, ...]]:
    """Return what a node's file has of all that the applications change."""
    with node.reader() as connection:
        return objects(connection)


def run(site: Site, seed: int, steps: int = STEPS, *, changers: int = 3) -> str:
    """Run one schedule; return its last words. ``changers``: on how many nodes the schema is changed.

    A failure tells what was done.
    """
    return told(SchemaChaos(site, seed, changers=changers), steps)


def main() -> int:
    """Run the schedules that the command line names; return 1 when one failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.cluster.schema_chaos", description=__doc__)
    parser.add_argument("which", nargs="+", type=seeds, help="a seed, or a range like 1..20")
    parser.add_argument("--steps", type=int, default=STEPS, help="how much happens in each")
    parser.add_argument("--changers", type=int, default=3, help="how many nodes change their schema")
    given = parser.parse_args()
    schedule = partial(run, steps=given.steps, changers=given.changers)
    held = [by_hand(seed, schedule) for some in given.which for seed in some]
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())
