"""Back-off as an object, and the tries of one loop.

Invariant: time is passed in, so nothing here sleeps and no test has to.
"""

from __future__ import annotations

import logging
import random
import re
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


_NUMBERS = re.compile(r"\d+(\.\d+)?")


@dataclass(slots=True)
class Retry:
    """The tries of one loop: each failure makes the pause longer, each reason gets one log line.

    ``doing``: what is tried, the start of the line. ``level``: of the line. Numbers make no new reason.
    A loop that reports to a `Part` needs only the `Backoff`: the node's wait log has the line then.
    """

    log: logging.Logger
    doing: str
    backoff: Backoff = field(default_factory=Backoff)
    level: int = logging.INFO
    _reason: str = ""

    def failed(self, error: object, now: float) -> float:
        """Log ``error`` if it differs from the one before; return the seconds to wait before trying again."""
        pause, reason = self.backoff.failed(now), _NUMBERS.sub("#", str(error))
        if reason != self._reason or self.backoff.failures == 1:
            what = {"doing": self.doing, "error": error}
            self.log.log(self.level, "%(doing)s failed, will be tried again: %(error)s", what)
        self._reason = reason
        return pause

    def worked(self) -> None:
        """Forget the failures; the next one is logged."""
        self.backoff.worked()
        self._reason = ""
