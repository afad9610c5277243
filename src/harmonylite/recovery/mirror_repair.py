"""Repair: replace this node's mirror by a right one, at that mirror's exact position.

Invariant: rows that the wrong mirror gave to the database lose, with a journal entry; pending rows stay pending. Where
the right mirror can't be brought forward nothing is changed, and the caller gets the reason.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from harmonylite.changes.skipped import LeftOut
from harmonylite.db.mirror import skipped_messages
from harmonylite.db.mirror.compare import deviations
from harmonylite.db.replica import Replica
from harmonylite.db.sqlite.thread import SqliteThread
from harmonylite.errors import ObjectMissingError
from harmonylite.snapshots.replay import Replay, replayed
from harmonylite.status import NodeStatus

log = logging.getLogger(__name__)


def _future() -> asyncio.Future[int]:
    made: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    made.add_done_callback(lambda f: f.cancelled() or f.exception())  # perhaps no caller waits for it
    return made


@dataclass(frozen=True)
class RightMirror:
    """A right mirror. ``what`` it is and ``why`` it is taken, for a person; ``fetch``: gives the file, which is taken
    over; None: it is gone. ``taken_in``: messages that this node left out, and that are not left out any more.
    ``done``: the number of conflicts, once the mirror is right, or why it can't be.
    """

    what: str
    why: str
    fetch: Callable[[], Awaitable[Path | None]]
    taken_in: tuple[LeftOut, ...] = ()
    done: asyncio.Future[int] = field(default_factory=_future)


async def repair(replica: Replica, thread: SqliteThread, status: NodeStatus, what: Replay, source: RightMirror) -> int:
    """Take the mirror of ``source``; return the number of conflicts.

    Raises StreamError, SnapshotError, SchemaWaitError, PoisonError, DatabaseError.
    """
    file = await source.fetch()
    if file is None:
        raise ObjectMissingError(f"{source.what} is gone")
    targets = {shard: p.seq for shard, p in (await thread.run(replica.positions)).items()}
    lacking = await thread.run(skipped_messages.left_out, replica.connection)
    leave_out = [entry for entry in lacking if entry not in source.taken_in]
    async with replayed(what, file, targets, schema=replica.options.mirror, leave_out=leave_out) as made:
        found = await thread.run(deviations, replica.connection, replica.tables, made.options.mirror)
        for name, (count, keys) in found.items():
            log.error(
                "found %(rows)d wrong rows of table %(table)s in this node's mirror, for example %(sample)s",
                {"table": name, "rows": count, "sample": keys},
            )
            status.counters.verify_differences += count
        conflicts = await thread.run(replica.adopt, made.options.mirror, relation="deviates")
    status.counters.conflicts += conflicts
    log.warning("repaired the mirror from %(source)s", {"source": source.what})
    return conflicts
