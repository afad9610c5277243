"""A simulated node that recovers at each start, in a world whose streams forget, are lost or lose their tail."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import apsw

from harmonylite.changes.epochs import Lineage, drift, further, held, relation
from harmonylite.changes.reassembler import AtomicBatch
from harmonylite.db.replica import Replica
from harmonylite.db.snapshot import lineage_of, save_copy
from harmonylite.model import Position, StreamMessage
from harmonylite.recovery.build_database import DatabaseBuilder
from harmonylite.snapshots.divergence import diverged
from harmonylite.status import NodeStatus
from tests.simulation.foreign import equip
from tests.simulation.node import Node
from tests.simulation.properties import must
from tests.simulation.rarer import MEMO
from tests.simulation.tails import Inline, Tape, go_back
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
        """Return up to ``most`` messages after ``seq``; anyone who asks for a forgotten one reads over a gap."""
        must(seq >= self.forgotten.get(shard, 0), f"message {seq + 1} of shard {shard} is read and was forgotten")
        return super().after(shard, seq, most)

    def save(self, node: Node, beginning: Callable[[Lineage], Lineage] | None = None) -> Path:
        """Save a snapshot of a node's mirror."""
        self.saved += 1
        file = self.folder / f"snapshot-{self.saved}.db"
        save_copy(node.options.mirror, file, beginning=beginning)
        self.snapshots.append(file)
        return file

    def forget(self) -> None:
        """Forget what the newest snapshot makes unnecessary."""
        for shard, position in lineage_of(self.snapshots[-1]).positions.items():
            self.forgotten[shard] = max(self.forgotten.get(shard, 0), position.resume - 1)

    def lose(self, node: Node) -> None:
        """Lose all streams; the cluster continues from the mirror of ``node``."""
        self.streams = [[] for _ in range(self.shards)]
        self.forgotten.clear()
        self.mirrors.clear()
        self.snapshots.clear()
        self.history = f"h{self.time}"
        self.save(node, lambda now: now.next_epoch(self.history, {s: Position(s) for s in range(self.shards)}))


class Follows:
    """Tells that the streams can be followed: what is asked has been seen to. Implements `offering.LeadsOn`."""

    async def leads_on(self, replica: Replica, seconds: float) -> bool:
        """Implement `LeadsOn.leads_on`."""
        return True


class Survivor(Node):
    """A node that recovers at each start, by the rules of `harmonylite.snapshots`.

    ``even``: its two files were at the same positions when it was stopped last.
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
        mine = self.replica.lineage()
        lost = mine.history != self.fragile.history
        gap = any(p.resume - 1 < self.fragile.forgotten.get(s, 0) for s, p in mine.positions.items())
        if (lost or gap) and self.fragile.snapshots:
            file = self.folder / "incoming.db"
            mine = held(self.replica.lineage("main"), mine)
            newest, first = self.fragile.snapshots[-1], self.fragile.snapshots[0]
            way = relation(mine, lineage_of(newest))
            if way == "ahead" and newest != first:
                resume = {s: p.resume for s, p in lineage_of(first).positions.items()}
                if all(seq < resume[s] for s, seq in self.fragile.forgotten.items()):
                    newest = first
                else:
                    way = "diverged"
            shutil.copy(newest, file)
            theirs = lineage_of(file)
            self.replica.adopt(file, relation="behind" if way == "same" else way, further=further(mine, theirs))
            self._go_back()
        self._read_from_here()

    def _go_back(self) -> None:
        """Find out that the streams lost what this node has folded, where they did."""
        world, history = self.fragile, self.fragile.history
        if world.torn and self.replica.lineage().history == history:
            go_back(self.replica, self.tapes, world.snapshots, history)

    def stop(self) -> None:
        """End the process."""
        self.even = self.replica.merged_positions() == self.replica.positions()
        super().stop()

    def apply_and_lose_the_mirror(self, batch: AtomicBatch) -> None:
        """Be killed between the two commits."""
        super().apply_and_lose_the_mirror(batch)
        self.even = False

    def _settle_drift(self) -> None:
        if not self.replica.joined:
            return
        database, mirror = self.replica.lineage("main"), self.replica.lineage("mirror")
        way = drift(database, mirror)
        if way == "ahead":
            self.replica.keep_mine(further(database, mirror))
        elif way != "same":
            self.replica.reconcile(first=way == "diverged", keep_log=True)

    @property
    def at_rest(self) -> bool:
        """True when nothing here is unpublished, and everything that was is in the mirror."""
        return (
            self.up
            and self.flight is None
            and self.ready
            and self.replica.count_pending() == 0
            and self.replica.held_rows() == 0
            and self.replica.lineage().history == self.fragile.history
        )

    @property
    def tapes(self) -> list[Tape]:
        """The streams, as this node reads them."""
        world = self.fragile
        return [Tape(world, s, world.forgotten.get(s, 0), node=self.name) for s in range(world.shards)]

    def usable(self) -> Path | None:
        """Return the newest snapshot that is on what the streams hold and keep."""
        forgotten = self.fragile.forgotten
        for file in reversed(self.fragile.snapshots):
            kept = all(p.resume - 1 >= forgotten.get(s, 0) for s, p in lineage_of(file).positions.items())
            if kept and not (self.world.torn and asyncio.run(diverged(file, self.tapes))):
                return file
        return None

    def lose_disk(self, snapshot: Path) -> None:
        """Lose all files, and begin again from a snapshot."""
        self._note_journal()
        self.stop()
        self.app.connection.close()
        shutil.rmtree(self.folder)
        self.come_back(snapshot)

    def come_back(self, snapshot: Path) -> None:
        """Have the database made that is not there; the application finds it before the process has started again."""
        (self.folder / "mirror").mkdir(parents=True, exist_ok=True)
        file = self.folder / "mirror" / "fetched.db"
        shutil.copy(snapshot, file)
        self.session += 1
        asyncio.run(self.builder().make(file))
        self._open_app()
        self.at_once()
        self.start()

    def builder(self) -> DatabaseBuilder:
        """Return what makes and heals databases, in the simulation's one thread."""
        return DatabaseBuilder(self.options, Inline(), NodeStatus(), Follows(), self.tapes)

    def at_once(self) -> None:
        """Let the application write as soon as a file is there."""

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
        equip(connection, self.shapes)
        self.app = Application(self.name, connection, self.shapes, self.ledger, self.rng)
