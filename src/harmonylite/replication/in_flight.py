"""Change sets on their way: being published, or published whole and not back in the order yet.

Invariant: more than one is on its way only while those before it are published whole. How many there may be is bounded:
each is read again for the next one, and for each batch that is applied meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from harmonylite.db.capture.capture import Outgoing
from harmonylite.model import ChangeSetId

MOST = 256
"""Change sets that may be in flight at a time."""
MOST_ROWS = 50_000
"""Their rows, and `MOST_BYTES` the bytes of their blocks, from which on no further one leaves."""
MOST_BYTES = 64_000_000

PACE = 0.25
"""Seconds that each change set in flight adds to the pause before the next one leaves: so many last for two hours,
also where an application writes all the time."""


class InFlight:
    """What is on its way, the oldest first. ``position``: returns up to where a shard is folded.

    ``lost``: what never landed, with its last message by shard.
    """

    def __init__(self, position: Callable[[int], int]) -> None:
        self._position = position
        self._ends: dict[ChangeSetId, dict[int, int]] = {}
        self._outs: list[Outgoing] = []
        self._news = asyncio.Event()
        self.lost: dict[ChangeSetId, dict[int, int]] = {}

    def __bool__(self) -> bool:
        return bool(self._ends)

    def begin(self, out: Outgoing) -> None:
        """Record that ``out`` is about to be published."""
        self._ends[out.id] = {}
        self._outs.append(out)

    def published(self, change_set: ChangeSetId, ends: dict[int, int]) -> None:
        """Record that a change set was published whole, up to the sequences ``ends`` by shard."""
        for places in (self._ends, self.lost):
            if change_set in places:
                places[change_set] = ends
        self.moved()

    def landed(self, change_set: ChangeSetId, whole: bool) -> None:
        """Record that a change set came back in the order (``whole``), or was voided by others."""
        if change_set in self._ends:
            ends = self._ends.pop(change_set)
            if not whole:
                self.lost[change_set] = ends
            self._news.set()

    def moved(self) -> None:
        """Take what was published whole, and lies before the mirror's positions, for lost: it would be back by now."""
        for change_set, ends in list(self._ends.items()):
            if ends and all(self._position(shard) >= end for shard, end in ends.items()):
                self.landed(change_set, whole=False)

    def wake(self) -> None:
        """Let `news` return."""
        self._news.set()

    async def news(self) -> None:
        """Wait until one came back or was lost, or until `wake` is called."""
        await self._news.wait()
        self._news.clear()

    def pause(self) -> float | None:
        """Return how many seconds must lie between the last change set and the next one; None: none may leave."""
        rows = sum(out.rows for out in self._outs)
        size = sum(length for out in self._outs for parts in out.parts.values() for _, length, _, _ in parts)
        if self.lost or len(self._outs) >= MOST or rows >= MOST_ROWS or size >= MOST_BYTES:
            return None
        return PACE * len(self._outs)

    def close(self) -> None:
        """Forget all, and release its storage."""
        self._ends, self.lost = {}, {}
        self._news.clear()
        while self._outs:
            self._outs.pop().close()
