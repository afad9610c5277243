"""Calamities: streams that forget, are lost or lose their tail, disks that are lost, databases restored from backups.

The same steps and the same properties as in `tests.simulation.run`, with these events among the others. What a lost
disk or an old backup takes with it is only what was not published yet, so those strike when a node is at rest.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from tempfile import mkdtemp
from typing import ClassVar

import apsw

from harmonylite.changes.histories import Standing, drift, further, held, relation
from harmonylite.changes.inbox import Cut
from harmonylite.db.snapshot import make_database, save_copy, standing_of
from harmonylite.model import Position, StreamMessage
from tests.simulation import run as plain
from tests.simulation.node import Node
from tests.simulation.properties import check_always, must
from tests.simulation.rarer import MEMO
from tests.simulation.tails import Tape, go_back
from tests.simulation.workload import Application
from tests.simulation.world import World


@dataclass
class Fragile(World):
    """Streams that forget their oldest messages, and can be lost. ``history``: how often they were."""

    folder: Path = Path()
    forgotten: dict[int, int] = field(default_factory=dict)
    history: str = ""
    snapshots: list[Path] = field(default_factory=list)
    saved: int = 0

    def after(self, shard: int, seq: int, most: int) -> list[StreamMessage]:
        """Return up to ``most`` messages after ``seq``; whoever asks for a forgotten one reads over a gap."""
        must(seq >= self.forgotten.get(shard, 0), f"message {seq + 1} of shard {shard} is read and was forgotten")
        return super().after(shard, seq, most)

    def save(self, node: Node, beginning: Callable[[Standing], Standing] | None = None) -> Path:
        """Save a snapshot of a node's mirror."""
        self.saved += 1
        file = self.folder / f"snapshot-{self.saved}.db"
        save_copy(node.options.mirror, file, beginning=beginning)
        self.snapshots.append(file)
        return file

    def forget(self) -> None:
        """Forget what the newest snapshot makes unnecessary."""
        for shard, position in standing_of(self.snapshots[-1]).positions.items():
            self.forgotten[shard] = max(self.forgotten.get(shard, 0), position.resume - 1)

    def lose(self, node: Node) -> None:
        """Lose all streams; the cluster goes on from the mirror of ``node``."""
        self.streams = [[] for _ in range(self.shards)]
        self.forgotten.clear()
        self.mirrors.clear()
        self.snapshots.clear()
        self.history = f"h{self.time}"
        self.save(node, lambda now: now.anew(self.history, {s: Position(s) for s in range(self.shards)}))


