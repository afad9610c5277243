"""Lost tails: a power cut of NATS takes the newest messages with it, and their numbers are given to others.

How far a mirror and what is left agree, and how a node goes back to there, is `harmonylite.snapshots`' own code.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import ParamSpec, TypeVar

from harmonylite.changes.epochs import Lineage, further, held
from harmonylite.db.mirror.positions import rewind
from harmonylite.db.replica import Replica
from harmonylite.db.snapshot import lineage_of
from harmonylite.db.sqlite.thread import SqliteThread
from harmonylite.model import Position, StreamInfo, StreamMessage
from harmonylite.snapshots.divergence import FoldedByReplica, common_end, diverged
from harmonylite.snapshots.replay import Replay, replayed
from tests.simulation.properties import must
from tests.simulation.world import World

P = ParamSpec("P")
R = TypeVar("R")

MOST_TRIES = 4
"""A node that was made from a snapshot of what is lost finds that out, too, and goes back once more."""


class Inline(SqliteThread):
    """Runs at once, in the one thread of the simulation."""

    async def run(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Return what ``function`` returns."""
        return function(*args, **kwargs)


class Tape:
    """A stream of the world, as much of `harmonylite.ports.ShardStream` as recovering needs."""

    def __init__(self, world: World, shard: int, forgotten: int, *, node: str = "") -> None:
        self.shard = shard
        self._world = world
        self._forgotten = forgotten
        self._node = node

    @property
    def now(self) -> StreamInfo:
        """Its state."""
        return StreamInfo(self.shard, self._forgotten + 1, self._world.last(self.shard), "now")

    async def get(self, seq: int) -> StreamMessage | None:
        """Return a message, None when it is not there."""
        found = self._world.after(self.shard, seq - 1, 1) if seq > self._forgotten else []
        return found[0] if found else None

    async def read(self, start: int) -> AsyncIterator[list[StreamMessage]]:
        """Yield all from ``start`` on, without end."""
        while True:
            if batch := self._world.after(self.shard, start - 1, 1 << 30):
                start = batch[-1].seq + 1
                yield batch
            await asyncio.sleep(0)

    async def info(self) -> StreamInfo:
        """Return its state."""
        return self.now

    async def end(self) -> int:
        """Return its last sequence."""
        return self.now.last

    async def publish(
        self, payload: bytes, *, message_id: str, expected_last: int | None = None, expected_end: int | None = None
    ) -> int:
        """Store an abort message; nothing else is published while a node recovers."""
        return self._world.publish(self.shard, self._node, payload)

    async def last_own(self) -> StreamMessage | None:
        """Nothing is published while a node recovers."""
        raise NotImplementedError

    async def next_own(self, after: int) -> StreamMessage | None:
        """Nothing is published while a node recovers."""
        raise NotImplementedError


def go_back(replica: Replica, tapes: Sequence[Tape], snapshots: Sequence[Path], history: str) -> None:
    """Let ``replica`` agree with the streams, as `harmonylite.recovery.recover` does."""
    for _ in range(MOST_TRIES):
        lineage = replica.lineage()
        ends, lost = {}, False
        for tape in tapes:
            position = lineage.positions[tape.shard]
            end, proof = asyncio.run(common_end(tape, tape.now, position, FoldedByReplica(replica, Inline())))
            must(end is not None, f"the stream of shard {tape.shard} is taken for another one")
            assert end is not None
            ends[tape.shard] = end
            if end < position.seq and proof:
                rewind(replica.connection, tape.shard, end)
            lost = lost or (end < position.seq and not proof)
        if not lost:
            _stay_within(replica, tapes)
            return
        kept = [file for file in snapshots if not asyncio.run(diverged(file, tapes))]
        fitting = [file for file in kept if _leads_on(lineage_of(file), history, tapes, ends)]
        if fitting:
            asyncio.run(_adopt_common(replica, tapes, fitting[-1], ends))
        else:
            _adopt_newest(replica, (kept or snapshots)[-1])
    must(False, "a node goes back again and again")


def _leads_on(snapshot: Lineage, history: str, tapes: Sequence[Tape], ends: Mapping[int, int]) -> bool:
    """Return whether ``snapshot`` stands before all ``ends``, and what comes after it is kept."""
    at = {tape.shard: snapshot.positions.get(tape.shard, Position(tape.shard)) for tape in tapes}
    return snapshot.history == history and all(
        at[tape.shard].seq <= ends[tape.shard] and at[tape.shard].resume >= tape.now.first for tape in tapes
    )


def _stay_within(replica: Replica, tapes: Sequence[Tape]) -> None:
    if replica.joined:
        database = replica.lineage("main")
        beyond = frozenset(tape.shard for tape in tapes if database.positions[tape.shard].seq > tape.now.last)
        if beyond:
            replica.keep_mine(beyond)


def _adopt_newest(replica: Replica, snapshot: Path) -> None:
    """Take up a snapshot that this node has less in common with than it knows."""
    file = replica.options.folder / "newest.db"
    shutil.copy(snapshot, file)
    mine = held(replica.lineage("main"), replica.lineage())
    replica.adopt(file, relation="diverged", further=further(mine, lineage_of(file)))


async def _adopt_common(replica: Replica, tapes: Sequence[Tape], snapshot: Path, targets: Mapping[int, int]) -> None:
    options = replica.options
    file = options.folder / "common.db"
    shutil.copy(snapshot, file)
    what = Replay.of(options, tapes)
    async with replayed(what, file, targets, schema=options.mirror) as made:
        replica.adopt(made.options.mirror, relation="ahead")
