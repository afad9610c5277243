"""Throttle: publish no further than the newest snapshot allows.

Invariant: the oldest message that a stream keeps is never newer than what anyone who starts from the newest snapshot
needs next. A stream of ``most`` messages that such a node reads from ``resume`` on may end at ``resume + most - 1``; a
change set that would lead past that waits here, visibly, until a newer snapshot is named.

What this node knows of a stream's end is what it read, and what it had acknowledged. The others publish meanwhile, so a
*margin* is left, for what all of them may have on its way that no reader has read yet. A change set of many messages
does not fit into that: it begins only where no other one is under way, at exactly the end that was read (JetStream
compares it), and the others' small ones leave it the upper half.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Mapping

from harmonylite.backoff import Backoff
from harmonylite.changes.reassembler import Reassembler
from harmonylite.errors import SnapshotError, StreamError
from harmonylite.ports import Covering
from harmonylite.status import NodeStatus

EXACT_TRIES = 20
"""How often the beginning of a large change set asks for an exact end. Where the line is long and others write all the
time that may never be met; then it begins without, and the margin alone is left."""
PASSED_BY = 0.02
"""Seconds at most between two such tries."""


class Throttle:
    """Lets change sets of node ``node`` through. ``covering``: None lets everything through."""

    def __init__(
        self, status: NodeStatus, node: str, reassembler: Callable[[], Reassembler], covering: Covering | None
    ) -> None:
        self._status = status
        self._node = node
        self._reassembler = reassembler
        self._covering = covering
        self._part = status.part("publish")
        self._ends: dict[int, int] = {}

    def open(self) -> None:
        """Forget the ends of streams that may be others now."""
        self._ends.clear()

    def note_end(self, shard: int, seq: int) -> None:
        """Note that the stream of ``shard`` has a message ``seq``."""
        self._ends[shard] = max(self._ends.get(shard, 0), seq)

    async def wait_for_room(self, counts: Mapping[int, int]) -> None:
        """Return once a change set of ``counts`` messages by shard may be published; it must then be, whole."""
        backoff = Backoff(first=0.005, most=0.5)
        waited = False
        while (why := self._why_not(counts)) and self._covering is not None:
            news = ""
            try:
                await self._covering.refresh()
            except (StreamError, SnapshotError) as error:
                news = f"; {error}"
            if not self._why_not(counts):
                break
            self._part.waiting(why + news)
            waited = True
            if not any(map(self._others, counts)):  # a change set of others under way no snapshot brings
                self._covering.want()
            await asyncio.sleep(backoff.failed(time.monotonic()))
        if waited:
            self._part.ok()

    def is_large(self, counts: Mapping[int, int]) -> bool:
        """Return whether a change set is large and must begin through `beginning`, on one shard after the other."""
        if self._covering is None:
            return False
        large = {shard: count for shard, count in counts.items() if count > _small(self._most(shard))}
        for shard, count in large.items():
            if _is_oversized(count, most := self._most(shard)):
                self._part.event(
                    "publishing a change set of %(messages)d messages on shard %(shard)d, which keeps %(most)d: new"
                    " nodes wait until a snapshot holds it; a larger replication_log.max_entries avoids that",
                    warning=True,
                    messages=count,
                    shard=shard,
                    most=most,
                )
        return bool(large)

    async def beginning(self, shard: int, count: int, tries: int) -> int | None:
        """Return the end that the stream of ``shard`` must have for a change set to begin; None: any.

        ``tries``: how many ends were passed by already.
        """
        if self._covering is None or count <= _small(self._most(shard)) or tries > EXACT_TRIES:
            return None
        if tries:  # what came in between is on its way to here
            await asyncio.sleep(random.uniform(0.0, PASSED_BY))
        await self.wait_for_room({shard: count})
        return self._reassembler().read_up_to(shard)

    async def wait_for_reader(self, shard: int) -> None:
        """Wait while this node has not read what it published itself: a stream must not forget it before."""
        most, backoff = self._most(shard), Backoff(first=0.005, most=0.1)
        while most and self._ends.get(shard, 0) - self._reassembler().read_up_to(shard) > max(1, most // 4):
            pause = backoff.failed(time.monotonic())
            await asyncio.sleep(pause)

    def check(self, shard: int) -> None:
        """Raise StreamError unless one message may be published now."""
        if self._covering is not None and (why := self._why_not({shard: 1})):
            self._covering.want()
            raise StreamError(why)

    def _most(self, shard: int) -> int:
        return self._status.shard(shard).most

    def _end(self, shard: int) -> int:
        return max(self._status.shard(shard).last, self._ends.get(shard, 0), self._reassembler().read_up_to(shard))

    def _others(self, shard: int) -> list[str]:
        """Return the other nodes that have a change set in flight."""
        return [name.node for name, _ in self._reassembler().begun(shard) if name.node != self._node]

    def _why_not(self, counts: Mapping[int, int]) -> str:
        """Return what blocks publishing, "" if nothing does."""
        if self._covering is None:
            return ""
        covered = self._covering.covered()
        for shard, count in counts.items():
            most = self._most(shard)
            resume = 1 if covered is None else covered.get(shard, 1)
            if most and (why := self._refused(shard, count, most, resume)):
                return why
        return ""

    def _refused(self, shard: int, count: int, most: int, resume: int) -> str:
        end, top, half = self._end(shard), resume + most - 1 - _margin(most), resume + most // 2
        others = self._others(shard)
        if count <= _small(most):
            if others and end + count > half:
                return f"waiting for the large change set of node {others[0]} on shard {shard}"
            room = end + count <= top
        elif others or end > self._reassembler().read_up_to(shard):
            who = f"the large change set of node {others[0]}" if others else "what others published just now"
            return f"a change set of {count} messages is waiting for {who} on shard {shard}"
        elif _is_oversized(count, most):
            room = end < resume + _margin(most)
        else:
            room = max(end, half) + count <= top
        if room:
            return ""
        return (
            f"waiting for a snapshot: the stream would forget messages that none holds (shard {shard} keeps {most} and "
            f"ends at {end}; the newest snapshot needs {resume} and later)"
        )


def _margin(most: int) -> int:
    return min(most - 1, most // 8 + 2)


def _small(most: int) -> int:
    """Return how many messages a small change set may have: eight at once fit into the margin."""
    return max(1, _margin(most) // 8) if most else 1 << 62


def _is_oversized(count: int, most: int) -> bool:
    """Return whether a change set exceeds what a stream keeps, whatever snapshots there are."""
    return most // 2 + count > most - 1 - _margin(most)
