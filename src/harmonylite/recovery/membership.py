"""Whose streams NATS holds: the cluster's that a database belongs to, or another one's.

Invariant: a database that joined a cluster takes up no snapshot of another one and so publishes no row there, whatever
URL it is given by mistake. All epochs of a cluster descend from its first one, whose name is random; two clusters share
none.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from harmonylite.changes.epochs import Lineage, are_strangers
from harmonylite.db.mirror.positions import LIMBO
from harmonylite.db.replica import Replica
from harmonylite.db.snapshot import lineage_of
from harmonylite.db.sqlite.thread import SqliteThread
from harmonylite.errors import OtherClusterError
from harmonylite.snapshots.manifest import Snapshot
from harmonylite.snapshots.repository import SnapshotRepository


def is_new_epoch(newest: Snapshot | None, lineage: Lineage) -> bool:
    """Return whether the newest snapshot is of an epoch that a mirror at ``lineage`` has not been in."""
    if newest is None or newest.history == lineage.history:
        return False
    return newest.history not in lineage.past or lineage.history.startswith(LIMBO)


async def newest_of_cluster(repository: SnapshotRepository, replica: Replica, thread: SqliteThread) -> Snapshot | None:
    """Return the newest snapshot; raises OtherClusterError if the pointer names one of another cluster.

    Without a pointer the store alone names it, and clusters may share a store. Raises StreamError, SnapshotError.
    """
    newest = await repository.newest()
    if newest is not None and not repository.unnamed:
        await thread.run(_compare, replica, newest, newest.lineage)
    return newest


async def must_belong(replica: Replica, thread: SqliteThread, snapshot: Snapshot, file: Path) -> None:
    """Raise OtherClusterError if a fetched snapshot is of another cluster; an earlier version described it without."""
    await thread.run(_compare, replica, snapshot, await asyncio.to_thread(lineage_of, file))


def _compare(replica: Replica, snapshot: Snapshot, theirs: Lineage) -> None:
    """Raise OtherClusterError if the database joined another cluster than ``theirs``; runs on the SQLite thread."""
    if not replica.joined:
        return
    mine = replica.lineage("main")
    if are_strangers(mine, theirs):
        raise OtherClusterError(
            f"NATS holds the streams of another cluster than the one that {replica.options.database} belongs to: that"
            f" one began as epoch {mine.origin}, and snapshot {snapshot.name} of node {snapshot.node}, the newest"
            f" here, is of one that began as {theirs.origin}; nothing is merged or published",
            advice="correct [nats] urls, subject_prefix or stream_prefix; or, to merge the database into this cluster,"
            " stop the node, run `harmonylite -cleanup` with its configuration, and start it again",
        )
