"""NATS is set back to a time before the cluster started a new epoch: streams and pointers are those of a history left
behind.

No node can follow them, and no snapshot that fits them is any use; so the cluster starts a new epoch once more.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from harmonylite.changes.epochs import Left, Lineage
from harmonylite.db.mirror import mirror_file
from harmonylite.db.mirror.positions import folded_seqs, write_history
from harmonylite.db.snapshot import save_copy
from harmonylite.db.sqlite.connection import transaction
from harmonylite.db.sqlite.thread import SqliteThread
from harmonylite.errors import OtherClusterError, StreamLostError
from harmonylite.jetstream.object_store import JetStreamObjects
from harmonylite.jetstream.settings import StreamSettings
from harmonylite.model import Position, StreamInfo, StreamMessage
from harmonylite.nats.link import NatsLink
from harmonylite.nats.peers import NatsPeers
from harmonylite.recovery import recover
from harmonylite.recovery.peer_messages import PeerState
from harmonylite.recovery.recover import TOPIC, Recovery
from harmonylite.recovery.recovery_settings import RecoveryHooks, RecoverySettings
from harmonylite.snapshots.repository import RepositorySettings, SnapshotRepository
from harmonylite.status import NodeStatus
from harmonylite.stores.directory import DirectoryStore
from tests.parts.db.fix_replicas import Group, Member

OLD = StreamInfo(0, 1, 5, "old", 5)
"""The stream as it was set back: 5 messages of it are there, the cluster had folded 4 when it left it."""


class OldStream:
    """The stream, seen from a node; nothing of it is read."""

    shard = 0

    async def info(self) -> StreamInfo:
        return OLD

    async def get(self, seq: int) -> StreamMessage | None:
        return StreamMessage(0, seq, "s.0.x", b"another message")


class SetBack:
    """A node on the history "later", and a pointer to a snapshot of the one before, which fits the stream."""

    def __init__(self, group: Group, link: NatsLink, folder: Path, thread: SqliteThread) -> None:
        self.node, self.other = group.several(2, "CREATE TABLE t(id TEXT PRIMARY KEY NOT NULL, v)")
        self.node.run("INSERT INTO t VALUES ('written', 'later')")
        group.settle()
        self.peers = NatsPeers(link, "s")
        self.status = NodeStatus()
        (folder / "store").mkdir()
        (folder / "work").mkdir()
        self.repository = SnapshotRepository(
            DirectoryStore(folder / "store", owner="a"),
            JetStreamObjects(link, StreamSettings(stream_prefix="c")),
            RepositorySettings(folder / "work", "a", "c", 5),
            self.status,
            copy=self._copy,
        )
        self.thread = thread

        async def nothing() -> None:
            return None

        async def no() -> bool:
            return False

        self.recovery = Recovery(
            thread,
            self.status,
            self.repository,
            [OldStream()],  # type: ignore[list-item]  # all it asks for
            self.peers,
            RecoverySettings("a", publish=True),
            RecoveryHooks(nothing, no),
        )

    def _copy(self, target: Path, *, beginning: Callable[[Lineage], Lineage] | None = None) -> Lineage:
        return save_copy(self.node.options.mirror, target, beginning=beginning)

    async def arrange(self) -> None:
        """Save the earlier history's snapshot, then be on the later one."""
        first: dict[str, Left] = {"first": {0: ("oldest", 9)}}
        self.stand(self.node, Lineage("earlier", {0: Position(0, 3, 4, "old")}, first))
        saved = await self.repository.save()
        assert saved is not None
        past: dict[str, Left] = {"earlier": {0: ("old", 4)}}
        self.stand(self.node, Lineage("later", {0: Position(0, 1, 2, "new")}, first | past))

    @staticmethod
    def stand(node: Member, lineage: Lineage) -> None:
        connection = node.replica.connection
        with transaction(connection, "are there"):
            for schema in ("main", "mirror"):
                mirror_file.set_positions(connection, schema, lineage.positions)
                write_history(connection, schema, lineage)

    @asynccontextmanager
    async def answering(self, answer: PeerState) -> AsyncIterator[None]:
        """Have the other node answer."""

        async def say(_: bytes) -> bytes:
            return msgspec.json.encode(answer)

        serving = asyncio.create_task(self.peers.serve(TOPIC, bytes, say))
        try:
            async with asyncio.timeout(60):
                while not (await self.peers.ask(TOPIC, b"", bytes, seconds=0.2, expect=1)).answers:
                    pass
            yield
        finally:
            serving.cancel()

    async def tries(self, answer: PeerState) -> None:
        """Let the node recover once, while the other one answers."""
        async with self.answering(answer):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(recover, "ASK", 6.0)  # a machine that stands still for a while is no other answer
                assert not await self.recovery.leads_on(self.node.replica, 1_000.0)


