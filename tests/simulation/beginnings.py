"""First starts: several nodes with rows of their own begin a cluster at the same time.

A node copies its database into a mirror, uploads that as a snapshot, and has it named as the newest: three events,
between which applications write, other nodes do the same, and processes are killed. The beginning that is named first
is the cluster's; everybody else is merged with it. The same properties hold as in `tests.simulation.run`.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from tempfile import mkdtemp
from typing import Literal

from harmonylite.changes.epochs import further, relation
from harmonylite.db.mirror.state import history_of
from harmonylite.db.snapshot import install_mirror, lineage_of, save_copy
from tests.simulation import run as plain
from tests.simulation.node import Node
from tests.simulation.properties import check_always, check_at_rest, must

Stage = Literal["fresh", "copied", "uploaded", "member"]


@dataclass
class Named:
    """What the pointer names: a snapshot, and the history that it belongs to. Nobody, while ``file`` is None."""

    history: str = ""
    file: Path | None = None


def name_of(node: Beginner) -> str:
    """Return the name of a first history, which no other node gives."""
    return f"{node.name}-{node.session}"


@dataclass
class Beginner(Node):
    """A node that starts as `harmonylite.recovery.bootstrap` does."""

    pointer: Named = field(default_factory=Named)
    stage: Stage = "fresh"
    newest: int = 0

    @property
    def history(self) -> str:
        """The history that the mirror belongs to."""
        return history_of(self.replica.connection, "mirror")

    @property
    def _upload(self) -> Path:
        return self.folder / f"upload-{self.session}.db"

    def begin(self) -> None:
        """Copy the database into the mirror, as the beginning of a cluster."""
        self.start()
        self.newest = self.replica.copy_into_mirror(name_of(self))
        self.stage = "copied"

    def upload(self) -> None:
        """Store the beginning as a snapshot that nobody named yet."""
        save_copy(self.options.mirror, self._upload)
        self.stage = "uploaded"

    def name_it(self) -> None:
        """Have it named; where another one was faster, the mirror is empty again."""
        if self.pointer.file is None:
            self.pointer.history, self.pointer.file = self.history, self._upload
            self.replica.join_first(self.newest)
            self._read_from_here()
            self.stage = "member"
            return
        self.stop()
        self._drop_mirror()

    def _drop_mirror(self) -> None:
        shutil.rmtree(self.options.folder)
        self.stage = "fresh"

    def join_named(self) -> None:
        """Start from the snapshot that the pointer names."""
        assert self.pointer.file is not None
        file = self.folder / "incoming.db"
        shutil.copy(self.pointer.file, file)
        install_mirror(self.options, file)
        self.start()
        self.replica.reconcile(first=True)
        self._read_from_here()
        self.stage = "member"

    def come_back(self) -> None:
        """Start after a crash, with whatever mirror it left."""
        self.start()
        if not self.replica.whole:
            self.stop()
            self._drop_mirror()
        elif not self.replica.joined:
            if self.is_elsewhere:
                self.stop()
                self._drop_mirror()
                self.join_named()
            else:
                self.replica.reconcile(first=True)
                self._read_from_here()
        if self.up:
            self.stage = "member"

    @property
    def is_elsewhere(self) -> bool:
        """True where the cluster's beginning is another one than this node's."""
        return self.pointer.file is not None and self.history != self.pointer.history

    def take_up(self) -> None:
        """Notice that the cluster has another beginning, and be merged with that."""
        assert self.pointer.file is not None
        self.stop()
        self.start()
        file = self.folder / "incoming.db"
        shutil.copy(self.pointer.file, file)
        mine, theirs = self.replica.lineage(), lineage_of(file)
        self.replica.adopt(file, relation=relation(mine, theirs), further=further(mine, theirs))
        self._read_from_here()

    def save(self) -> bool:
        """Have a snapshot of the mirror as it is now named as the newest, where it is nowhere behind that."""
        if self.is_elsewhere:
            return False
        file = self.folder / f"snapshot-{self.world.clock()}.db"
        lineage = save_copy(self.options.mirror, file)
        if self.pointer.file is not None:
            there = lineage_of(self.pointer.file).positions
            if any(p.seq < there[s].seq for s, p in lineage.positions.items() if s in there):
                return False
        self.pointer.history, self.pointer.file = lineage.history, file
        return True


class Beginnings(plain.Schedule):
    """One run; see the module."""

    growing = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self.pointer = Named()
        self.nodes = [
            Beginner(n.name, n.folder, self.world, self.rng, n.message_bytes, n.shapes, n.ledger, pointer=self.pointer)
            for n in self.nodes
        ]

    @property
    def beginners(self) -> list[Beginner]:
        """The nodes, for what they are here."""
        return [node for node in self.nodes if isinstance(node, Beginner)]

    def run(self) -> None:
        """Run to the end; raises BrokenError, or whatever the code under test raises."""
        for node in self.nodes:
            node.create()
            for _ in range(self.rng.choice((0, 1, 3))):
                node.app.transaction()
        self.members = list(self.nodes)
        for _ in range(self.steps):
            self._begin_or_step(self.rng.choice(self.beginners))
        while any(node.stage != "member" or not node.up for node in self.beginners):
            self._begin_or_step(self.rng.choice(self.beginners), calm=True)
        if self.pointer.file is None:
            self.rng.choice(self.beginners).save()
        for node in self.beginners:
            if node.is_elsewhere:
                self._note(node, "takes up the cluster's beginning")
                node.take_up()
        self._rest()
        must(len({node.history for node in self.beginners}) == 1, "nodes rest in different histories")
        check_at_rest(self.members)

    def _begin_or_step(self, node: Beginner, *, calm: bool = False) -> None:
        if not calm and self.rng.random() < 0.3:
            self._write(node)
        elif not calm and node.up and self.rng.random() < 0.08:
            self._note(node, f"crashes while it is {node.stage}")
            node.stop()
        elif (event := self._event(node)) is not None:
            self._note(node, event.__name__)
            event()
        else:
            self._member(node)

    def _event(self, node: Beginner) -> Callable[[], object] | None:
        """Return what comes next of a node's way into the cluster; None where it is in."""
        if not node.up:
            return node.come_back if node.stage != "fresh" else self._first(node)
        if node.stage == "copied":
            return node.upload
        if node.stage == "uploaded":
            return node.name_it
        if node.is_elsewhere:
            return node.take_up
        if self.pointer.file is None or self.rng.random() < 0.05:
            return node.save
        return None

    def _first(self, node: Beginner) -> Callable[[], object]:
        return node.begin if self.pointer.file is None else node.join_named

    def _member(self, node: Beginner) -> None:
        action = self.rng.choice((self._capture, self._publish, self._publish, self._deliver, self._apply))
        action(node)
        if node.up and not node.is_elsewhere:
            check_always(node)


def run(seed: int, *, steps: int = 0) -> None:
    """Run the schedule of one seed in a folder of its own; a failure says how to run it again."""
    shm = Path("/dev/shm")
    folder = Path(mkdtemp(prefix="harmonylite-", dir=shm if shm.is_dir() else None))
    schedule = Beginnings(seed, folder, steps)
    schedule.rng = Random(f"beginnings {seed}")
    for node in schedule.nodes:
        node.rng = schedule.rng
    try:
        schedule.run()
    except BaseException as error:
        error.add_note(f"seed {seed}; run it again with: python -m tests.simulation.beginnings {seed}")
        error.add_note("\n".join(schedule.trace[-60:]))
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
    sys.stdout.write(f"{last - first + 1} schedules, {len(failed)} failed\n")
