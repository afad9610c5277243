"""Nodes that stand still: for a while they get nothing of some shards, and write, capture and publish all the same.

So does a node that waits before a message, for a schema or for a person. Drawn apart, for the schedules that ask for
it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

import apsw

from tests.simulation.node import Node
from tests.simulation.properties import must

DDL = "CREATE TABLE tally(id TEXT PRIMARY KEY NOT NULL, n, m)"
KEYS = ("x", "y", "z")


class Standing:
    """What makes nodes of one schedule stand still, and a table whose rows all applications write, never deleting one.

    ``replaced``: values that a writer saw and replaced. None of them may come back: that would undo what this writer,
    or a later one that saw its value, wrote.
    """

    def __init__(self, seed: int) -> None:
        self.replaced: set[str] = set()
        self._rng = Random(f"standing {seed}")
        self._left: dict[str, int] = {}
        self._serial = 0

    def step(self, members: Sequence[Node], nodes: Sequence[Node], note: Callable[[Node, str], None]) -> None:
        """Let nodes stand still, or go on, and those that do write and publish meanwhile."""
        rng = self._rng
        for node in members:
            if node.deaf and (left := self._left.get(node.name, 0)) > 0:
                self._left[node.name] = left - 1
            elif node.deaf:
                note(node, "goes on")
                node.deaf = frozenset()
        if rng.random() < 0.08:
            node = rng.choice(members)
            shards = range(node.world.shards)
            node.deaf = frozenset(rng.sample(shards, rng.randint(1, len(shards))))
            self._left[node.name] = rng.randint(5, 40)
            note(node, f"stands still on {sorted(node.deaf)}")
        if rng.random() < 0.4:
            self._transaction(rng.choice(nodes), note)
        for node in members:
            if node.up and node.deaf and rng.random() < 0.4:
                if rng.random() < 0.5:
                    self._transaction(node, note)
                else:
                    note(node, "writes")
                    node.app.transaction()
                if node.capture(ahead=True):
                    note(node, f"captures {node.flight and node.flight.out.id}")
                while rng.random() < 0.9 and node.publish():
                    note(node, "publishes")

    def _transaction(self, node: Node, note: Callable[[Node, str], None]) -> None:
        """Read a row and write it."""
        rng, replaced = self._rng, set[str]()
        write: Callable[..., apsw.Cursor] = node.app.connection.execute
        write("BEGIN IMMEDIATE")
        for key in rng.sample(KEYS, rng.choice((1, 1, 2))):
            seen = write("SELECT n, m FROM tally WHERE id = ?", (key,)).fetchall()
            if not seen:
                write("INSERT INTO tally VALUES (?, ?, ?)", (key, self._fresh(node), self._fresh(node)))
            for i in rng.choice(((0,), (1,), (0, 1))) if seen else ():
                write(f"UPDATE tally SET {'nm'[i]} = ? WHERE id = ?", (self._fresh(node), key))
                replaced.add(str(seen[0][i]))
        if rng.random() < 0.05:
            write("ROLLBACK")
            return
        write("COMMIT")
        note(node, f"replaces {sorted(replaced)}")
        self.replaced |= replaced

    def _fresh(self, node: Node) -> str:
        self._serial += 1
        return f"{node.name}:{self._serial}"

    def check_at_rest(self, node: Node) -> None:
        """What was seen and replaced is gone."""
        found = {value for row in node.app.connection.execute("SELECT n, m FROM tally") for value in row}
        must(not found & self.replaced, f"an older value is back: {sorted(found & self.replaced)}")
