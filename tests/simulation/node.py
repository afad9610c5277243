"""A simulated node: the real replica and reassembler on real files, driven step by step, killed wherever it hurts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Literal

import apsw

from harmonylite.changes.epochs import drift
from harmonylite.changes.reassembler import AtomicBatch, Reassembler
from harmonylite.db.capture.capture import Outgoing
from harmonylite.db.mirror.former_names import take_for_gone
from harmonylite.db.mirror.mirror_file import forget_node
from harmonylite.db.replica import Replica
from harmonylite.db.replica_options import ReplicaOptions
from harmonylite.db.sqlite.introspection import TableRules
from harmonylite.errors import DatabaseError, SchemaWaitError
from harmonylite.model import ChangeSetId
from harmonylite.wire import KIND_ABORT, VERSION, Envelope, encode_abort, encode_envelope
from tests.simulation import records
from tests.simulation.foreign import equip
from tests.simulation.shapes import Shape
from tests.simulation.workload import Application, Ledger, create
from tests.simulation.world import World

PATIENCE = 5
"""So often a node waits for one that knows what became of a column."""


@dataclass
class Flight:
    """A change set on its way: what is left to publish of it, by shard."""

    out: Outgoing
    left: dict[int, list[bytes]]

    def done(self) -> bool:
        """Return whether every message is in its stream."""
        return not any(self.left.values())


@dataclass
class Node:
    """One node. ``message_bytes``: where change sets are cut; small, so that they come in many messages.

    ``stuck``: how often what comes next was of a schema that is not here and will not be.
    ``capture_batch_rows``: the most rows of a block. ``restless``: returns whether the application commits once more in
    the middle of a capture, after new rows were named in the log and before they are read. ``air``: its change sets in
    flight; ``lost``: those that never landed, until all others are back; ``deaf``: shards of which nothing comes.
    """

    name: str
    folder: Path
    world: World
    rng: Random
    message_bytes: int
    shapes: Sequence[Shape]
    ledger: Ledger
    capture_batch_rows: int = 512
    apply_schema: Literal["all", "additive", "none"] = "none"
    records: bool = False
    restless: Callable[[], bool] = lambda: False
    session: int = 0
    air: list[Flight] = field(default_factory=list)
    deaf: frozenset[int] = frozenset()
    lost: list[Flight] = field(default_factory=list)
    targets: dict[int, int] = field(default_factory=dict)
    up: bool = False
    stuck: int = 0
    checked: tuple[object, ...] = ()

    @property
    def flight(self) -> Flight | None:
        """The newest change set in flight."""
        return self.air[-1] if self.air else None

    def create(self) -> None:
        """Make the application's file."""
        self.folder.mkdir(parents=True)
        connection = apsw.Connection(str(self.folder / "app.db"))
        connection.pragma("journal_mode", "wal")
        connection.pragma("synchronous", 0)
        connection.pragma("foreign_keys", 1)
        connection.pragma("trusted_schema", 0)
        # without it REPLACE fires no delete trigger, and an application breaks its own full-text index
        recursive = any(s.fts for s in self.shapes) or self.rng.random() < 0.5
        connection.pragma("recursive_triggers", int(recursive))
        equip(connection, self.shapes)
        create(connection, self.shapes, self.name)
        for sql in records.DDL if self.records else ():
            connection.execute(sql)
        self.app = Application(self.name, connection, self.shapes, self.ledger, self.rng)

    @property
    def options(self) -> ReplicaOptions:
        """What the replica is opened with."""
        return ReplicaOptions(
            self.folder / "app.db",
            self.folder / "mirror",
            self.name,
            f"s{self.session}",
            shards=self.world.shards,
            capture_batch_rows=self.capture_batch_rows,
            apply_schema=self.apply_schema,
            rules=TableRules(
                exclude=("local_*",), by_row=tuple(s.name for s in self.shapes if s.by_row), identity=records.IDENTITY
            ),
        )

    # coming and going ------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the process: a new session, which publishes nothing before it has folded to the end."""
        self.session += 1
        self.number = 0
        self.air, self.lost = [], []
        self.replica = Replica(self.options, clock=self.world.clock)
        self.replica.open()
        self.replica.connection.pragma("synchronous", 0)
        applying = self.replica._applying
        self._name_new_rows, applying.name_new_rows = applying.name_new_rows, self._between  # type: ignore[method-assign]
        self._read_from_here()
        self.up = True

    def _between(self) -> bool:
        named = self._name_new_rows()
        if self.restless():
            self.app.transaction()
        return named

    def _read_from_here(self) -> None:
        """Take up reading at the mirror's positions; publish again once all that is in the streams now is merged."""
        self.reassembler = Reassembler(self.replica.positions())
        merged, mirrored = self.replica.merged_positions(), self.replica.positions()
        self.limit: dict[int, int] | None = None
        if any(merged[s].seq > mirrored[s].seq for s in merged):
            self.limit = {s: p.seq for s, p in merged.items()}
        self.targets = {shard: self.world.last(shard) for shard in range(self.world.shards)}

    def stop(self) -> None:
        """End the process; files stay as their last commits left them."""
        self._close(self.air + self.lost)
        self.replica.close()
        self.up = False

    def found(self) -> None:
        """Be the first node of all."""
        self.start()
        self.replica.join_first()
        self._read_from_here()

    def join(self, donor: Node) -> None:
        """Join with a copy of another node's mirror, and with whatever the database holds."""
        (self.folder / "mirror").mkdir(exist_ok=True)
        if self.apply_schema != "none":
            self.start()
            donor.give_mirror(self.folder / "incoming.db")
            self.replica.must_fit(self.folder / "incoming.db")
            self.stop()
            self._put_mirror(self.folder / "incoming.db")
        else:
            donor.give_mirror(self.options.mirror)
        self.start()
        self.replica.reconcile(first=True)
        self._read_from_here()

    def adopt(self, donor: Node) -> None:
        """Start again from a copy of another node's mirror that is further, where its columns are all here."""
        self.start()
        snapshot = self.folder / "mirror" / "incoming.db"
        donor.give_mirror(snapshot)
        try:
            self.replica.adopt(snapshot)
        except SchemaWaitError:
            snapshot.unlink()
        else:
            self.synced.unlink(missing_ok=True)
        self._read_from_here()

    @property
    def synced(self) -> Path:
        """A copy of the mirror as a power cut would leave it, if there is one."""
        return self.folder / "synced.db"

    def sync(self) -> None:
        """Let the disk hold the mirror as it is now."""
        self.synced.unlink(missing_ok=True)
        self.copy_mirror(self.synced)

    def cut_power(self) -> None:
        """End the process; the mirror loses what was committed since `sync`, the database nothing."""
        self.stop()
        if self.synced.exists():
            self._put_mirror(self.synced)

    def give_mirror(self, target: Path) -> None:
        """Write a copy of the mirror for another node."""
        self.copy_mirror(target)
        copy = apsw.Connection(str(target))
        forget_node(copy)
        copy.close()

    def copy_mirror(self, target: Path) -> None:
        """Write a copy of the mirror as its last commit left it."""
        copy = apsw.Connection(str(target))
        with copy.backup("main", self.replica.connection, "mirror") as backup:
            backup.step()
        copy.close()

    # sending ---------------------------------------------------------------------------------------------------

    @property
    def ready(self) -> bool:
        """True when the node has folded what was in the streams when it started."""
        return self.limit is None and all(
            self.reassembler.read_up_to(s) >= seq and self.reassembler.position(s).seq >= seq
            for s, seq in self.targets.items()
        )

    def capture(self, *, ahead: bool = False) -> bool:
        """Capture what is pending, unless a change set is under way; ``ahead``: one that is published is none."""
        for flight in self.lost:
            self.replica.forget_flight(flight.out.id.number)
        waits = self.flight is not None and (self.lost or not ahead or not self.flight.done())
        self._close([] if self.air else self.lost)
        if waits or not self.ready:
            return False
        self.number += 1
        out = self.replica.capture(self.number, message_bytes=self.message_bytes, ahead=bool(self.air))
        if out is None:
            return False
        self.air.append(Flight(out, {shard: list(out.payloads(shard)) for shard in out.parts}))
        return True

    def publish(self) -> bool:
        """Publish one message; now and then one that is in the middle of its change set comes twice, or too early."""
        if self.flight is None or self.flight.done():
            return False
        shard = self.rng.choice([s for s, left in self.flight.left.items() if left])
        left = self.flight.left[shard]
        middle = 1 < len(left) < len(self.flight.out.parts[shard])
        if middle and self.rng.random() < 0.1:
            self.world.publish(shard, self.name, left[self.rng.randint(0, len(left) - 2)])
        self.world.publish(shard, self.name, left.pop(0))
        return True

    def abort(self) -> bool:
        """Give up on what holds this node up."""
        found = self.reassembler.unfinished()
        for victim, shard in found:
            body = encode_abort(victim)
            envelope = Envelope(
                VERSION, KIND_ABORT, self.name, f"s{self.session}", 0, 0, False, True, [shard], 0.0, {}, False, body
            )
            self.world.publish(shard, self.name, encode_envelope(envelope))
        return bool(found)

    # receiving -------------------------------------------------------------------------------------------------

    def deliver(self, most: int) -> bool:
        """Take in some messages of one shard."""
        shard = self.rng.randrange(self.world.shards)
        if shard in self.deaf:
            return False
        messages = self.world.after(shard, self.reassembler.read_up_to(shard), most)
        for message in messages:
            self.reassembler.add(message)
        return bool(messages)

    def take(self, *, most_bytes: int = 1 << 62, least: bool = False) -> AtomicBatch | None:
        """Take the next batch; while the mirror is behind the database, none that goes beyond the database."""
        if self.limit is not None:
            batch = self.reassembler.take(limit=self.limit, most_bytes=most_bytes, least=least)
            if batch is not None:
                return batch
            if any(self.reassembler.position(s).seq < seq for s, seq in self.limit.items()):
                return None
            self.limit = None
        return self.reassembler.take(most_bytes=most_bytes, own=(self.name, f"s{self.session}"), least=least)

    def apply(self, batch: AtomicBatch) -> bool:
        """Fold and merge a batch; False: it needs what a migration has not brought here yet, and waits."""
        try:
            self.replica.apply(batch, merge=self.limit is None)
        except SchemaWaitError as error:
            if self.replica.schema_changed():
                self.replica.reinstall()
            self.reassembler.put_back(batch)
            self.stuck += not self.app.migrates
            if error.unsure and self.stuck > PATIENCE:
                take_for_gone(self.replica.connection)
            return False
        self.stuck = 0
        for change_set in [*(fragment.id for fragment in batch.fragments), *batch.voided]:
            self._landed(change_set, voided=change_set in batch.voided)
        batch.close()
        return True

    def _landed(self, change_set: ChangeSetId, *, voided: bool) -> None:
        for flight in [flight for flight in self.air if flight.out.id == change_set]:
            if voided:
                self.lost.append(flight)  # the receiver may be ahead of the sender by then
            else:
                flight.out.close()
            self.air.remove(flight)

    @staticmethod
    def _close(flights: list[Flight]) -> None:
        while flights:
            flights.pop().out.close()

    def apply_and_lose_the_mirror(self, batch: AtomicBatch) -> None:
        """Apply a batch and be killed between the database's commit and the mirror's."""
        saved = self.folder / "saved.db"
        saved.unlink(missing_ok=True)
        self.copy_mirror(saved)
        with suppress(SchemaWaitError):
            self.replica.apply(batch, merge=self.limit is None)
        self.stop()
        self._put_mirror(saved)

    def _put_mirror(self, saved: Path) -> None:
        mirror = self.options.mirror
        for ending in ("", "-wal", "-shm"):
            mirror.with_name(mirror.name + ending).unlink(missing_ok=True)
        saved.rename(mirror)

    def note(self) -> None:
        """Let the database say what is back, as when its application rests."""
        self.replica.note()

    def note_and_lose_the_mirror(self) -> None:
        """Let the database say what is back, and be killed before the mirror knows that it does."""
        saved = self.folder / "saved.db"
        saved.unlink(missing_ok=True)
        self.copy_mirror(saved)
        self.replica.note()
        self.stop()
        self._put_mirror(saved)

    def go_back(self) -> bool:
        """Let the application write, and all of it come into the order; then the power is cut, and the database's file
        is as it was before: False, if nothing was lost that way.

        What was pending in a file of then, nobody can tell from what its application wrote since it was put back.
        """
        if not self._all_back():
            return False
        before = apsw.Connection("")
        with before.backup("main", self.app.connection, "main") as copy:
            copy.step()
        for _ in range(self.rng.randint(1, 3)):
            self.app.transaction()
        if not self._all_back():
            return False
        if self.rng.random() < 0.3:
            self.replica.note()
        self.stop()
        with self.app.connection.backup("main", before, "main") as copy:
            copy.step()
        self.start()
        if drift(self.replica.lineage("main"), self.replica.lineage("mirror")) == "behind":
            self.replica.reconcile(first=False, keep_log=True)
        self._read_from_here()
        return True

    def _all_back(self) -> bool:
        """Publish and take in until nothing of this node is pending; False where a schema is in the way."""
        for _ in range(20):
            while self.publish():
                pass
            for shard in range(self.world.shards):
                for message in self.world.after(shard, self.reassembler.read_up_to(shard), 1_000_000):
                    self.reassembler.add(message)
            while (batch := self.take()) is not None:
                if not self.apply(batch):
                    return False
            if not self.capture() and self.flight is None:
                return self.ready
        return False

    def apply_and_die(self, batch: AtomicBatch, commits: int) -> None:
        """Begin to apply a batch and be killed right before the commit that comes after so many others."""
        left = iter(range(commits))
        self.replica.connection.set_commit_hook(lambda: next(left, None) is None)
        with suppress(DatabaseError, SchemaWaitError, apsw.ConstraintError):
            self.replica.apply(batch, merge=self.limit is None)
        self.stop()

    def find_unlogged(self) -> bool:
        """Compare the tables whose indexes triggers can't see."""
        return self.ready and self.replica.find_unlogged() > 0
