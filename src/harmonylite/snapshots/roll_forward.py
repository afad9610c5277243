"""Fold forward: bring a replica that no application uses yet to where the streams end, whole change sets only.

Invariant: what was acknowledged before the streams' ends were asked is in the replica when `catch_up` returns. A change
set that its writer left unfinished blocks no node permanently: it is aborted as in `harmonylite.replication`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from tempfile import SpooledTemporaryFile
from typing import IO

from harmonylite.changes import aborts
from harmonylite.changes.reassembler import Reassembler
from harmonylite.db.replica import Replica
from harmonylite.db.sqlite.thread import SqliteThread
from harmonylite.errors import PoisonError, SchemaWaitError, StreamError, leaves
from harmonylite.model import ChangeSetId, StreamMessage
from harmonylite.ports import ShardStream
from harmonylite.wire import KIND_ABORT, VERSION, Envelope, encode_abort, encode_envelope

log = logging.getLogger(__name__)

BATCH_BYTES = 4_000_000
"""Change sets of about this many bytes are applied in one transaction."""
AHEAD_BYTES = 64_000_000
"""Reading pauses while about this many bytes wait to be applied."""
POLL_EVERY = 1.0
"""Seconds between checks for such change sets."""

Folded = Callable[[Mapping[int, int]], None]
"""Called with every shard's position."""


async def catch_up(
    replica: Replica,
    thread: SqliteThread,
    streams: Sequence[ShardStream],
    targets: Mapping[int, int],
    *,
    merge: bool,
    progress: Folded,
) -> None:
    """Fold every shard up to its sequence in ``targets``, or further; ``merge``: into the database, too.

    Raises StreamError (StreamGapError: the stream has forgotten what comes next), SchemaWaitError, PoisonError,
    DatabaseError. Cancelling leaves the replica at a whole batch.
    """
    catching = _CatchingUp(replica, thread, streams, merge=merge, progress=progress)
    try:
        await catching.run(targets)
    except BaseExceptionGroup as group:
        raise leaves(group)[0] from None


class _CatchingUp:
    """One run of `catch_up`."""

    def __init__(
        self, replica: Replica, thread: SqliteThread, streams: Sequence[ShardStream], *, merge: bool, progress: Folded
    ) -> None:
        self._replica = replica
        self._thread = thread
        self._streams = {stream.shard: stream for stream in streams}
        self._merge = merge
        self._progress = progress
        self._arrived = asyncio.Event()
        self._room = asyncio.Event()
        self._reassembler = Reassembler({})
        self._poisoned: PoisonError | None = None

    async def run(self, targets: Mapping[int, int]) -> None:
        """Read all shards concurrently: one may wait for what another one has."""
        self._reassembler = Reassembler(await self._thread.run(self._replica.positions), spool=spool)
        if self._reached(targets):
            return
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._read(shard), name=f"read shard {shard}") for shard in self._streams]
                tasks.append(group.create_task(self._unstick(targets), name="unstick"))
                while not self._reached(targets):
                    await self._arrived.wait()
                    self._arrived.clear()
                    await self._apply()
                    if self._poisoned is not None and not self._reached(targets):
                        raise self._poisoned
                for task in tasks:
                    task.cancel()
        finally:
            self._reassembler.close()

    def _reached(self, targets: Mapping[int, int]) -> bool:
        return all(self._reassembler.position(shard).seq >= seq for shard, seq in targets.items())

    async def _apply(self) -> None:
        """Apply what is whole. This node's own change sets may be among them: none of them is in flight."""
        least = False
        while (batch := self._reassembler.take(most_bytes=BATCH_BYTES, least=least)) is not None:
            try:
                await self._thread.run(self._replica.apply, batch, merge=self._merge)
            except SchemaWaitError:
                self._reassembler.put_back(batch)
                if least or len(batch.fragments) == 1:
                    raise
                least = True
                continue
            except BaseException:
                self._reassembler.put_back(batch)
                raise
            batch.close()
            self._room.set()
            self._progress({shard: self._reassembler.position(shard).seq for shard in self._streams})

    async def _read(self, shard: int) -> None:
        reader = self._streams[shard].read(self._reassembler.read_up_to(shard) + 1)
        try:
            async for messages in reader:
                try:
                    for message in messages:
                        self._reassembler.add(message)
                except PoisonError as error:  # what came before it is applied first
                    self._poisoned = error
                    return
                finally:
                    self._arrived.set()
                while self._reassembler.waiting_bytes > AHEAD_BYTES and not self._reassembler.held_up:
                    self._room.clear()
                    await self._room.wait()
        finally:
            await close(reader)

    async def _unstick(self, targets: Mapping[int, int]) -> None:
        timed, own = aborts.AbortRules(), self._replica.options
        while True:
            await asyncio.sleep(POLL_EVERY)
            now = time.monotonic()
            stuck = {}
            for victim, shard in self._reassembler.unfinished():
                dead = victim.node == own.node and victim.session != own.session
                stuck[victim, shard] = aborts.Unfinished(0, 0.0 if dead else aborts.STALL)
            read = {shard: self._reassembler.read_up_to(shard) for shard in self._streams}
            for victim, shard in timed.due(stuck, read, targets, now):
                with suppress(StreamError):
                    timed.given_up((victim, shard), await self._abort(victim, shard), now)

    async def _abort(self, victim: ChangeSetId, shard: int) -> int:
        own = self._replica.options
        payload = encode_envelope(
            Envelope(
                VERSION,
                KIND_ABORT,
                own.node,
                own.session,
                0,
                0,
                False,
                True,
                [shard],
                time.time(),
                {},
                False,
                encode_abort(victim),
            )
        )
        seq = await self._streams[shard].publish(payload, message_id=f"{own.session}-abort-{victim}")
        log.warning(
            "skipping change set %(change_set)s, which its writer left unfinished on shard %(shard)d",
            {"change_set": victim, "shard": shard},
        )
        return seq


async def close(reader: AsyncIterator[list[StreamMessage]]) -> None:
    """Close a stream's reader, where it has something to close."""
    aclose = getattr(reader, "aclose", None)
    if aclose is not None:
        await aclose()


def spool(most: int) -> IO[bytes]:
    """Return a place for the blocks of one change set: in memory, above ``most`` bytes on the disk."""
    return SpooledTemporaryFile(max_size=most)
