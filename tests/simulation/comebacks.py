"""Comebacks: an application that writes as soon as a file is there, reading first, in every way of coming back.

All applications count on one row: each reads it and writes one more. A node counts when it has heard of the last count,
so that no two count at once; and as soon as a file is there that came back, whatever that says. What was acknowledged
before is in such a file, so no count is ever undone.
"""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import ClassVar

from harmonylite.db.snapshot import save_copy
from tests.simulation.calamities import Calamities, main
from tests.simulation.properties import check_always, must
from tests.simulation.survivor import Survivor

TALLY = ("CREATE TABLE tally(id TEXT PRIMARY KEY NOT NULL, n INTEGER NOT NULL)", "INSERT INTO tally VALUES ('all', 0)")


@dataclass
class Count:
    """How often all nodes counted. ``acknowledged``: how much of that some mirror holds."""

    reached: int = 0
    acknowledged: int = 0
    lost: bool = False
    """Streams lost their tails: what was acknowledged may be gone with them."""


@dataclass
class Returning(Survivor):
    """A node whose application counts."""

    count: Count = field(default_factory=Count)

    def create(self) -> None:
        """Make the application's file, with the table in which all count."""
        super().create()
        for sql in TALLY:
            self.app.connection.execute(sql)
        self._made = self.app.connection.total_changes()

    @property
    def untouched(self) -> bool:
        """True while the application has written nothing but its tables."""
        return self.app.connection.total_changes() == self._made

    def reads(self) -> int:
        """Return what this node's file says of the count."""
        return int(self.app.connection.execute("SELECT n FROM tally").get or 0)

    def acknowledge(self) -> None:
        """Take what the mirror says for acknowledged."""
        if self.up:
            found = self.replica.connection.execute("SELECT n FROM mirror.tally").get or 0
            self.count.acknowledged = max(self.count.acknowledged, found)

    def in_turn(self) -> bool:
        """Count if this node has heard of the last count."""
        if self.reads() < self.count.reached:
            return False
        self._one_more()
        return True

    def at_once(self) -> None:
        """Count on whatever the file says that is there now, unless the last count is known to nobody else yet."""
        found, last = self.reads(), self.count.reached
        if not (self.world.torn or self.count.lost):
            known = self.count.acknowledged
            must(found >= known, f"{self.name}: a file that came back says {found}, and {known} were acknowledged")
            if found == last:
                self._one_more()
        self.app.transaction()

    def _one_more(self) -> None:
        self.app.connection.execute("UPDATE tally SET n = n + 1")
        self.count.reached += 1

    # ways of coming back -----------------------------------------------------------------------------------------

    def lose_file(self, snapshot: Path) -> None:
        """Lose the database under the running node, or the file alone without what SQLite keeps beside it."""
        self._note_journal()
        gone = ("",) if self.rng.random() < 0.5 else ("", "-wal", "-shm")
        for side in gone:
            Path(f"{self.options.database}{side}").unlink(missing_ok=True)
        before = self.app.connection
        self.stop()
        self.come_back(snapshot)
        before.close()

    def appear(self, snapshot: Path) -> None:
        """Be a new node without a file."""
        self.app.connection.close()
        shutil.rmtree(self.folder)
        self.come_back(snapshot)

    def heal(self) -> None:
        """Have the database healed, as one that is damaged; what was not published yet is in it."""
        self.stop()
        file = self.folder / "mirror" / "healing.db"
        save_copy(self.options.mirror, file)
        self.session += 1
        asyncio.run(self.builder().heal(file))
        self.app.connection.close()
        self._open_app()
        self.at_once()
        self.start()


@dataclass
class Comebacks(Calamities):
    """One run; see the module."""

    counts: ClassVar[dict[str, int]] = {}
    survivor = Returning

    def __post_init__(self) -> None:
        super().__post_init__()
        self.coming = Random(f"comebacks {self.seed}")
        count = Count()
        for node in self.nodes:
            assert isinstance(node, Returning)
            node.count = count

    def run(self) -> None:
        """Run to the end; every count is there then."""
        super().run()
        for node in self.members:
            assert isinstance(node, Returning)
            if not self.world.torn:
                must(node.reads() == node.count.reached, f"{node.count.reached} counts, {node.reads()} on {node.name}")

    def _step(self) -> None:
        for node in self.members:
            assert isinstance(node, Returning)
            node.acknowledge()
        node = self.coming.choice(self.members)
        assert isinstance(node, Returning)
        if self.coming.random() < 0.1:
            self._calm()
        if self.coming.random() < 0.3 and node.up and node.in_turn():
            self._note(node, f"counts {node.count.reached}")
        strikes = (self._lose_file, self._heal, self._appear, self._lose_disk, self._back_up, self._restore, self._save)
        if self.coming.random() < 0.2 and node.up:
            strike = self.coming.choice(strikes)
            if strike(node):
                name = strike.__name__.removeprefix("_")
                self._note(node, name)
                self.counts[name] = self.counts.get(name, 0) + 1
        super()._step()

    def _calm(self) -> None:
        """Let all that are up come to rest: only what is at rest may lose its files."""
        for _ in range(4):
            for node in self.members:
                if node.up:
                    self._settle(node)

    def _lose_file(self, node: Survivor) -> bool:
        assert isinstance(node, Returning)
        snapshot = node.usable() if node.at_rest else None
        if snapshot is None:
            return False
        node.lose_file(snapshot)
        check_always(node)
        return True

    def _restore(self, node: Survivor) -> bool:
        """Put a backup back: that is the user's file, and nobody is to write before the node is ready."""
        assert isinstance(node, Returning)
        if not super()._restore(node):
            return False
        node.at_once()
        return True

    def _appear(self, node: Survivor) -> bool:
        """Let the next node come without a file."""
        late = self.nodes[len(self.members)] if len(self.members) < len(self.nodes) else None
        if not isinstance(late, Returning) or not late.untouched or (snapshot := late.usable()) is None:
            return False
        late.appear(snapshot)
        self.members.append(late)
        check_always(late)
        return True

    def _heal(self, node: Survivor) -> bool:
        assert isinstance(node, Returning)
        lineage, forgotten = node.replica.lineage(), self.fragile.forgotten
        kept = all(p.resume - 1 >= forgotten.get(s, 0) for s, p in lineage.positions.items())
        if self.world.torn or not kept or lineage.history != self.fragile.history:
            return False
        node.heal()
        check_always(node)
        return True


if __name__ == "__main__":
    main(Comebacks)
