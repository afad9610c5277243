"""A few replicas on real files around streams in memory: each test says who writes, captures and applies, and when."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import apsw
import pytest

from harmonylite.changes.reassembler import Reassembler
from harmonylite.db.apply.own_change_sets import Applied
from harmonylite.db.capture.capture import Outgoing
from harmonylite.db.replica import Replica
from harmonylite.db.replica_options import ReplicaOptions
from harmonylite.db.snapshot import begin_database, fill_database, install_mirror, save_copy, seal
from harmonylite.db.sqlite.deadline import Deadline
from harmonylite.db.sqlite.introspection import TableRules
from harmonylite.db.sqlite.lossless import exact_rows
from harmonylite.schema.sql import quote
from tests.simulation.world import World

PAIRED = "CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT, b INT)"
"""The table of `Group.pair`."""


@dataclass
class Member:
    """One node: the application's connection ``app``, and the replica. ``flight``: a change set that is captured."""

    options: ReplicaOptions
    world: World
    app: apsw.Connection
    number: int = 0
    flight: Outgoing | None = None
    replica: Replica = field(init=False)
    reassembler: Reassembler = field(init=False)

    def start(self) -> None:
        """Open the replica, as a process of its own session."""
        session = f"{self.options.session}{self.world.clock()}"
        self.replica = Replica(replace(self.options, session=session), clock=self.world.clock)
        self.replica.open()
        self.reassembler = Reassembler(self.replica.positions())

    def stop(self) -> None:
        """End the process; the application goes on."""
        self.drop()
        self.replica.close()

    def drop(self) -> None:
        """Give up on what was captured."""
        if self.flight is not None:
            dropped, self.flight = self.flight, None
            dropped.close()
            self.replica.forget_flight(dropped.id.number)

    def run(self, sql: str, bindings: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Run the application's statements."""
        return self.app.execute(sql, bindings).fetchall()

    def rows(self, table: str, schema: str = "main") -> list[tuple[Any, ...]]:
        """Return the rows of a table bit for bit, sorted; ``schema``: the database, or the mirror."""
        shape = self.replica.tables[table].shape
        reads = [shape.read(column, "t") for column in shape.columns]
        found = exact_rows(self.replica.connection, reads, f"FROM {schema}.{quote(table)} AS t")
        return sorted(found, key=repr)

    def capture(self) -> int:
        """Capture what is pending; return the number of rows."""
        assert self.flight is None, "one change set is under way already"
        self.number += 1
        self.flight = self.replica.capture(self.number, message_bytes=900_000)
        return 0 if self.flight is None else self.flight.rows

    def publish(self) -> None:
        """Publish what was captured."""
        if self.flight is not None:
            for shard in self.flight.parts:
                for payload in self.flight.payloads(shard):
                    self.world.publish(shard, self.options.node, payload)

    def send(self) -> int:
        """Capture and publish; return the number of rows."""
        count = self.capture()
        self.publish()
        return count

    def receive(self) -> list[Applied]:
        """Apply all that is in the streams."""
        for shard in range(self.world.shards):
            for message in self.world.after(shard, self.reassembler.read_up_to(shard), 1_000_000):
                self.reassembler.add(message)
        done = []
        while (batch := self.reassembler.take(own=(self.options.node, self.replica.options.session))) is not None:
            done.append(self.replica.apply(batch))
            if self.flight is not None and self.flight.id in done[-1].own:
                self.drop()
            batch.close()
        return done


@dataclass
class Group:
    """Members with the same tables, joined."""

    folder: Path
    world: World
    members: list[Member] = field(default_factory=list)

    def member(
        self, *ddl: str, rules: TableRules | None = None, begin: Callable[[Path], object] | None = None, **options: Any
    ) -> Member:
        """Add a member whose application made its tables, and rows, by ``ddl``; the first one founds the cluster.

        ``begin``: makes the file before this process opens it.
        """
        name = "abcdefgh"[len(self.members)]
        home = self.folder / name
        home.mkdir()
        if begin is not None:
            begin(home / "app.db")
        app = apsw.Connection(str(home / "app.db"))
        app.pragma("journal_mode", "wal")
        for sql in ddl:
            app.execute(sql)
        made = ReplicaOptions(
            home / "app.db", home / "mirror", name, "s", self.world.shards, rules=rules or TableRules(), **options
        )
        member = Member(made, self.world, app)
        if self.members:
            snapshot = home / "snapshot.db"
            save_copy(self.members[0].options.mirror, snapshot)
            install_mirror(made, snapshot)
        member.start()
        if not self.members:
            member.replica.join_first()
        else:
            member.receive()
            member.replica.reconcile(first=True)
        self.members.append(member)
        return member

    def several(self, count: int, *ddl: str, **options: Any) -> list[Member]:
        """Add ``count`` members with the same tables."""
        return [self.member(*ddl, **options) for _ in range(count)]

    def pair(self, *ddl: str) -> list[Member]:
        """Add two members with three rows in the table ``t``, made by ``PAIRED``."""
        made = self.several(2, PAIRED, *ddl)
        made[0].run("INSERT INTO t VALUES (1, 'x', 10), (2, 'y', 20), (3, 'z', 30)")
        self.settle()
        return made

    def settle(self) -> None:
        """Let everyone send and receive until nothing moves."""
        for _ in range(20):
            moved = False
            for member in self.members:
                if member.replica.schema_changed():
                    member.replica.reinstall()
                member.replica.find_unlogged()
                if member.flight is None:
                    moved |= member.send() > 0
                moved |= any(done.rows for done in member.receive())
            if not moved:
                return
        raise AssertionError("the members do not come to rest")

    def close(self) -> None:
        """Close all files."""
        while self.members:
            member = self.members.pop()
            member.stop()
            member.app.close()

    def equal(self, *tables: str) -> list[tuple[Any, ...]]:
        """Settle; return the rows of the last of ``tables``, which every database and every mirror holds."""
        self.settle()
        found: list[tuple[Any, ...]] = []
        for table in tables:
            found = self.members[0].rows(table)
            for member in self.members:
                assert member.rows(table) == found, f"{table} on {member.options.node}"
                assert member.rows(table, "mirror") == found, f"{table} in the mirror of {member.options.node}"
        return found


def steps(member: Member, work: Callable[[], object]) -> int:
    """Return how many instructions SQLite runs for ``member`` (SQLite: c3ref, SQLITE_STMTSTATUS_VM_STEP)."""
    counted = 0

    def count(event: dict[str, Any]) -> None:
        nonlocal counted
        counted += event["stmt_status"]["SQLITE_STMTSTATUS_VM_STEP"]

    connection = member.replica.connection
    connection.trace_v2(apsw.SQLITE_TRACE_PROFILE, count)
    work()
    connection.trace_v2(0, None)
    return counted


def copied(member: Member, folder: Path) -> Path:
    """Return a new database made from a snapshot of the member's mirror."""
    folder.mkdir(exist_ok=True)
    snapshot = folder / "snapshot.db"
    save_copy(member.options.mirror, snapshot)
    options = replace(member.options, database=folder / "new.db", folder=folder / "new")
    building = begin_database(options, snapshot, Deadline())
    install_mirror(options, snapshot)
    seal(fill_database(options, building, Deadline()))
    return building


@pytest.fixture
def make_group(tmp_path: Path) -> Iterator[Callable[[int], Group]]:
    """Make groups by number of shards; all is closed at the end."""
    made: list[Group] = []

    def make(shards: int = 1) -> Group:
        folder = tmp_path / f"group{len(made)}"
        folder.mkdir()
        made.append(Group(folder, World(shards)))
        return made[-1]

    yield make
    for group in made:
        group.close()


@pytest.fixture
def group(make_group: Callable[[int], Group]) -> Group:
    """A group with one shard."""
    return make_group(1)
