"""One schedule: random steps of random nodes out of one seed, then rest, then the final checks."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from tempfile import mkdtemp
from typing import ClassVar

from harmonylite.db.apply import apply
from harmonylite.db.capture import capture
from harmonylite.schema.shape import outline
from tests.simulation import additions, foreign, reshaping, standing
from tests.simulation.additions import travels
from tests.simulation.node import Node
from tests.simulation.properties import check_always, check_at_rest, must
from tests.simulation.rarer import choose_rarer
from tests.simulation.records import Records, recorded
from tests.simulation.standing import Standing
from tests.simulation.workload import Ledger, choose_shapes
from tests.simulation.world import World

MOST_ROUNDS = 60
"""A cluster that nobody writes to must come to rest within so many rounds."""


@dataclass
class Schedule:
    """One run. ``trace``: what was done, for the reader of a failure."""

    seed: int
    folder: Path
    steps: int = 0
    changers: int = 0
    """How many nodes' applications change their schema in every way; see `tests.simulation.reshaping`."""
    still: bool = False
    """Whether nodes stand still at times; see `tests.simulation.standing`."""
    growing: ClassVar[bool] = True
    """Whether migrations may change a table while the schedule runs."""

    def __post_init__(self) -> None:
        self.trace: list[str] = []
        rng = self.rng = Random(self.seed)
        self.world = World(rng.choice((1, 1, 2, 3)))
        self.vacuums: Callable[[], bool] = lambda: False
        self.steps = self.steps or rng.choice((40, 80, 160))
        self.crashes = rng.choice((0.0, 0.0, 0.03, 0.1))
        shapes = choose_shapes(rng, 4)
        ledger = Ledger()
        message_bytes = rng.choice((900_000, 900_000, 60, 200))
        self.nodes = [
            Node(name, self.folder / name, self.world, rng, message_bytes, shapes, ledger)
            for name in "abcd"[: rng.randint(2, 4)]
        ]
        self.members: list[Node] = []
        if self.seed % 4 == 3:
            self._be_restless()
        self.resting = Random(f"resting {self.seed}")
        self.rests = self.resting.choice((0.0, 0.02, 0.1, 0.3))
        self.travels = travels(self.seed) or bool(self.changers)
        self.adding = Random(f"adding {self.seed}")
        if self.travels:
            self.growing = False  # type: ignore[misc]  # a migration by hand would meet what travelled
            for node in self.nodes:
                node.apply_schema = "all" if self.changers or self.seed % 2 else "additive"
        self.records = Records(self.seed) if recorded(self.seed) else None
        for node in self.nodes if self.records else ():
            node.records = True
        self.standing = Standing(self.seed) if self.still else None
        self.rarer = Random(f"rarer {self.seed}")
        self.strange = self.seed % 5 == 3
        if self.strange:
            shapes += choose_rarer(self.rarer, growing=self.growing)
        shapes += foreign.drawn(self.seed)

    def _be_restless(self) -> None:
        """Let applications commit in the middle of captures, and VACUUM; drawn apart, other schedules stay theirs."""
        apart = Random(f"restless {self.seed}")
        for node in self.nodes:
            node.restless = lambda: apart.random() < 0.3
        self.vacuums = lambda: apart.random() < 0.05

    def run(self) -> None:
        """Run to the end; raises BrokenError, or whatever the code under test raises."""
        for node in self.nodes:
            node.create()
            if self.standing is not None:
                node.app.connection.execute(standing.DDL)
            for _ in range(self.rng.choice((0, 0, 0, 3))):
                node.app.transaction()
        self.nodes[0].found()
        self.members.append(self.nodes[0])
        late = self.rng.random() < 0.3
        while not late and len(self.members) < len(self.nodes):
            self._join()
        for _ in range(self.steps):
            self._step()
        self._rest()
        check_at_rest(self.members, reshapes=bool(self.changers))
        if self.standing is not None:
            self.standing.check_at_rest(self.members[0])
        if self.records is not None:
            self.records.check_at_rest(self.members[0].app.connection, must)

    def close(self) -> None:
        """Close what is open."""
        for node in self.nodes:
            if node.up:
                node.stop()
            if hasattr(node, "app"):
                node.app.connection.close()

    # steps -----------------------------------------------------------------------------------------------------

    def _step(self) -> None:
        if self.standing is not None:
            self.standing.step(self.members, self.nodes, self._note)
        if self.strange and self.growing:
            self._stranger(self.rarer.choice(self.nodes))
        if self.travels and self.adding.random() < 0.2:
            node = self.adding.choice(self.nodes)
            if self.changers:
                changes = node in self.nodes[: self.changers]
                done = reshaping.transaction(self.adding, node.app.connection, changes=changes)
                self._note(node, f"changes its schema: {'; '.join(done)}")
            else:
                self._note(node, "adds")
                additions.transaction(self.adding, node.app.connection)
        if self.records is not None and self.records.due():
            node = self.nodes["abcd".index(self.records.choose("abcd"[: len(self.nodes)]))]
            self._note(node, "records")
            self.records.transaction(node.name, node.app.connection)
        node = self.rng.choice(self.members)
        actions: list[tuple[float, Callable[[Node], None]]] = [
            (3, self._write),
            (3, self._capture),
            (5, self._publish),
            (4, self._deliver),
            (4, self._apply),
            (0.3, self._abort),
            (0.3, self._unseen),
            (20 * self.crashes, self._crash),
            (5 * self.crashes, self._die),
            (10 * self.crashes, self._lose_the_mirror),
            (0.2, lambda _: self._join()),
            (0.5, self._away),
        ]
        weights = [weight for weight, _ in actions]
        action = self.rng.choices([action for _, action in actions], weights)[0]
        if not node.up:
            if action == self._write:
                self._write(node)
            elif self.rng.random() < 0.3:
                self._restart(node)
            return
        action(node)
        self._rests(node)
        if node.up:
            check_always(node)

    def _rests(self, node: Node) -> None:
        """Let the node say in the application's file what is back; now and then it is killed meanwhile, or the file is
        rolled back. Every third schedule has such rests, in all others they never come.
        """
        if self.seed % 3 or not node.up or node.limit is not None:
            return
        if self.resting.random() < self.crashes / 4:
            self._note(node, "writes, and goes back to before")
            node.go_back()
            return
        if self.resting.random() >= self.rests:
            return
        if self.resting.random() < self.crashes:
            self._note(node, "notes what is back and loses the mirror's commit")
            node.note_and_lose_the_mirror()
        else:
            self._note(node, "notes what is back")
            node.note()

    def _stranger(self, node: Node) -> None:
        """Let now and then something happen that only some schedules know; drawn apart, too."""
        chance = self.rarer.random()
        if chance < 0.04 and node.app.migrates and (node.up or not node.app.renames):
            self._migrate(node)
        elif 0.04 < chance < 0.10 and node.up:
            node.sync()
        elif 0.10 < chance < 0.10 + self.crashes / 2 and node.up:
            self._note(node, "loses power")
            node.cut_power()

    def _migrate(self, node: Node) -> None:
        """Let an application migrate; a rename that comes together with other changes can't be told from those."""
        self._note(node, f"migrates to {node.app.level + 1}")
        if renames := node.app.renames:
            node.replica.reinstall()
        node.app.migrate()
        if renames:
            node.replica.reinstall()

    def _note(self, node: Node, what: str) -> None:
        self.trace.append(f"{node.name} {what}")

    def _write(self, node: Node) -> None:
        self._note(node, "writes")
        node.app.transaction()
        if self.vacuums():
            self._note(node, "vacuums")
            node.app.connection.execute("VACUUM")

    def _capture(self, node: Node) -> None:
        if node.capture(ahead=self.still):
            self._note(node, f"captures {node.flight and node.flight.out.id}")

    def _publish(self, node: Node) -> None:
        for _ in range(self.rng.choice((1, 1, 2, 50))):
            if node.publish():
                self._note(node, "publishes")

    def _deliver(self, node: Node) -> None:
        if node.deliver(self.rng.choice((1, 2, 5, 1000))):
            self._note(node, "hears")

    def _apply(self, node: Node) -> None:
        batch = node.take(most_bytes=self.rng.choice((1, 100, 1 << 62)), least=self.rng.random() < 0.2)
        if batch is not None:
            if self.rng.random() < 0.05:
                node.reassembler.put_back(batch)
                return
            self._note(
                node, f"applies {[str(p.id) for p in batch.fragments]} to {[p.seq for p in batch.positions.values()]}"
            )
            node.apply(batch)

    def _abort(self, node: Node) -> None:
        if node.abort():
            self._note(node, "aborts")

    def _unseen(self, node: Node) -> None:
        node.find_unlogged()

    def _crash(self, node: Node) -> None:
        self._note(node, "crashes")
        node.stop()

    def _die(self, node: Node) -> None:
        batch = node.take()
        if batch is not None:
            self._note(node, f"applies {[str(p.id) for p in batch.fragments]} and dies before a commit")
            node.apply_and_die(batch, self.rng.choice((0, 0, 1)) + (self.adding.randint(0, 3) if self.travels else 0))

    def _lose_the_mirror(self, node: Node) -> None:
        batch = node.take()
        if batch is not None:
            self._note(node, f"applies {[str(p.id) for p in batch.fragments]} and loses the mirror's commit")
            node.apply_and_lose_the_mirror(batch)

    def _restart(self, node: Node) -> None:
        donors = [d for d in self.members if d.up and self._further(d, node)]
        if donors and self.rng.random() < 0.15:
            self._note(node, "adopts")
            node.adopt(self.rng.choice(donors))
        else:
            self._note(node, "restarts")
            node.start()
        check_always(node)

    @staticmethod
    def _further(donor: Node, node: Node) -> bool:
        return donor.limit is None and all(
            p.seq >= node.reassembler.position(s).seq for s, p in donor.replica.positions().items()
        )

    def _away(self, node: Node) -> None:
        """Write a lot while nothing is published."""
        for _ in range(self.rng.randint(1, 6)):
            self._write(node)

    def _join(self) -> None:
        donors = [node for node in self.members if node.up]
        if donors and len(self.members) < len(self.nodes):
            node = self.nodes[len(self.members)]
            donor = self.rng.choice(donors)
            while node.app.level < donor.app.level:
                node.app.migrate()
            self._note(node, "joins")
            node.join(donor)
            self.members.append(node)
            check_always(node)

    # rest ------------------------------------------------------------------------------------------------------

    def _rest(self) -> None:
        for node in self.nodes:
            node.restless, node.deaf = lambda: False, frozenset()
        self.vacuums = lambda: False
        for node in self.nodes:
            if node not in self.members:
                while node.app.migrates:
                    node.app.migrate()
        for node in self.members:
            if not node.up:
                self._note(node, "restarts")
                node.start()
            while node.app.migrates:
                self._migrate(node)
        while len(self.members) < len(self.nodes):
            self._join()
        for _ in range(MOST_ROUNDS):
            busy = [self._settle(node) for node in self.members]
            if not any(busy):
                return
        must(False, f"the cluster does not come to rest in {MOST_ROUNDS} rounds")

    def _settle(self, node: Node) -> bool:
        """Do all that one node can do; return whether there was anything."""
        if node.replica.schema_changed():
            node.replica.reinstall()
        busy = False
        while node.publish():
            busy = True
        while any(node.reassembler.read_up_to(s) < self.world.last(s) for s in range(self.world.shards)):
            busy |= node.deliver(1000)
        while (batch := node.take()) is not None:
            self._note(
                node, f"applies {[str(p.id) for p in batch.fragments]} to {[p.seq for p in batch.positions.values()]}"
            )
            node.apply(batch)
            if node.stuck:
                self._pass(node)
                return True
            check_always(node)
            busy = busy or bool(batch.fragments)
        busy |= node.abort()
        busy |= node.find_unlogged()
        busy |= node.replica.retry_schema()
        if node.capture():
            self._note(node, f"captures {node.flight and node.flight.out.id}")
            busy = True
        check_always(node)
        must(busy or node.ready, f"{node.name} never catches up")
        return busy or not node.ready

    def _pass(self, node: Node) -> None:
        """Let a node that can't fold what comes next go on from one of its schema that has."""
        for donor in self.members:
            further = donor.up and not donor.stuck and donor is not node and self._further(donor, node)
            if further and donor.replica.positions() != node.replica.positions() and _outline(donor) == _outline(node):
                self._note(node, f"goes on from where {donor.name} is")
                node.stop()
                node.adopt(donor)
                node.stuck = 0
                return


