"""Build a missing database, or heal a damaged one, where no application sees it; then put it in its place.

Invariant: a database that appears holds all that every shard held when the node asked. So an application that reads it
and writes based on that undoes nothing that was acknowledged before. If no stream answers, no database appears.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol

from harmonylite.backoff import Backoff
from harmonylite.db.mirror.positions import shards_ahead
from harmonylite.db.repair import begin_healing, finish_healing, readable_lineage, save_pending
from harmonylite.db.replica import Replica
from harmonylite.db.replica_options import ReplicaOptions
from harmonylite.db.snapshot import begin_hidden, drop, fill, offer, pour, seal
from harmonylite.db.sqlite.deadline import Deadline
from harmonylite.db.sqlite.thread import SqliteThread
from harmonylite.errors import (
    DatabaseBusyError,
    PoisonError,
    SchemaWaitError,
    SnapshotError,
    StreamError,
    StreamGapError,
    StreamLostError,
)
from harmonylite.ports import ShardStream
from harmonylite.progress import catching_up
from harmonylite.snapshots.replay import bring_forward
from harmonylite.snapshots.roll_forward import catch_up
from harmonylite.status import NodeStatus

log = logging.getLogger(__name__)


class LeadsOn(Protocol):
    """Decides whether a replica can follow the streams, and recovers if not; see `Recovery.leads_on`."""

    async def leads_on(self, replica: Replica, seconds: float) -> bool:
        """Return whether it can now; else the next step was done, ``seconds`` after the first one."""


class DatabaseBuilder:
    """Builds or heals the database of one node. All SQLite work is done on ``thread``."""

    def __init__(
        self,
        options: ReplicaOptions,
        thread: SqliteThread,
        status: NodeStatus,
        recovery: LeadsOn,
        streams: Sequence[ShardStream],
    ) -> None:
        self._options = options
        self._thread = thread
        self._status = status
        self._part = status.part("join")
        self._recovery = recovery
        self._streams = streams

    async def make(self, snapshot: Path) -> None:
        """Make the database that is not there from ``snapshot``, which is taken over and becomes the mirror.

        A file without any table stays the same file, and gets everything in one transaction.
        Raises SchemaWaitError where the streams need what the snapshot's schema lacks, PoisonError, StreamError,
        SnapshotError, DatabaseError; no database has appeared then.
        """
        run, path = self._thread.run, self._options.database
        with Deadline() as deadline:
            into = path if path.exists() else None
            replica = await run(partial(begin_hidden, self._options, snapshot, deadline, into=into))
        building = replica.options.database
        try:
            await self._to_the_ends(replica, merge=False)
            with Deadline() as deadline:
                await run(fill, replica, deadline)
            # Filling a large database takes its time; the cluster has continued.
            await self._to_the_ends(replica, merge=True)
            await run(seal, replica)
            await run(pour if path.exists() else offer, building, path)
        finally:
            await self._thread.always(_discard, replica)

    async def heal(self, mirror: Path) -> tuple[Path, int]:
        """Put a whole database in the damaged one's place; return where that is kept, and the rows saved from it.

        ``mirror``: a copy of the mirror, or a snapshot, which is taken over. Raises as `make` does, with the damaged
        database where it was.
        """
        run, damaged = self._thread.run, self._options.database
        with Deadline() as deadline:
            replica = await run(begin_healing, self._options, mirror, deadline)
        try:
            # What is written into the damaged file after its rows are saved stays there: that is to be a short while.
            await self._until_asked()
            await self._to_former_position(replica, damaged)
            with Deadline() as deadline:
                saved = await run(save_pending, replica, damaged, deadline)
            try:
                await self._to_the_ends(replica, merge=True, patient=False)
            except (SchemaWaitError, PoisonError) as error:
                # The application's migration, or a person, brings the node past it; both need a database.
                log.warning(
                    "healed database %(database)s up to a change set that waits: %(error)s",
                    {"database": damaged, "error": error},
                )
            return await run(finish_healing, self._options, replica), saved
        finally:
            await self._thread.always(_discard, replica)

    async def _to_former_position(self, replica: Replica, damaged: Path) -> None:
        """Fold up to what a damaged database had merged: what its log names was written on top of that.

        Its mirror is there already, but for a crash; a snapshot is not. Where that can't be reached any more, values
        that others wrote since count as this node's.
        """
        former = await self._thread.run(readable_lineage, damaged)
        here = await self._thread.run(replica.lineage)
        further = shards_ahead(former, here) if former.history == here.history else set()
        if not further or not await self._follows(replica, None):
            return
        ends = await self._ends()
        targets = {shard: position.seq for shard, position in (await self._thread.run(replica.positions)).items()}
        targets |= {shard: max(targets[shard], min(ends[shard], former.positions[shard].seq)) for shard in further}
        await bring_forward(replica, self._thread, self._streams, targets, merge=False)

    async def _until_asked(self) -> None:
        """Return once the streams answer, even if they are lost."""
        backoff = Backoff(first=0.2, most=5.0)
        while True:
            try:
                await self._ends()
            except StreamLostError:
                return
            except StreamError as error:
                self._no_answer(error)
                await asyncio.sleep(backoff.failed(time.monotonic()))
            else:
                return

    def _no_answer(self, error: StreamError) -> None:
        why = f"the ends of the streams can't be asked; no database is put in place before that: {error}"
        self._part.waiting(why, error)

    async def _to_the_ends(self, replica: Replica, *, merge: bool, patient: bool = True) -> None:
        """Fold up to the ends that all shards have now; ``patient``: however long it takes until they can be asked."""
        backoff = Backoff(first=0.2, most=5.0)
        trouble: float | None = None
        while True:
            try:
                if await self._follows(replica, trouble):
                    self._part.waiting("asking the streams for their ends")
                    await self._catch_up(replica, await self._ends(), merge=merge)
                    return
                trouble = trouble if trouble is not None else time.monotonic()
            except (StreamGapError, StreamLostError) as error:
                trouble = trouble if trouble is not None else time.monotonic()
                self._part.waiting(str(error), error)
            except StreamError as error:
                if not patient:
                    raise
                trouble = None
                self._no_answer(error)
            except (SnapshotError, DatabaseBusyError) as error:
                self._part.waiting(str(error), error)
            await asyncio.sleep(backoff.failed(time.monotonic()))

    async def _follows(self, replica: Replica, trouble: float | None) -> bool:
        seconds = 0.0 if trouble is None else time.monotonic() - trouble
        return await self._recovery.leads_on(replica, seconds)

    async def _ends(self) -> dict[int, int]:
        return {stream.shard: await stream.end() for stream in self._streams}

    async def _catch_up(self, replica: Replica, ends: Mapping[int, int], *, merge: bool) -> None:
        created = {stream.shard: (await stream.info()).created for stream in self._streams}
        await self._thread.run(replica.set_created, created)
        self._show(
            {shard: position.seq for shard, position in (await self._thread.run(replica.positions)).items()}, ends
        )
        await catch_up(
            replica, self._thread, self._streams, ends, merge=merge, progress=lambda folded: self._show(folded, ends)
        )

    def _show(self, folded: Mapping[int, int], ends: Mapping[int, int]) -> None:
        """Show the progress in the status."""
        status = self._status
        for shard, seq in folded.items():
            state = status.shard(shard)
            state.position, state.last = seq, max(state.last, ends[shard], seq)
        status.pace.see(status.left, time.monotonic())
        far = catching_up(status.catching_up) or "no message is left"
        self._part.waiting(f"the database is put in place once it holds all: {far}")


def _discard(replica: Replica) -> None:
    """Close a replica; a database that was not put in its place is made from the start at the next try."""
    replica.close()
    drop(replica.options.database)
