"""Back-off as an object: time is passed in, so nothing here sleeps and no test has to."""

from __future__ import annotations

import random
from dataclasses import dataclass, field


@dataclass(slots=True)
class Backoff:
    """Exponential back-off with jitter.

    ``first``/``most``: seconds of the first and the longest pause. ``factor``: growth per failure.
    ``jitter``: share of each pause that is random (0 = none). ``calm``: seconds without a failure after which the
    next failure counts as the first again.
    """

    first: float = 0.05
    most: float = 5.0
    factor: float = 2.0
    jitter: float = 0.25
    calm: float = 30.0
    rng: random.Random = field(default_factory=random.Random, repr=False)
    _failures: int = 0
    _last: float = float("-inf")

    @property
    def failures(self) -> int:
        """Failures in a row."""
        return self._failures

    def failed(self, now: float) -> float:
        """Count a failure at ``now`` (monotonic seconds); return the seconds to wait before trying again."""
        if now - self._last > self.calm:
            self._failures = 0
        pause = min(self.most, self.first * self.factor ** min(self._failures, 60))
        self._failures += 1
        self._last = now
        return pause * (1 - self.jitter * self.rng.random())

    def worked(self) -> None:
        """Forget the failures."""
        self._failures = 0