def _outline(node: Node) -> str:
    return outline(table.shape for table in node.replica.tables.values())


def run(seed: int, *, steps: int = 0, small_blocks: bool = False, changers: int = 0, still: bool = False) -> None:
    """Run the schedule of one seed in a folder of its own; a failure says how to run it again.

    ``small_blocks``: of two rows at most, so that change sets have many and are staged while they come in.
    ``changers``, ``still``: see `Schedule`.
    """
    usual = capture.BLOCK_BYTES  # type: ignore[attr-defined]
    few = apply.FEW
    apply.FEW = (1, 3, few)[seed % 3]  # new rows are named in the log, sometimes, or never: they are few here
    capture.BLOCK_BYTES = 1 if small_blocks else usual  # type: ignore[attr-defined]  # a constant, but for this
    shm = Path("/dev/shm")  # memory, where there is such a thing: the disk is not what is tested here
    folder = Path(mkdtemp(prefix="harmonylite-", dir=shm if shm.is_dir() else None))
    schedule = Schedule(seed, folder, steps, changers, still)
    for node in schedule.nodes if small_blocks else ():
        node.capture_batch_rows = 2
    try:
        schedule.run()
    except BaseException as error:
        how = f"{' --small-blocks' * small_blocks}{f' --changers {changers}' * bool(changers)}{' --still' * still}"
        error.add_note(f"seed {seed}; run it again with: python -m tests.simulation {seed}{how}")
        raise
    finally:
        capture.BLOCK_BYTES, apply.FEW = usual, few  # type: ignore[attr-defined]
        schedule.close()
        shutil.rmtree(folder)
