"""Join: bring this node's files to where replication can begin.

Invariant: nothing that only this database holds is lost. The first snapshot is the beginning of the cluster; whoever
saves it first is the first node, and everyone else is merged with it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from harmonylite.backoff import Backoff
from harmonylite.db.replica import Replica, ReplicaOptions
from harmonylite.db.snapshot import has_tables, install_mirror, make_database, make_schema_in
from harmonylite.db.thread import SqliteThread
from harmonylite.errors import DatabaseBusyError, SnapshotError, StreamError
from harmonylite.snapshots.keeper import Keeper
from harmonylite.status import NodeStatus

log = logging.getLogger(__name__)

T = TypeVar("T")
AGAIN = 1.0
"""Seconds between looks for a snapshot, or for the database file."""


class Joiner:
    """Opens a replica for the first time and every time. ``ask``: beg the other nodes to save a snapshot."""

    def __init__(
        self, options: ReplicaOptions, thread: SqliteThread, status: NodeStatus, *, ask: Callable[[], Awaitable[bool]]
    ) -> None:
        self._options = options
        self._thread = thread
        self._status = status
        self._ask = ask
        self._part = status.part("join")

    async def open(self) -> Replica | None:
        """Open the database as it is, before NATS is there, so that its writes are logged; None when there is none."""
        path = self._options.database
        if not path.exists() or not await self._thread.run(has_tables, path):
            return None
        replica = Replica(self._options)
        backoff = Backoff(first=0.05, most=1.0)
        loop = asyncio.get_running_loop()
        while True:
            try:
                await self._thread.run(replica.open)
            except DatabaseBusyError as error:
                self._part.waiting(str(error))
                await asyncio.sleep(backoff.failed(loop.time()))
            else:
                return replica

    async def join(self, replica: Replica | None, keeper: Keeper) -> Replica:
        """Return the replica with a mirror that has a beginning; see DESIGN, section 3."""
        opened = replica if replica is not None else await self._without_database(keeper)
        while not await self._thread.run(_is_whole, opened):
            newest = await self._patiently(keeper.newest)
            if newest is not None or await self._thread.run(_is_joined, opened):
                await self._from_snapshot(opened, keeper)
            else:
                await self._begin(opened, keeper)
        await self._check_ahead(opened)
        self._part.ok()
        return opened

    async def _check_ahead(self, replica: Replica) -> None:
        joined = await self._thread.run(_is_joined, replica)
        if joined and await self._thread.run(_mirror_ahead, replica):
            log.warning("the mirror is ahead of the database: it was restored or lost its tail; they are compared")
            self._status.counters.conflicts += await self._thread.run(replica.reconcile, first=False)

    async def _begin(self, replica: Replica, keeper: Keeper) -> None:
        """Be the first node; where another one is faster, the mirror is empty again and its beginning is ours."""
        newest = await self._thread.run(replica.copy_into_mirror)
        self._part.waiting("saving the first snapshot")
        if await self._patiently(lambda: keeper.save(first=True)) is not None:
            await self._thread.run(replica.join_first, newest)
            log.info("this is the first node: its content is the cluster's beginning")
            return
        await self._thread.run(replica.close)
        await self._thread.run(_drop_mirror, self._options)
        await self._thread.run(replica.open)

    async def _from_snapshot(self, replica: Replica, keeper: Keeper) -> None:
        """Take the newest snapshot for the mirror; the database is merged with it once it is folded to the end."""
        self._part.waiting("fetching the newest snapshot")
        fetched = await self._patiently(keeper.fetch)
        if fetched is None:
            self._part.waiting("the mirror is lost and there is no snapshot; another node is asked for one")
            await self._ask()
            await asyncio.sleep(AGAIN)
            return
        await self._thread.run(replica.close)
        await self._thread.run(install_mirror, self._options, fetched[1])
        await self._thread.run(replica.open)
        log.info("snapshot %s of node %s is the mirror now", fetched[0].name, fetched[0].node)

    async def _without_database(self, keeper: Keeper) -> Replica:
        """Make the database from the newest snapshot, or wait until the application or a snapshot is there."""
        path = self._options.database
        while True:
            fetched = await self._patiently(keeper.fetch)
            opened = await self.open()
            if opened is not None:
                if fetched is not None:
                    fetched[1].unlink(missing_ok=True)
                return opened
            if fetched is None:
                self._part.waiting(f"there is no table in {path} and no snapshot yet: waiting for either")
                await asyncio.sleep(AGAIN)
                continue
            snapshot, file = fetched
            if path.exists():
                await self._thread.run(make_schema_in, path, file)
                await self._thread.run(install_mirror, self._options, file)
            else:
                await self._thread.run(make_database, self._options, file)
            log.info("the database %s was made from snapshot %s of node %s", path, snapshot.name, snapshot.node)

    async def recover(self, replica: Replica, keeper: Keeper, first: dict[int, int]) -> None:
        """Bring a joined replica past messages that no stream holds any more; ``first``: oldest kept, by shard."""
        while True:
            newest = await self._patiently(keeper.newest)
            if newest is not None and all(newest.resume.get(s, 1) >= seq for s, seq in first.items()):
                fetched = await self._patiently(keeper.fetch)
                if fetched is not None:
                    if await self._thread.run(_is_joined, replica):
                        await self._thread.run(replica.adopt, fetched[1])
                    else:
                        await self._thread.run(replica.close)
                        await self._thread.run(install_mirror, self._options, fetched[1])
                        await self._thread.run(replica.open)
                    log.info("went on from snapshot %s of node %s", fetched[0].name, fetched[0].node)
                    self._part.ok()
                    return
            self._part.waiting("the stream has forgotten what this node needs next; waiting for a newer snapshot")
            await self._ask()
            await asyncio.sleep(AGAIN)

    async def _patiently(self, call: Callable[[], Awaitable[T]]) -> T:
        backoff = Backoff(first=0.2, most=5.0)
        loop = asyncio.get_running_loop()
        while True:
            try:
                return await call()
            except (StreamError, SnapshotError) as error:
                self._part.waiting(str(error))
                await asyncio.sleep(backoff.failed(loop.time()))


def _is_whole(replica: Replica) -> bool:
    return replica.whole


def _is_joined(replica: Replica) -> bool:
    return replica.joined


def _mirror_ahead(replica: Replica) -> bool:
    merged = replica.merged_positions()
    return any(position.seq > merged[shard].seq for shard, position in replica.positions().items())


def _drop_mirror(options: ReplicaOptions) -> None:
    for name in ("", "-wal", "-shm"):
        Path(f"{options.mirror}{name}").unlink(missing_ok=True)
