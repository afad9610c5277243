"""Failovers: what the nodes of a cut-off region order among themselves while the primary region is out of reach.

A *failover* continues after the last messages of the primary order that came across, in streams of its own; the primary
order continues elsewhere meanwhile and stays the one that counts. Once the primary region is back the failover is
closed, one node publishes what it holds in the primary order, and the others follow that.

Invariant: a mirror that folded a failover says so by the name of its history, so that its positions are never
taken for positions in the primary order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from harmonylite.changes.epochs import Lineage
from harmonylite.model import Position

PREFIX = "interim-"
"""How the history of a mirror in a failover begins."""


@dataclass(frozen=True, slots=True)
class Start:
    """Where one shard of a failover begins. ``parent``: the identity of the primary order; ``upto``: its last sequence
    that the failover continues from; ``copied``: the last one that the region's copy holds, which may be earlier.
    """

    parent: str
    upto: int
    copied: int


@dataclass(frozen=True, slots=True)
class Failover:
    """One failover. ``number``: counted by region; ``mark``: random text, the same on all shards; ``open``: it
    takes messages; ``whole``: the streams of all shards are there; ``since``: when it was made, by its maker's clock.
    """

    number: int
    mark: str
    starts: Mapping[int, Start]
    since: float
    open: bool = True
    whole: bool = True

    @property
    def history(self) -> str:
        """The name of the history of mirrors that folded it."""
        return f"{PREFIX}{self.mark}"

    def order(self, shard: int) -> str:
        """Return the identity of one shard's order."""
        return f"{self.starts[shard].parent}~{self.mark}"

    def takes(self, positions: Mapping[int, Position]) -> bool:
        """Return whether a mirror that is at ``positions`` of the primary order can continue with this one."""
        return all(
            (position := positions.get(shard)) is not None and _fits(position, start)
            for shard, start in self.starts.items()
        )


def _fits(position: Position, start: Start) -> bool:
    if position.created != start.parent or position.seq > start.upto:
        return False
    if start.copied == start.upto:
        return True
    return position.seq == start.upto and position.resume == start.upto + 1


def mark_of(lineage: Lineage) -> str:
    """Return the mark of the failover that a mirror folded, "" when it is in the primary order."""
    return lineage.history.removeprefix(PREFIX) if lineage.history.startswith(PREFIX) else ""


def beginning(
    copied: Mapping[int, tuple[str, int]], nodes: Mapping[str, Mapping[int, Position]]
) -> tuple[dict[int, Start], frozenset[str]]:
    """Return where a failover begins so that most of ``nodes`` can continue with it, and which nodes those are.

    ``copied``: by shard the identity of the primary order and the last message of it in the region's copy. A node may
    have read further than that, from the primary region itself; such nodes can only continue together where they all
    are.
    """
    votes = Counter(
        tuple(max(positions[shard].seq, last) if shard in positions else last for shard, (_, last) in copied.items())
        for positions in nodes.values()
    )
    best, found = _starts(copied, tuple(last for _, last in copied.values())), frozenset[str]()
    for ends, _ in sorted(votes.items(), key=lambda vote: vote[0]):
        starts = _starts(copied, ends)
        failover = Failover(0, "", starts, 0.0)
        able = frozenset(node for node, positions in nodes.items() if failover.takes(positions))
        if len(able) > len(found):
            best, found = starts, able
    return best, found


def _starts(copied: Mapping[int, tuple[str, int]], ends: tuple[int, ...]) -> dict[int, Start]:
    return {shard: Start(parent, end, last) for (shard, (parent, last)), end in zip(copied.items(), ends, strict=True)}
