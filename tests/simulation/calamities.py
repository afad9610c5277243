"""Calamities: streams that forget, are lost or lose their tail, disks that are lost, databases restored from backups.

The same steps and the same properties as in `tests.simulation.run`, with these events among the others. What a lost
disk or an old backup takes with it is only what was not published yet, so those strike when a node is at rest.
"""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from random import Random
from tempfile import mkdtemp
from typing import ClassVar

from harmonylite.changes import aborts
from harmonylite.changes.epochs import Lineage
from harmonylite.db.snapshot import lineage_of
from harmonylite.snapshots import roll_forward
from tests.simulation import run as plain
from tests.simulation.node import Node
from tests.simulation.properties import check_always
from tests.simulation.survivor import Fragile, Survivor


@dataclass
class Calamities(plain.Schedule):
    """One run; see the module. ``counts``: how often each event struck, over all runs."""

    counts: ClassVar[dict[str, int]] = {}
    survivor: ClassVar[type[Survivor]] = Survivor
    growing = False

    def __post_init__(self) -> None:
        super().__post_init__()
        old, rng = self.world, self.rng
        self.world = Fragile(old.shards, folder=self.folder)
        self.nodes = [
            self.survivor(n.name, n.folder, self.world, rng, n.message_bytes, n.shapes, n.ledger) for n in self.nodes
        ]
        # what a lost tail or an older file takes from the schema is left to a migration by hand: docs/schema.md
        self.travels = False
        # the files that are made here know nothing of records: those have schedules of their own
        self.records = None
        self.backups: dict[str, Path] = {}
        self.tails = self.seed % 3 == 0
        self.apart = Random(f"tails {self.seed}")  # drawn apart, so that schedules without lost tails stay theirs

    def _step(self) -> None:
        if self.tails and self.apart.random() < 0.05 and self._lose_tail():
            self._note(self.members[0], "lose_tail")
            self.counts["lose_tail"] = self.counts.get("lose_tail", 0) + 1
            return
        strikes = (
            self._save,
            self._forget,
            self._lose_streams,
            self._lose_disk,
            self._back_up,
            self._restore,
        )
        node = self.rng.choice(self.members)
        if self.rng.random() < 0.12 and isinstance(node, Survivor) and node.up:
            strike = self.rng.choice(strikes)
            if strike(node):
                name = strike.__name__.removeprefix("_")
                self._note(node, name)
                self.counts[name] = self.counts.get(name, 0) + 1
            return
        super()._step()

    @property
    def fragile(self) -> Fragile:
        """The world, for what it is here."""
        assert isinstance(self.world, Fragile)
        return self.world

    def _save(self, node: Survivor) -> bool:
        if not self._usable(node):
            return False
        self.fragile.save(node)
        return True

    def _usable(self, node: Node) -> bool:
        """Return whether a snapshot of ``node`` is nowhere behind the newest one."""
        lineage = node.replica.lineage()
        newest = lineage_of(self.fragile.snapshots[-1]) if self.fragile.snapshots else Lineage()
        there = newest.positions
        return lineage.history == self.fragile.history and all(
            p.seq >= there[s].seq and p.resume >= there[s].resume for s, p in lineage.positions.items() if s in there
        )

    def _forget(self, node: Survivor) -> bool:
        """Forget what the newest snapshot has; anyone who is up and would have needed it starts again."""
        if not self._save(node):
            return False
        self.fragile.forget()
        for other in self.members:
            if other.up and any(other.reassembler.read_up_to(s) < seq for s, seq in self.fragile.forgotten.items()):
                other.stop()
                other.start()
                check_always(other)
        return True

    def _lose_streams(self, node: Survivor) -> bool:
        if node.replica.lineage().history != self.fragile.history:
            return False
        if self.tails and self.apart.random() < 0.9:
            return False  # streams that are lost so often have no tail to lose
        up = [other for other in self.members if other.up]
        for other in up:
            while other.air:
                other.air.pop().out.close()
        best = max(up, key=lambda n: sum(p.seq for p in n.replica.lineage().positions.values()))
        if any(self._merged_more(other, best) for other in self.members):
            self.world.torn = True  # it publishes that again, later than what its writer may have written since
        self.fragile.lose(best)
        for other in up:
            other.stop()
        for other in up:
            other.start()
            check_always(other)
        return True

    @staticmethod
    def _merged_more(node: Node, best: Node) -> bool:
        """Return whether a database may know more than the mirror that all continue from."""
        if not node.up:
            return isinstance(node, Survivor) and not node.even
        known = best.replica.positions()
        return any(p.seq > known[shard].seq for shard, p in node.replica.merged_positions().items())

    def _lose_tail(self) -> bool:
        """Let the streams lose their newest messages, some shards more, some none; return whether they lost any.

        Not while a node is down whose database knows more than its mirror: what the lost messages put into it is then
        only found by comparing the two (`verify`). The same goes for a backup.
        """
        world, up = self.fragile, [other for other in self.members if other.up]
        kept = [
            there
            for there in map(lineage_of, world.snapshots)
            if all(p.resume - 1 >= world.forgotten.get(s, 0) for s, p in there.positions.items())
            and all(p.seq <= world.last(s) for s, p in there.positions.items())
        ]
        if not kept or len(up) < len(self.members) or any(other.limit is not None for other in up):
            return False
        least = self.apart.choice(kept).positions
        cuts = {
            shard: self.apart.randint(least[shard].seq if shard in least else 0, world.last(shard))
            for shard in range(world.shards)
        }
        if all(cuts[shard] == world.last(shard) for shard in cuts):
            return False
        for shard, end in cuts.items():
            del world.streams[shard][end:]
        world.torn = True
        world.mirrors.clear()
        self.backups.clear()
        for other in up:
            while other.air:
                other.air.pop().out.close()
            other.stop()
        for other in up:
            other.start()
            check_always(other)
        return True

    def _lose_disk(self, node: Survivor) -> bool:
        snapshot = node.usable() if node.at_rest else None
        if snapshot is None:
            return False
        node.lose_disk(snapshot)
        self._catch_up(node)
        return True

    def _back_up(self, node: Survivor) -> bool:
        if not node.at_rest:
            return False
        self.backups[node.name] = node.backup()
        return True

    def _restore(self, node: Survivor) -> bool:
        if not node.at_rest or node.name not in self.backups:
            return False
        node.restore(self.backups[node.name])
        self._catch_up(node)
        return True

    def _catch_up(self, node: Node) -> None:
        """Fold to the end, as a node does before it publishes; its own old values are there only then."""
        while any(node.reassembler.read_up_to(s) < self.world.last(s) for s in range(self.world.shards)):
            node.deliver(1000)
        while (cut := node.take()) is not None:
            node.apply(cut)
        check_always(node)