class Survivor(Node):
    """A node that recovers at each start, by the rules of `harmonylite.snapshots`.

    ``even``: its two files stood at the same positions when it was stopped last.
    """

    even = True

    @property
    def fragile(self) -> Fragile:
        """The world, for what it is here."""
        assert isinstance(self.world, Fragile)
        return self.world

    def start(self) -> None:
        """Start the process, and take up a new beginning, or what the streams have forgotten, from a snapshot."""
        super().start()
        self.replica.set_created(dict.fromkeys(range(self.world.shards), "now"))
        self._settle_drift()
        self._go_back()
        mine = self.replica.standing()
        lost = mine.history != self.fragile.history
        gap = any(p.resume - 1 < self.fragile.forgotten.get(s, 0) for s, p in mine.positions.items())
        if (lost or gap) and self.fragile.snapshots:
            file = self.folder / "incoming.db"
            mine = held(self.replica.standing("main"), mine)
            newest, first = self.fragile.snapshots[-1], self.fragile.snapshots[0]
            way = relation(mine, standing_of(newest))
            if way == "ahead" and newest != first:
                resume = {s: p.resume for s, p in standing_of(first).positions.items()}
                if all(seq < resume[s] for s, seq in self.fragile.forgotten.items()):
                    newest = first
                else:
                    way = "apart"
            shutil.copy(newest, file)
            theirs = standing_of(file)
            self.replica.adopt(file, relation="behind" if way == "same" else way, further=further(mine, theirs))
            self._go_back()
        self._read_from_here()

    def _go_back(self) -> None:
        """Find out that the streams lost what this node has folded, where they did."""
        world, history = self.fragile, self.fragile.history
        if world.torn and self.replica.standing().history == history:
            tapes = [Tape(world, shard, world.forgotten.get(shard, 0)) for shard in range(world.shards)]
            go_back(self.replica, tapes, world.snapshots, history)

    def stop(self) -> None:
        """End the process."""
        self.even = self.replica.merged_positions() == self.replica.positions()
        super().stop()

    def apply_and_lose_the_mirror(self, cut: Cut) -> None:
        """Be killed between the two commits."""
        super().apply_and_lose_the_mirror(cut)
        self.even = False

    def _settle_drift(self) -> None:
        if not self.replica.joined:
            return
        database, mirror = self.replica.standing("main"), self.replica.standing("mirror")
        way = drift(database, mirror)
        if way == "ahead":
            self.replica.keep_mine(further(database, mirror))
        elif way != "same":
            self.replica.reconcile(first=way == "apart", keep_log=True)

    @property
    def at_rest(self) -> bool:
        """True when nothing here is unpublished, and everything that was is in the mirror."""
        return (
            self.up and self.flight is None and self.ready and self.replica.look() == 0
            and self.replica.held_rows() == 0 and self.replica.standing().history == self.fragile.history
        )  # fmt: skip

    def lose_disk(self) -> None:
        """Lose all files, and begin again from the newest snapshot."""
        self._note_journal()
        self.stop()
        self.app.connection.close()
        shutil.rmtree(self.folder)
        (self.folder / "mirror").mkdir(parents=True)
        file = self.folder / "fetched.db"
        shutil.copy(self.fragile.snapshots[-1], file)
        make_database(self.options, file)
        self._open_app()
        self.start()

    def backup(self) -> Path:
        """Return a copy of the database as it is now."""
        file = self.folder.parent / f"backup-{self.name}.db"
        file.unlink(missing_ok=True)
        self.app.connection.execute("VACUUM INTO ?", (str(file),))
        return file

    def restore(self, backup: Path) -> None:
        """Put an old copy in the database's place while everything is stopped."""
        self._note_journal()
        self.stop()
        self.app.connection.close()
        for ending in ("", "-wal", "-shm"):
            Path(f"{self.options.database}{ending}").unlink(missing_ok=True)
        shutil.copy(backup, self.options.database)
        self._open_app()
        self.start()

    def _note_journal(self) -> None:
        """Take what the journal says for said: entries of this file alone go with it."""
        for conflict in self.replica.conflicts(limit=1 << 30):
            said = conflict.key.get("id") if conflict.table == "claim" else conflict.overruled
            if conflict.table in ("note", "claim", MEMO):
                self.ledger.replaced.add(str(said))

    def _open_app(self) -> None:
        connection = apsw.Connection(str(self.options.database))
        connection.pragma("journal_mode", "wal")
        connection.pragma("synchronous", 0)
        connection.pragma("foreign_keys", 1)
        connection.pragma("trusted_schema", 0)
        connection.pragma("recursive_triggers", 1)
        self.app = Application(self.name, connection, self.shapes, self.ledger, self.rng)


