"""Leave messages out of this node's mirror, and report what it lacks because of that.

Invariant: before the first message is left out, a copy of the mirror is kept, so that it can be undone as long as the
streams hold what came since; an entry goes once a comparison found the mirror right, or it was undone.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from harmonylite.changes.fragments import Fragment
from harmonylite.changes.skipped import LeftOut, described, outstanding
from harmonylite.db.mirror import skipped_messages
from harmonylite.db.replica import Replica
from harmonylite.db.replica_options import ReplicaOptions
from harmonylite.db.snapshot import lineage_of, save_copy
from harmonylite.db.sqlite.connection import mapped
from harmonylite.db.sqlite.thread import SqliteThread
from harmonylite.replication.pause import Pause
from harmonylite.status import NodeStatus

log = logging.getLogger(__name__)


def copy_of(options: ReplicaOptions) -> Path:
    """Return the file that keeps the mirror's state before the first message that it lacks."""
    return options.folder / "before-skip.db"


class SkippedMessages:
    """What the mirror lacks. ``status`` counts it, as a warning."""

    def __init__(self, replica: Replica, thread: SqliteThread, status: NodeStatus) -> None:
        self._replica = replica
        self._thread = thread
        self._status = status
        self._leaving_out = asyncio.Lock()  # two shards may be asked at once, and there is one copy

    def read(self) -> list[LeftOut]:
        """Return what the mirror lacks, and update the status; runs on the SQLite thread."""
        found = skipped_messages.left_out(self._replica.connection)
        self._status.left_out = tuple(f"{entry.shard}:{entry.seq}" for entry in found)
        if not found:
            copy_of(self._replica.options).unlink(missing_ok=True)
        return found

    async def leave_out(self, pause: Pause, fragments: Sequence[Fragment]) -> LeftOut:
        """Remember that the message at which ``pause`` waits is left out, and log what it holds.

        ``fragments``: its change set, where it can be read. Raises DatabaseError with nothing changed.
        """
        positions = await self._thread.run(self._replica.positions)
        created = positions[pause.shard].created
        entry = described(LeftOut(pause.shard, pause.seq, created, time.time(), pause.reason), fragments)
        async with self._leaving_out:
            await self._keep_copy(await self._thread.run(self.read))
            await self._thread.run(skipped_messages.remember, self._replica.connection, [entry])
            await self._thread.run(self.read)
        log.warning(
            "skipped message %(seq)d of shard %(shard)d on this node: %(reason)s",
            {"seq": entry.seq, "shard": entry.shard, "reason": entry.sentence},
        )
        return entry

    async def _keep_copy(self, already: Sequence[LeftOut]) -> None:
        """Keep a copy of the mirror, unless an earlier copy is still useful."""
        copy = copy_of(self._replica.options)
        if already and copy.exists() and await asyncio.to_thread(self._is_of_use, copy):
            return
        fresh = copy.with_suffix(".new")

        def work() -> None:
            with mapped(f"keep a copy of the mirror as {copy}"), self._replica.options.readers.reading():
                fresh.unlink(missing_ok=True)
                save_copy(self._replica.options.mirror, fresh)
                fresh.replace(copy)

        await asyncio.to_thread(work)

    def _is_of_use(self, copy: Path) -> bool:
        first = {shard: state.first for shard, state in self._status.shards.items()}
        return all(first.get(shard, 0) <= position.resume for shard, position in lineage_of(copy).positions.items())

    async def settle(self, right: Mapping[int, int]) -> None:
        """Forget what is no longer missing: at the positions ``right`` the mirror was found to be right."""
        found = await self._thread.run(self.read)
        if not found:
            return
        positions = await self._thread.run(self._replica.positions)
        at = {shard: positions[shard] for shard in right if shard in positions}
        kept = outstanding(found, {shard: right[shard] for shard in at}, {s: p.created for s, p in at.items()})
        if done := [entry for entry in found if entry not in kept]:
            await self._thread.run(skipped_messages.forget, self._replica.connection, done)
            await self._thread.run(self.read)
            names = ", ".join(f"{entry.shard}:{entry.seq}" for entry in done)
            log.info(
                "verified the mirror: it lacks nothing of the skipped messages (%(messages)s)", {"messages": names}
            )
