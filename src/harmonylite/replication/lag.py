"""How old the oldest message of a shard is that this node has not folded yet.

Invariant: the age grows by itself until that message is folded, whatever comes behind it and whatever else waits:
kept is the moment from which it counts, not a number of seconds. Clocks of different machines are never compared: the
server's time of storing is related to this node's monotonic clock by the server's own time now.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from harmonylite.changes.reassembler import AtomicBatch
from harmonylite.progress import ShardStatus
from harmonylite.status import NodeStatus, Part

LONG_SECONDS = 5.0
"""Seconds after which health shows what is being applied."""


def reached(status: NodeStatus, targets: Mapping[int, int]) -> bool:
    """Return whether every shard is folded up to its sequence in ``targets``."""
    return all(status.shard(shard).position >= seq for shard, seq in targets.items())


class Lag:
    """Keeps `ShardStatus.behind_since` of one shard. ``now``, everywhere: this node's monotonic clock."""

    def __init__(self, state: ShardStatus) -> None:
        self._state = state
        self._seq = 0
        self._dated = False
        self._ahead = time.time() - time.monotonic()

    @property
    def undated(self) -> int:
        """The oldest message that is not folded, where it is unknown when it was stored; 0 otherwise."""
        return self._seq if self._state.lag and not self._dated else 0

    def observe(self, server: float, now: float) -> None:
        """Take note that the server's clock shows ``server`` (seconds since the epoch; 0: it doesn't say)."""
        if server:
            self._ahead = server - now

    def moved(self, now: float, stored: float = 0.0) -> None:
        """Take note of the shard's position and end as they are now.

        ``stored``: when the server stored the first message after the position, by its clock; 0: not known.
        """
        state = self._state
        if not state.lag:
            self._seq, self._dated, state.behind_since = 0, False, 0.0
            return
        news = self._seq != state.position + 1
        if not news and (self._dated or not stored):
            return
        self._seq, self._dated = state.position + 1, bool(stored)
        state.behind_since = min(now, stored - self._ahead) if stored else now


@contextmanager
def showing(part: Part, batch: AtomicBatch) -> Iterator[None]:
    """Say of ``batch``, while it is applied in the block, that it takes its time, once it does."""
    largest = max(batch.fragments, key=lambda fragment: fragment.size, default=None)
    if largest is None:
        yield
        return
    said = (
        f"applying {len(batch.fragments)} change sets takes its time; the largest has {largest.size / 1e6:,.1f} MB,"
        f" comes from node {largest.id.node} and ends at message {largest.seq} of shard {largest.shard}"
    )
    timer = asyncio.get_running_loop().call_later(LONG_SECONDS, part.waiting, said)
    try:
        yield
    finally:
        timer.cancel()