@pytest.fixture
async def set_back(
    group: Group, link: NatsLink, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[SetBack]:
    monkeypatch.setattr(recover, "AGAIN", 0.0)
    found = SetBack(group, link, tmp_path, SqliteThread())
    await found.arrange()
    yield found
    await found.thread.aclose()


async def test_the_cluster_begins_anew_and_folds_nothing_a_second_time(set_back: SetBack) -> None:
    await set_back.tries(PeerState("b", False, "later", {0: ("new", 1)}, 1))
    pointed = await set_back.repository.newest()
    assert pointed is not None
    assert pointed.history not in ("earlier", "later")
    assert (pointed.positions, pointed.resume, pointed.created) == ({0: 4}, {0: 1}, {0: "old"})
    assert await set_back.recovery.leads_on(set_back.node.replica, 0.0), "the beginning is on what the stream holds"
    lineage = set_back.node.replica.lineage()
    assert (lineage.history, lineage.positions[0].seq) == (pointed.history, 4)
    assert max(folded_seqs(set_back.node.replica.connection, 0), default=0) <= 0
    assert set_back.node.run("SELECT * FROM t") == [("written", "later")]


async def test_what_somebody_may_have_written_since_is_folded(set_back: SetBack) -> None:
    """A node that missed the later history follows the old streams as if nothing had happened, and writes into them."""
    await set_back.tries(PeerState("b", True, "earlier", {0: ("old", 5)}))
    pointed = await set_back.repository.newest()
    assert pointed is not None
    assert pointed.history not in ("earlier", "later"), "a node that follows an earlier history is not waited for"
    assert pointed.positions == {0: 0}


async def test_while_a_node_follows_the_streams_nobody_starts_a_new_epoch(set_back: SetBack) -> None:
    before = await set_back.repository.newest()
    await set_back.tries(PeerState("b", True, "later", {0: ("old", 5)}))
    assert await set_back.repository.newest() == before
    assert "waiting for a snapshot of node b" in set_back.status.part("recovery").reason


async def test_recovering_lasts_until_the_node_can_follow(set_back: SetBack, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SURE", "SILENT", "TURN"):
        monkeypatch.setattr(recover, name, 0.0)
    async with set_back.answering(PeerState("b", False, "later", {0: ("new", 1)}, 1)), asyncio.timeout(60):
        await set_back.recovery.recover(set_back.node.replica)
    assert set_back.node.replica.lineage().history not in ("earlier", "later")
    assert set_back.status.part("recovery").state == "ok"


async def test_a_node_that_was_away_when_a_new_epoch_started_takes_it_up(set_back: SetBack) -> None:
    set_back.stand(set_back.node, Lineage("another", {0: Position(0, 0, 1, "old")}, {"first": {0: ("oldest", 7)}}))
    with pytest.raises(StreamLostError, match="new epoch"):
        await set_back.recovery.check(set_back.node.replica)
    set_back.stand(set_back.node, Lineage("earlier", {0: Position(0, 0, 1, "old")}))
    await set_back.recovery.check(set_back.node.replica)


@pytest.mark.parametrize("at", ["old", "new"])
async def test_a_member_of_another_cluster_takes_nothing_up_and_replaces_no_pointer(set_back: SetBack, at: str) -> None:
    """Whether the streams happen to fit its position or not."""
    pointed = await set_back.repository.newest()
    set_back.stand(set_back.node, Lineage("of another", {0: Position(0, 0, 1, at)}, {"its first": {0: ("its", 7)}}))
    with pytest.raises(OtherClusterError, match=r"began as epoch its first, and snapshot .* one that began as first"):
        await set_back.recovery.leads_on(set_back.node.replica, 1_000.0)
    if at == "old":
        with pytest.raises(OtherClusterError):
            await set_back.recovery.check(set_back.node.replica)
    assert await set_back.repository.newest() == pointed
    assert set_back.node.replica.lineage().history == "of another"
