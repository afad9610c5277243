"""How far a mirror and a stream agree.

Invariant: a stream is taken for the one that was folded only as far as it holds what the mirror remembers of it; a
stream that lost its tail and was written to again has the same numbers, and other messages.
"""

from __future__ import annotations

from harmonylite.changes.histories import is_message
from harmonylite.db.replica import Replica
from harmonylite.db.standing import folded_seqs, folded_set
from harmonylite.db.thread import SqliteThread
from harmonylite.model import Position, StreamInfo
from harmonylite.replication.ports import ShardStream


async def common_end(
    stream: ShardStream, info: StreamInfo, position: Position, replica: Replica, thread: SqliteThread
) -> tuple[int | None, bool]:
    """Return the last sequence up to which the mirror's history is the stream's, None when it is another stream.

    The second value tells whether no row was changed by what was folded after it. Raises StreamError.
    """
    end, fork = min(position.seq, info.last), position.seq
    if position.created not in ("", info.created):
        forks = [upto for created, upto in info.forks if created == position.created]
        if not forks:
            return None, False
        fork = min(fork, *forks)
    folded = [s for s in await thread.run(lambda: folded_seqs(replica.connection, info.shard)) if s <= position.seq]
    # What was folded after a fork is not asked for: a copy that is still being filled could not contradict.
    seqs = [seq for seq in folded if seq <= fork]
    end, idle = min(end, fork), len(seqs) == len(folded)
    if not seqs:
        return end, idle and end == position.seq

    async def same(seq: int) -> bool | None:
        """Tell whether the stream holds what the mirror remembers; None: it keeps that no more."""
        if seq > info.last:
            return False
        message = await stream.get(seq) if seq >= info.first else None
        if message is None:
            return None
        node, blocks = await thread.run(lambda: folded_set(replica.connection, info.shard, seq))
        return is_message(message.payload, node, blocks)

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
