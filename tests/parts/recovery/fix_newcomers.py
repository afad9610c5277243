"""A node without a file, a snapshot of a group's member, and streams that hold more than that."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import apsw
import pytest

from harmonylite.db.replica_options import ReplicaOptions
from harmonylite.db.snapshot import save_copy
from harmonylite.db.sqlite.thread import SqliteThread
from harmonylite.errors import StreamError
from harmonylite.recovery.build_database import DatabaseBuilder
from harmonylite.status import NodeStatus
from tests.parts.db.fix_replicas import Group
from tests.simulation.survivor import Follows
from tests.simulation.tails import Tape

T = "CREATE TABLE t(id INTEGER PRIMARY KEY, v, w)"


class Newcomer:
    """A node ``new`` without a file, and a snapshot of the first member of a group."""

    def __init__(self, group: Group, folder: Path, thread: SqliteThread) -> None:
        self.group, self.folder, self.thread = group, folder, thread
        self.status = NodeStatus()
        first = group.members[0].options
        self.options = replace(
            first, database=folder / "new" / "app.db", folder=folder / "new" / "mirror", node="new", session="s"
        )
        self.options.folder.mkdir(parents=True)
        self.snapshot = self.options.folder / "fetched.db"
        save_copy(first.mirror, self.snapshot)
        self.tapes = [Tape(group.world, shard, 0, node="new") for shard in range(group.world.shards)]

    def builder(self, options: ReplicaOptions | None = None) -> DatabaseBuilder:
        return DatabaseBuilder(options or self.options, self.thread, self.status, Follows(), self.tapes)

    @property
    def app(self) -> apsw.Connection:
        return apsw.Connection(str(self.options.database))


class Away:
    """Streams of which nobody can be asked where they end, until it is `over`. ``refused``: set whenever one was."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.refused = asyncio.Event()
        self._back = False

        async def end(tape: Tape) -> int:
            if not self._back:
                self.refused.set()
                raise StreamError("no server answers")
            return tape.now.last

        monkeypatch.setattr(Tape, "end", end)

    def over(self) -> None:
        """Let the streams answer."""
        self._back = True


@pytest.fixture
async def thread() -> AsyncIterator[SqliteThread]:
    thread = SqliteThread()
    yield thread
    await thread.aclose()


@pytest.fixture
def newcomer(group: Group, tmp_path: Path, thread: SqliteThread) -> Newcomer:
    """The group's streams hold more than the snapshot."""
    a, _ = group.several(2, T)
    newcomer = Newcomer(group, tmp_path, thread)
    for n in range(5):
        a.run("INSERT INTO t VALUES (?, 'after the snapshot', 0)", (n,))
        group.settle()
    return newcomer
