"""A node that knows more than a cluster that started a new epoch without it.

It brings that, and undoes nothing done since.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import apsw
import pytest

from harmonylite.changes.epochs import Lineage
from harmonylite.db.mirror import mirror_file
from harmonylite.db.replica import Replica
from harmonylite.db.replica_options import ReplicaOptions
from harmonylite.db.snapshot import fill, save_copy
from harmonylite.db.sqlite.deadline import Deadline
from harmonylite.db.sqlite.thread import SqliteThread
from harmonylite.errors import DiskFullError
from harmonylite.jetstream.object_store import JetStreamObjects
from harmonylite.jetstream.settings import StreamSettings
from harmonylite.model import Position, StreamInfo
from harmonylite.nats.link import NatsLink
from harmonylite.nats.peers import NatsPeers
from harmonylite.recovery.bootstrap import Bootstrap
from harmonylite.recovery.recover import Recovery
from harmonylite.recovery.recovery_settings import RecoveryHooks, RecoverySettings
from harmonylite.recovery.stream_state import StreamState
from harmonylite.snapshots.repository import RepositorySettings, SnapshotRepository
from harmonylite.status import NodeStatus
from harmonylite.stores.directory import DirectoryStore
from tests.parts.db.fix_replicas import Group, Member
from tests.parts.snapshots.test_divergence import Stream

TABLE = "CREATE TABLE t(id TEXT PRIMARY KEY NOT NULL, v TEXT)"


def stream(last: int) -> StreamInfo:
    return StreamInfo(0, 1, last, "new", last)


class Cluster:
    """Node ``a`` knows a change set that ``b`` does not; the cluster starts a new epoch from the mirror of ``b``."""

    def __init__(self, group: Group, link: NatsLink, folder: Path, thread: SqliteThread) -> None:
        self.a, self.b = group.several(2, TABLE)
        self.thread = thread
        self.folder = folder
        self.keeper_status = NodeStatus()
        self.link = link
        self.store = DirectoryStore(folder / "store", owner="b")
        (folder / "store").mkdir()
        (folder / "work").mkdir()
        self.repository = SnapshotRepository(
            self.store,
            JetStreamObjects(link, StreamSettings(stream_prefix="c")),
            RepositorySettings(folder / "work", "b", "c", 5),
            self.keeper_status,
            copy=self.copy,
        )
        self.since = False
        self.a.run("INSERT INTO t VALUES ('both', 'at first')")
        group.settle()
        self.a.run("INSERT INTO t VALUES ('only a', 'of a')")
        self.a.run("UPDATE t SET v = 'by a' WHERE id = 'both'")
        self.a.send()
        self.a.receive()

    def copy(self, target: Path, *, beginning: Callable[[Lineage], Lineage] | None = None) -> Lineage:
        """Copy the mirror of ``b``, where asked with a row that was folded since the beginning."""
        lineage = save_copy(self.b.options.mirror, target, beginning=beginning or self.next_epoch)
        if not self.since:
            return lineage
        file = apsw.Connection(str(target))
        file.execute("INSERT INTO t VALUES ('since', 'of b')")
        moved = {0: Position(0, 1, 2, "new")}
        mirror_file.set_positions(file, "main", moved)
        file.close()
        return Lineage(lineage.history, moved, lineage.past)

    @staticmethod
    def next_epoch(now: Lineage) -> Lineage:
        return now.next_epoch("h", {0: Position(0, 0, 1, "new")})

    async def begin(self) -> str:
        saved = await self.repository.begin([stream(0)], self.next_epoch)
        assert saved is not None
        self.since = True
        return saved.name

    async def comes_back(self) -> Member:
        """Let ``a`` take up what fits."""
        look = StreamState(self.a.replica.lineage(), [stream(1)], reasons=["the stream was created again"])
        recovery = self.recovery(NodeStatus())
        assert await recovery._adopt_what_fits(self.a.replica, look, await self.repository.newest())
        return self.a

    def recovery(self, status: NodeStatus) -> Recovery:
        """Return what recovers ``a``."""
        peers = NatsPeers(self.link, "s")

        async def nothing() -> None:
            return None

        async def no() -> bool:
            return False

        return Recovery(
            self.thread,
            status,
            self.repository,
            [],
            peers,
            RecoverySettings("a", publish=True),
            RecoveryHooks(nothing, no),
        )


@pytest.fixture
async def cluster(group: Group, link: NatsLink, tmp_path: Path) -> AsyncIterator[Cluster]:
    thread = SqliteThread()
    yield Cluster(group, link, tmp_path, thread)
    await thread.aclose()


async def test_it_goes_on_from_the_beginning_and_brings_what_it_knows_beyond(cluster: Cluster) -> None:
    await cluster.begin()
    await cluster.repository.save()
    a = await cluster.comes_back()
    assert a.replica.positions()[0].seq == 0, "what was done since comes in its order"
    assert a.replica.count_pending() == 2
    assert dict(a.run("SELECT id, v FROM t")) == {"both": "by a", "only a": "of a"}


async def test_without_the_beginning_it_brings_rows_and_undoes_nothing(cluster: Cluster) -> None:
    first = await cluster.begin()
    await cluster.repository.save()
    await cluster.store.delete(first)
    await cluster.store.delete(f"{first}.json")
    a = await cluster.comes_back()
    assert a.replica.positions()[0].seq == 1
    assert dict(a.run("SELECT id, v FROM t")) == {"both": "at first", "only a": "of a", "since": "of b"}
    assert a.replica.count_pending() == 1, "nothing but the row that only this node has is published"
    assert [conflict.overruled for conflict in a.replica.conflicts()] == ["by a"]


async def test_where_the_beginning_is_damaged_the_others_are_asked_and_a_new_one_is_due(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = await cluster.begin()
    file = next(cluster.folder.rglob(name))
    file.write_bytes(file.read_bytes()[:-5])
    monkeypatch.setattr("harmonylite.recovery.recover.AGAIN", 0.0)
    status = NodeStatus()
    assert not await cluster.recovery(status).leads_on(cluster.a.replica, 0.0)
    assert "starts a new epoch" in status.part("recovery").reason
    assert name in cluster.repository.damaged


async def test_a_database_that_could_not_be_made_is_made_at_the_next_try(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first try took the snapshot's file for the mirror, and ended for want of room."""
    await cluster.repository.save()
    tries = 0

    def filling(replica: Replica, deadline: Deadline) -> None:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise DiskFullError("no room is left on the disk")
        fill(replica, deadline)

    async def no() -> bool:
        return False

    monkeypatch.setattr("harmonylite.recovery.build_database.fill", filling)
    options = ReplicaOptions(tmp_path / "new" / "app.db", tmp_path / "new" / "mirror", "new", "s")
    options.database.parent.mkdir()
    bootstrap = Bootstrap(options, cluster.thread, NodeStatus(), request_snapshot=no)
    streams = [Stream([], created="new")]
    made = await bootstrap._without_database(cluster.repository, cluster.recovery(NodeStatus()), streams)
    assert (tries, cluster.keeper_status.counters.snapshots_restored) == (2, 2), "one is fetched for each try"
    assert made.options.database.exists()
    assert not list(cluster.folder.rglob("incoming-*")), "nothing is left behind"
    await cluster.thread.run(made.close)
