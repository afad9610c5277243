"""Repeated lines of a server's log: each kind once, and then once a minute with a count.

Invariant: what is new is passed on at once; lines count as one kind when they differ in nothing but numbers of
connections and tries.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

EVERY = 60.0
"""Seconds between two lines of one kind while it keeps coming."""

OVER = 15.0
"""Seconds of silence after which the next line of a kind is news: nats-server tries a lost route again each second."""

MOST = 256
"""How many kinds are remembered."""

_NUMBERS = re.compile(r" ?\(attempt \d+\)|(?<=:)\d+(?= - [a-z]id:\d+)|\b[a-z]id:\d+")


@dataclass(slots=True)
class _Kind:
    logged: float
    last: float
    left_out: int = 0


class LogRepeats:
    """Decides which lines are passed on."""

    def __init__(self) -> None:
        self._kinds: dict[str, _Kind] = {}

    def passed(self, text: str, now: float) -> str:
        """Return ``text`` as it is to be logged at ``now`` (monotonic), "" when it is a repetition."""
        name = _NUMBERS.sub("", text)
        kind = self._kinds.pop(name, None)
        fresh = kind is None or now - kind.last > OVER
        if kind is None or fresh:
            kind = _Kind(now, now)
        self._kinds[name] = kind  # the last in the order: the oldest kind makes room
        if len(self._kinds) > MOST:
            del self._kinds[next(iter(self._kinds))]
        kind.last = now
        if fresh:
            return text
        kind.left_out += 1
        if now - kind.logged < EVERY:
            return ""
        repeats, kind.logged, kind.left_out = kind.left_out, now, 0
        return f"{text} ({repeats} such lines in the last minute)"