@dataclass
class Calamities(plain.Schedule):
    """One run; see the module. ``counts``: how often each event struck, over all runs."""

    counts: ClassVar[dict[str, int]] = {}
    growing = False

    def __post_init__(self) -> None:
        super().__post_init__()
        old, rng = self.world, self.rng
        self.world = Fragile(old.shards, folder=self.folder)
        self.nodes = [
            Survivor(n.name, n.folder, self.world, rng, n.message_bytes, n.shapes, n.ledger) for n in self.nodes
        ]
        self.backups: dict[str, Path] = {}
        self.tails = self.seed % 3 == 0
        self.apart = Random(f"tails {self.seed}")  # drawn apart, so that schedules without lost tails stay theirs

    def _step(self) -> None:
        if self.tails and self.apart.random() < 0.05 and self._lose_tail():
            self._note(self.members[0], "lose_tail")
            self.counts["lose_tail"] = self.counts.get("lose_tail", 0) + 1
            return
        strikes = (
            self._save, self._forget, self._lose_streams, self._lose_disk, self._back_up, self._restore,
        )  # fmt: skip
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
        """Tell whether a snapshot of ``node`` is nowhere behind the newest one."""
        standing = node.replica.standing()
        newest = standing_of(self.fragile.snapshots[-1]) if self.fragile.snapshots else Standing()
        there = newest.positions
        return standing.history == self.fragile.history and all(
            p.seq >= there[s].seq and p.resume >= there[s].resume for s, p in standing.positions.items() if s in there
        )

    def _forget(self, node: Survivor) -> bool:
        """Forget what the newest snapshot has; whoever is up and would have needed it starts again."""
        if not self._save(node):
            return False
        self.fragile.forget()
        for other in self.members:
            if other.up and any(other.inbox.read_up_to(s) < seq for s, seq in self.fragile.forgotten.items()):
                other.stop()
                other.start()
                check_always(other)
        return True

    def _lose_streams(self, node: Survivor) -> bool:
        if node.replica.standing().history != self.fragile.history:
            return False
        if self.tails and self.apart.random() < 0.9:
            return False  # streams that are lost so often have no tail to lose
        up = [other for other in self.members if other.up]
        for other in up:
            if other.flight is not None:
                other.flight.out.close()
                other.flight = None
        best = max(up, key=lambda n: sum(p.seq for p in n.replica.standing().positions.values()))
        if any(self._merged_more(other, best) for other in self.members):
            self.world.torn = True  # it publishes that anew, later than what its writer may have written since
        self.fragile.lose(best)
        for other in up:
            other.stop()
        for other in up:
            other.start()
            check_always(other)
        return True

    @staticmethod
    def _merged_more(node: Node, best: Node) -> bool:
        """Tell whether a database may know more than the mirror that all go on from."""
        if not node.up:
            return isinstance(node, Survivor) and not node.even
        known = best.replica.positions()
        return any(p.seq > known[shard].seq for shard, p in node.replica.merged_positions().items())

    def _lose_tail(self) -> bool:
        """Let the streams lose their newest messages, some shards more, some none; tell whether they lost any.

        Not while a node is down whose database knows more than its mirror: what the lost messages put into it is then
        only found by comparing the two (`verify`). The same goes for a backup.
        """
        world, up = self.fragile, [other for other in self.members if other.up]
        kept = [
            there for there in map(standing_of, world.snapshots)
            if all(p.resume - 1 >= world.forgotten.get(s, 0) for s, p in there.positions.items())
            and all(p.seq <= world.last(s) for s, p in there.positions.items())
        ]  # fmt: skip
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
            if other.flight is not None:
                other.flight.out.close()
                other.flight = None
            other.stop()
        for other in up:
            other.start()
            check_always(other)
        return True

    def _lose_disk(self, node: Survivor) -> bool:
        if not (node.at_rest and self.fragile.snapshots and self.world.shards):
            return False
        node.lose_disk()
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
        while any(node.inbox.read_up_to(s) < self.world.last(s) for s in range(self.world.shards)):
            node.deliver(1000)
        while (cut := node.take()) is not None:
            node.apply(cut)
        check_always(node)


def run(seed: int, *, steps: int = 0) -> None:
    """Run the schedule of one seed in a folder of its own; a failure says how to run it again."""
    shm = Path("/dev/shm")
    folder = Path(mkdtemp(prefix="harmonylite-", dir=shm if shm.is_dir() else None))
    schedule = Calamities(seed, folder, steps)
    schedule.rng = Random(seed)
    for node in schedule.nodes:
        node.rng = schedule.rng
    try:
        schedule.run()
    except BaseException as error:
        error.add_note(f"seed {seed}; run it again with: python -m tests.simulation.calamities {seed}")
        raise
    finally:
        schedule.close()
        shutil.rmtree(folder)


if __name__ == "__main__":
    import sys

    first, last = (int(word) for word in (sys.argv[1:] + sys.argv[1:])[:2])
    failed = []
    for number in range(first, last + 1):
        try:
            run(number)
        except Exception as error:  # noqa: BLE001 # every seed is to be tried
            failed.append(number)
            sys.stdout.write(f"{number}: {type(error).__name__}: {str(error)[:300]}\n")
            sys.stdout.flush()
    sys.stdout.write(f"{last - first + 1} schedules, {len(failed)} failed, {Calamities.counts}\n")
