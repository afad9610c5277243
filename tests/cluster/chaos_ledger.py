"""The ledger of a chaos run: what applications wrote beside the nodes, and what of it must be there in the end.

Invariant: a row counts once its application was told that it is committed; from then on only a delete ends it.
"""

from __future__ import annotations

from collections.abc import Mapping
from random import Random

from tests.cluster.fix_cluster import Site
from tests.cluster.processes import Node, Rows

BURST = (0, 1, 3, 12)
"""How many transactions a node's application commits at a time, one of these."""


class Ledger:
    """Writes, and remembers. ``number``: how many transactions were tried."""

    def __init__(self, site: Site, random: Random) -> None:
        self.number = 0
        self._site = site
        self._random = random
        self._kept: dict[str, int] = {}
        self._deleted: set[str] = set()

    def write(self, node: Node, most: int | None = None) -> None:
        """Commit a few transactions beside a node, whether it runs or not; ``most``: so many of them."""
        count = self._random.choice(BURST) if most is None else most
        if not count or not node.db.exists():
            return
        application = self._site.application(node)
        for _ in range(count):
            self.number += 1
            added = [f"{node.name}-{self.number}-{i}" for i in range(self._random.choice([1, 2, 40]))]
            mine = [name for name in self._kept if name.startswith(node.name)]
            gone = self._random.sample(mine, 1) if mine and self._random.random() < 0.3 else []
            fought = [f"{node.name}-{self.number}", self._random.randint(1, 5)]
            answer = application.ask(
                [["INSERT INTO events VALUES (?, ?, ?, NULL)", [name, node.name, self.number]] for name in added]
                + [["DELETE FROM events WHERE id = ?", [name]] for name in gone]
                + [["UPDATE fought SET value = ? WHERE id = ?", fought]]
            )
            if "malformed" in answer.get("error", ""):
                break  # the node is about to heal it
            assert "rows" in answer, answer
            self._kept |= dict.fromkeys(added, self.number)
            for name in gone:
                del self._kept[name]
            self._deleted |= set(gone)
        application.aclose()

    def check(self, content: Mapping[str, Rows]) -> str:
        """Compare with what all nodes hold; return what there is to say of it."""
        there = {str(row[0]): row[2] for row in content["events"]}
        lost = sorted(name for name, number in self._kept.items() if there.get(name) != number)
        of = sorted({tuple(name.split("-")[:2]) for name in lost})
        assert not lost, f"{len(lost)} of {len(self._kept)} rows are lost, of transactions {of}"
        strange = sorted(there.keys() - self._kept.keys() - self._deleted)
        assert not strange, f"rows that nobody wrote: {strange[:5]}"
        # A delete that a lost disk or an old backup took along may come back: more is kept than has to be.
        back = len(self._deleted & there.keys())
        return f"{len(there)} rows; {back} of {len(self._deleted)} deleted ones are back"