def run(seed: int, *, steps: int = 0, kind: type[Calamities] = Calamities) -> None:
    """Run the schedule of one seed in a folder of its own; a failure says how to run it again."""
    shm = Path("/dev/shm")
    folder = Path(mkdtemp(prefix="harmonylite-", dir=shm if shm.is_dir() else None))
    schedule = kind(seed, folder, steps)
    schedule.rng = Random(seed)
    for node in schedule.nodes:
        node.rng = schedule.rng
    usual = aborts.STALL, roll_forward.POLL_EVERY
    aborts.STALL = roll_forward.POLL_EVERY = 0.0  # who left a change set unfinished does not continue while others wait
    try:
        schedule.run()
    except BaseException as error:
        where = kind.__module__
        error.add_note(f"seed {seed}; run it again with: python -m {where} {seed}")
        raise
    finally:
        aborts.STALL, roll_forward.POLL_EVERY = usual
        schedule.close()
        shutil.rmtree(folder)


def main(kind: type[Calamities]) -> None:
    """Run the seeds that the command line names: one, or the first and the last of a range."""
    first, last = (int(word) for word in (sys.argv[1:] + sys.argv[1:])[:2])
    failed = []
    for number in range(first, last + 1):
        try:
            run(number, kind=kind)
        except Exception as error:  # noqa: BLE001 # every seed is to be tried
            failed.append(number)
            sys.stdout.write(f"{number}: {type(error).__name__}: {str(error)[:300]}\n")
            sys.stdout.flush()
    sys.stdout.write(f"{last - first + 1} schedules, {len(failed)} failed, {kind.counts}\n")


if __name__ == "__main__":
    main(Calamities)
