"""How long things take: a histogram of seconds, as metrics and the page show it.

Invariant: every observation is in one bucket, and what is counted only grows.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field

LATENCY_BOUNDS = (0.001, 0.002, 0.003, 0.005, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0)
"""Upper bounds of the latency histograms' buckets, in seconds."""


@dataclass(slots=True)
class Histogram:
    """A cumulative histogram of seconds over `LATENCY_BOUNDS`."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(LATENCY_BOUNDS) + 1))
    total: float = 0.0

    def observe(self, seconds: float) -> None:
        """Count one observation of ``seconds`` (negative ones, from skewed clocks, count as 0)."""
        seconds = max(0.0, seconds)
        self.counts[bisect_left(LATENCY_BOUNDS, seconds)] += 1
        self.total += seconds
