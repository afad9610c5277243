"""The state of the streams as seen from a mirror, and how far the two agree.

Invariant: reading the state changes no row; a stream that can't be queried is an error, one that is gone is a fact.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

from harmonylite.changes.epochs import Lineage
from harmonylite.db.mirror.positions import LIMBO, have_diverged, rewind
from harmonylite.db.replica import Replica
from harmonylite.db.sqlite.thread import SqliteThread
from harmonylite.errors import StreamLostError
from harmonylite.model import StreamInfo
from harmonylite.ports import ShardStream
from harmonylite.snapshots.divergence import FoldedByReplica, common_end, must_reach

log = logging.getLogger(__name__)


@dataclass
class StreamState:
    """What the streams are to this node. ``common``: per shard how far the mirror agrees with the stream; None:
    nowhere. ``missing``: shards without a stream.
    """

    lineage: Lineage
    streams: list[StreamInfo] = field(default_factory=list)
    missing: list[int] = field(default_factory=list)
    common: dict[int, int | None] = field(default_factory=dict)
    reasons: list[str] = field(default_factory=list)
    gap: bool = False

    @property
    def lost(self) -> bool:
        """True when the mirror holds what a stream does not."""
        return bool(self.reasons)


async def read_stream_state(streams: Sequence[ShardStream], replica: Replica, thread: SqliteThread) -> StreamState:
    """Return what the streams are to the replica now; raises StreamError.

    What came after a stream's end, and changed no row, is forgotten at once.
    """
    lineage = await thread.run(replica.lineage)
    state = StreamState(lineage)
    if lineage.history.startswith(LIMBO):
        state.reasons.append("the mirror was made from the database, and no node has taken it up yet")
    for stream in streams:
        position = lineage.positions[stream.shard]
        try:
            info = await stream.info()
        except StreamLostError as error:
            state.missing.append(stream.shard)
            state.common[stream.shard] = None
            state.reasons.append(error.message)
            continue
        state.streams.append(info)
        state.gap = state.gap or info.first > position.resume
        end, proof = await common_end(stream, info, position, FoldedByReplica(replica, thread))
        state.common[stream.shard] = end
        if end is None:
            state.reasons.append(
                f"the stream of shard {stream.shard} was created again at {info.created}; this node is at"
                f" {position.seq} of the one made at {position.created}"
            )
        elif end < position.seq and proof:
            await _rewind(replica, thread, stream.shard, end)
        elif end < position.seq:
            state.reasons.append(
                f"the stream of shard {stream.shard} lost its tail: it ends at {info.last}, and what this node"
                f" has folded up to {position.seq} is in it up to {end} only"
            )
    return state


async def stay_within(replica: Replica, thread: SqliteThread, state: StreamState) -> int:
    """Set a database back that is ahead of a stream that its mirror agrees with: a crash and a lost tail at once.

    Returns the number of conflicts; raises StreamError.
    """
    database = await thread.run(replica.lineage, "main")
    if database.history != state.lineage.history or not await thread.run(lambda: replica.joined):
        return 0
    for info in state.streams:
        must_reach(info, database.positions[info.shard].seq)
    ahead = {info.shard for info in state.streams if database.positions[info.shard].seq > info.last}
    if not ahead:
        return 0
    log.warning(
        "reconciling the database, which is ahead of the streams of shards %(shards)s", {"shards": sorted(ahead)}
    )
    if await thread.run(have_diverged, replica.connection):  # what it lacks it may never have known
        return await thread.run(lambda: replica.reconcile(first=True, keep_log=True))
    await thread.run(replica.keep_mine, ahead)
    return 0


async def _rewind(replica: Replica, thread: SqliteThread, shard: int, seq: int) -> None:
    """Set the position of a shard to ``seq``: what came after it, and is lost, changed no row."""
    log.warning(
        "accepted a shorter stream of shard %(shard)d, which ends at %(seq)d: the lost messages changed no row",
        {"shard": shard, "seq": seq},
    )
    await thread.run(lambda: rewind(replica.connection, shard, seq))
