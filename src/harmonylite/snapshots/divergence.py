"""How far a mirror and a stream agree, and whether a snapshot is on what the streams hold.

Invariant: a stream counts as the folded one only as far as it holds what the mirror remembers of it; a stream that lost
its tail and was written to again has the same numbers, and other messages.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from harmonylite.changes.epochs import is_message
from harmonylite.db.mirror.positions import folded_seqs, folded_set
from harmonylite.db.replica import Replica
from harmonylite.db.snapshot import lineage_of, reading_as_mirror
from harmonylite.db.sqlite.thread import SqliteThread
from harmonylite.errors import StreamError
from harmonylite.model import Position, StreamInfo
from harmonylite.ports import ShardStream
from harmonylite.wire import WireError, decode_envelope


async def is_lost(stream: ShardStream, position: Position) -> bool:
    """Return whether the stream has lost, or holds others in place of, the last change set up to ``position``, which
    belongs to its history; False where that is unknown. Raises StreamError.
    """
    if position.newest is None:
        return False
    seq, name = position.newest
    info = await stream.info()
    if seq > info.last:
        return info.whole
    message = await stream.get(seq) if seq >= info.first else None
    if message is None:
        return False
    try:
        return decode_envelope(message, None).id != name
    except WireError:
        return True


class FoldedMessages(Protocol):
    """What a mirror remembers of the change sets that it folded last."""

    async def seqs(self, shard: int) -> list[int]:
        """Return their sequences on a shard, oldest first."""

    async def change_set(self, shard: int, seq: int) -> tuple[str, list[bytes]]:
        """Return writer and blocks of one of them."""


class FoldedByReplica:
    """A node's own mirror. Implements `FoldedMessages`."""

    def __init__(self, replica: Replica, thread: SqliteThread) -> None:
        self._replica = replica
        self._thread = thread

    async def seqs(self, shard: int) -> list[int]:
        """Implement `FoldedMessages.seqs`."""
        return await self._thread.run(lambda: folded_seqs(self._replica.connection, shard))

    async def change_set(self, shard: int, seq: int) -> tuple[str, list[bytes]]:
        """Implement `FoldedMessages.change_set`."""
        return await self._thread.run(lambda: folded_set(self._replica.connection, shard, seq))


class FoldedBySnapshot:
    """The file of a snapshot. Implements `FoldedMessages`."""

    def __init__(self, file: Path) -> None:
        self._file = file

    async def seqs(self, shard: int) -> list[int]:
        """Implement `FoldedMessages.seqs`."""
        return await asyncio.to_thread(reading_as_mirror, self._file, folded_seqs, shard)

    async def change_set(self, shard: int, seq: int) -> tuple[str, list[bytes]]:
        """Implement `FoldedMessages.change_set`."""
        return await asyncio.to_thread(reading_as_mirror, self._file, folded_set, shard, seq)


async def diverged(file: Path, streams: Sequence[ShardStream]) -> str:
    """Say which messages of a snapshot the streams don't hold, "" when they hold them; numbers may fit that
    were given again after a stream had lost its tail. Raises StreamError.
    """
    lineage = await asyncio.to_thread(lineage_of, file)
    for stream in streams:
        position, info = lineage.positions.get(stream.shard, Position(stream.shard)), await stream.info()
        end, idle = await common_end(stream, info, position, FoldedBySnapshot(file))
        if end is None or (end < position.seq and not idle):
            return f"it is at {position.seq} of shard {stream.shard}, where the stream holds other messages by now"
    return ""


def must_reach(info: StreamInfo, seq: int) -> None:
    """Raise StreamError if ``seq`` is after the end of a copy whose order can't be asked whether it holds it.

    A region's copy may lag behind what a node folded, for example when it failed back.
    """
    if seq > info.last and not info.whole:
        raise StreamError(
            f"the primary region can't be reached, and this region's copy of shard {info.shard} ends at {info.last},"
            f" before message {seq}, which this node has folded"
        )


async def common_end(
    stream: ShardStream, info: StreamInfo, position: Position, memory: FoldedMessages
) -> tuple[int | None, bool]:
    """Return the last sequence up to which the mirror's history is the stream's, None when it is another stream.

    The second value returns whether no row was changed by what was folded after it. Raises StreamError.
    """
    end, fork = min(position.seq, info.last), position.seq
    if position.created not in ("", info.created):
        forks = [upto for created, upto in info.forks if created == position.created]
        if not forks:
            return None, False
        fork = min(fork, *forks)
    must_reach(info, fork)
    folded = [s for s in await memory.seqs(info.shard) if s <= position.seq]
    # What was folded after a fork is not asked for: a copy that is still being filled could not contradict.
    seqs = [seq for seq in folded if seq <= fork]
    end, idle = min(end, fork), len(seqs) == len(folded)
    if not seqs:
        return end, idle and end == position.seq

    async def same(seq: int) -> bool | None:
        """Return whether the stream holds what the mirror remembers; None: it no longer keeps that."""
        if seq > info.last:
            return False
        message = await stream.get(seq) if seq >= info.first else None
        if message is None:
            return None
        node, blocks = await memory.change_set(info.shard, seq)
        return is_message(message, node, blocks)

    if await same(seqs[-1]) is not False:
        return end, idle
    low, high = 0, len(seqs) - 1  # seqs[high] differs; everything before seqs[low] agrees
    while low < high:
        middle = (low + high) // 2
        if await same(seqs[middle]) is False:
            high = middle
        else:
            low = middle + 1
    return (seqs[low - 1] if low else min(seqs[0] - 1, info.last)), False
