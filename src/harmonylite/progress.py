"""How far a node is: each shard's position and lag, and how fast what is left gets less.

Invariant: times are on this node's monotonic clock; a lag is never negative.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

PACE_SECONDS = 10.0
"""Seconds that an estimate looks back."""

BEHIND_SECONDS = 5.0
"""A node that caught up once is behind again when the oldest message that is not folded is older than this."""


@dataclass(slots=True)
class Pace:
    """How fast the messages that are not folded yet get fewer, over the last `PACE_SECONDS`. Times are monotonic."""

    seen: deque[tuple[float, int]] = field(default_factory=deque)

    def see(self, left: int, now: float) -> None:
        """Take note that ``left`` messages are left ``now``."""
        self.seen.append((now, left))
        while now - self.seen[0][0] > PACE_SECONDS and len(self.seen) > 1:
            self.seen.popleft()

    def seconds(self, left: int, now: float) -> float | None:
        """Return how long ``left`` messages will take, in seconds; None while they don't get fewer."""
        then, had = self.seen[0] if self.seen else (now, left)
        return left * (now - then) / (had - left) if had > left else None


@dataclass(slots=True)
class ShardStatus:
    """One shard's position and lag. ``behind_since``: when the oldest message not folded yet was stored, on the
    monotonic clock; 0.0 when there is none (see `harmonylite.replication.lag`).

    ``resume``: the first message that anyone who starts from a mirror like this node's needs; ``first``: the oldest
    that the stream has; ``most``: how many it keeps, 0 = all, or not known yet.
    """

    shard: int
    position: int = 0
    resume: int = 1
    first: int = 1
    last: int = 0
    most: int = 0
    behind_since: float = 0.0

    @property
    def lag_seconds(self) -> float:
        """Age of the oldest message not folded yet, 0 when caught up."""
        return max(0.0, time.monotonic() - self.behind_since) if self.lag and self.behind_since else 0.0

    @property
    def lag(self) -> int:
        """Messages in the stream that are not folded yet."""
        return max(0, self.last - self.position)


def catching_up(found: dict[str, Any] | None) -> str:
    """Return `NodeStatus.catching_up` as a sentence, "" for None."""
    if found is None:
        return ""
    pace = "" if found["seconds"] is None else f", about {found['seconds']:.0f} s"
    return f"catching up: {found['messages']:,} messages left{pace}"
