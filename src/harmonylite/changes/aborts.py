"""Which unfinished change sets a node aborts, and when.

Invariant: a change set is only taken for left behind while this node reads the stream to its end: before, the rest of
it, or another node's abort message, may just not have been read. A node publishes no second abort message before it
read the first one, and nodes don't publish them all at once.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field

from harmonylite.model import ChangeSetId

STALL = 10.0
"""Seconds after which a change set that its writer left unfinished on a shard is aborted."""
STALL_BEGUN = 60.0
"""The same for one of which no shard has all, counted from its newest message: no snapshot can leave it behind."""
SPREAD = 5.0
"""Up to so many seconds more, at random: mostly one node publishes the abort message, and the others read it."""
MOST_AT_ONCE = 8
"""How many are aborted in one round, a second."""

Place = tuple[ChangeSetId, int]
"""A change set, and a shard on which it is not whole."""


@dataclass(frozen=True)
class Unfinished:
    """How a change set is stuck. ``count``: its messages that are there; ``limit``: seconds that this may last.

    0: its writer is known to be gone.
    """

    count: int
    limit: float


@dataclass
class _Since:
    stuck: Unfinished
    since: float
    deadline: float
    seq: int = 0


@dataclass
class AbortRules:
    """Times what is stuck; all times are seconds of one clock that only grows."""

    rng: random.Random = field(default_factory=random.Random, repr=False)
    _known: dict[Place, _Since] = field(default_factory=dict)
    _ends: Mapping[int, int] = field(default_factory=dict)

    def due(
        self, stuck: Mapping[Place, Unfinished], read: Mapping[int, int], ends: Mapping[int, int], now: float
    ) -> list[Place]:
        """Return what to abort in this round.

        ``read``: by shard the last message that was read; ``ends``: the last one that is known to be there.
        """
        known = {}
        for place, how in stuck.items():
            shard, last = place[1], self._known.get(place)
            if last is None or last.stuck != how:
                last = _Since(how, now, self.rng.uniform(0.0, SPREAD) if how.limit else 0.0)
            elif read[shard] < max(self._ends.get(shard, 0), last.seq):
                last.since = now  # what was there a round ago is not read yet, or the abort message isn't
            known[place] = last
        self._known, self._ends = known, dict(ends)
        return [place for place, last in known.items() if self._over(place, last, read, now)][:MOST_AT_ONCE]

    @staticmethod
    def _over(place: Place, last: _Since, read: Mapping[int, int], now: float) -> bool:
        if last.stuck.limit == 0.0:
            return last.seq == 0 or read[place[1]] >= last.seq
        return now - last.since > last.stuck.limit + last.deadline

    def seconds(self, place: Place, now: float) -> float:
        """Return for how long ``place`` has been stuck while its shard was read to its end."""
        last = self._known.get(place)
        return now - last.since if last is not None else 0.0

    def given_up(self, place: Place, seq: int, now: float) -> None:
        """Take note that the abort message of ``place`` is message ``seq``."""
        last = self._known.get(place)
        if last is not None:
            last.seq, last.since = seq, now
