"""The last hour of a node, kept by the node: the data of the page's plots, whenever it is opened.

Invariant: one sample each `EVERY` seconds, at most an hour of them, each a few numbers; between samples nothing runs.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from harmonylite.histogram import LATENCY_BOUNDS
from harmonylite.status import NodeStatus
from harmonylite.ticks import tick

EVERY = 5.0
"""Seconds between samples."""
KEPT = int(3600 / EVERY)
"""Samples that are kept."""
NAMES = ("at", "published", "merged", "lag_messages", "lag_seconds", "pending", "conflicts", "p50", "p99")
"""What a sample is: the time of taking it, rows a second, what is behind then, conflicts and latencies since the last
one; None for a latency without a commit of another node."""

Sample = tuple[float | None, ...]


@dataclass(frozen=True, slots=True)
class _Seen:
    """What a node had counted at ``now``, on the monotonic clock."""

    now: float
    published: int
    merged: int
    conflicts: int
    latency: tuple[int, ...]


@dataclass(slots=True)
class LastHour:
    """Takes the samples of ``status``. ``pending_since``: since when rows wait and none is published, monotonic; 0.0
    while none waits.
    """

    status: NodeStatus
    samples: deque[Sample] = field(default_factory=lambda: deque(maxlen=KEPT))
    pending_since: float = 0.0
    _before: _Seen | None = None

    async def run(self) -> None:
        """Take a sample again and again, without end."""
        while True:
            self.take(time.monotonic(), time.time())
            await tick(EVERY)

    def take(self, now: float, wall: float) -> None:
        """Take a sample. ``now``: on the monotonic clock; ``wall``: seconds since the epoch."""
        status, counters = self.status, self.status.counters
        latency = tuple(status.latency.counts)
        seen = _Seen(now, counters.published_rows, counters.merged_rows, counters.conflicts, latency)
        before, self._before = self._before, seen
        moved = before is None or before.published != seen.published
        if not status.pending_rows:
            self.pending_since = 0.0
        elif moved or not self.pending_since:
            self.pending_since = now
        if before is None or now <= before.now:
            return
        fresh = [new - old for new, old in zip(latency, before.latency, strict=True)]
        seconds = now - before.now
        self.samples.append(
            (
                round(wall, 1),
                round((seen.published - before.published) / seconds, 2),
                round((seen.merged - before.merged) / seconds, 2),
                status.left,
                round(max((shard.lag_seconds for shard in status.shards.values()), default=0.0), 3),
                status.pending_rows,
                seen.conflicts - before.conflicts,
                within(fresh, 0.5),
                within(fresh, 0.99),
            )
        )

    def report(self) -> dict[str, Any]:
        """Return the samples as JSON-able values, the oldest first."""
        return {"every": EVERY, "names": list(NAMES), "samples": [list(sample) for sample in self.samples]}


def within(counts: list[int], share: float) -> float | None:
    """Return about within how many seconds ``share`` of the observations lie, evenly spread over each bucket of the
    histogram; None without any. What is above all bounds counts as the last bound.
    """
    wanted, seen, low = share * sum(counts), 0.0, 0.0
    if not wanted:
        return None
    for bound, count in zip(LATENCY_BOUNDS, counts, strict=False):
        if count and seen + count >= wanted:
            return round(low + (bound - low) * (wanted - seen) / count, 6)
        seen, low = seen + count, bound
    return LATENCY_BOUNDS[-1]
