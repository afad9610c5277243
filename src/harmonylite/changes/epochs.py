"""Epochs: which of two mirrors knows more.

An *epoch* is what the streams say from one beginning on. It ends when a stream is lost; the cluster then continues from
the newest mirror with a new epoch, which remembers where it left the ones before. A cluster's first epoch has a
random name ("" where an earlier version of this program began it).

Invariant: a node takes another mirror's rows for newer than its own only where its own history is a part of what that
mirror was made from.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from harmonylite.model import Position, StreamInfo, StreamMessage
from harmonylite.wire import CHANGES, WireError, decode_envelope

PAST_KEPT = 64
"""How many earlier histories a mirror remembers: the first one, and the latest."""

Left = Mapping[int, tuple[str, int]]
"""Where a history was left: per shard the stream's creation time, and the sequence."""

Relation = Literal["same", "behind", "ahead", "diverged"]


@dataclass(frozen=True)
class Lineage:
    """Where a mirror or a database is. ``past``: where earlier histories were left, by name, oldest first."""

    history: str = ""
    positions: Mapping[int, Position] = field(default_factory=dict)
    past: Mapping[str, Left] = field(default_factory=dict)

    @property
    def left(self) -> dict[int, tuple[str, int]]:
        """Creation time and sequence by shard."""
        return {shard: (position.created, position.seq) for shard, position in self.positions.items()}

    @property
    def origin(self) -> str:
        """The cluster's first epoch, as far as it is remembered; "" where that has no name."""
        return next(iter(self.past), self.history)

    def next_epoch(self, history: str, positions: Mapping[int, Position]) -> Lineage:
        """Return the lineage of a mirror that begins epoch ``history`` from what this one holds."""
        first, *later = [*self.past.items(), (self.history, self.left)]
        return Lineage(history, positions, dict([first, *later[1 - PAST_KEPT :]]))

    def left_in(self, info: StreamInfo) -> int | None:
        """Return up to where an earlier history went in this very stream, as far as that reaches; None: none did."""
        for left in reversed(list(self.past.values())):
            created, seq = left.get(info.shard, ("", 0))
            if created and info.same(created, min(seq, info.last)):
                return min(seq, info.last)
        return None

    def is_back(self, shard: int) -> bool:
        """Return whether this history is in an earlier one's stream again, and the one just left was in another."""
        now = self.positions[shard].created
        streams = [left.get(shard, ("", 0))[0] for left in self.past.values()]
        return bool(streams and now) and now != streams[-1] and now in streams


def relation(mine: Lineage, other: Lineage) -> Relation:
    """Return how this lineage relates to ``other``: the same history, a part of it, on some shard more than it took
    over, or that is unknown: they diverged.
    """
    if mine.history == other.history:
        return "same"
    shards = further(mine, other)
    return "diverged" if shards is None else "ahead" if shards else "behind"


def further(mine: Lineage, other: Lineage) -> frozenset[int] | None:
    """Return the shards on which I hold more than ``other`` took over of my history; None: it doesn't know that."""
    left = other.past.get(mine.history)
    if left is None:
        return None
    found = set()
    for shard, (created, seq) in mine.left.items():
        there = left.get(shard, (created, 0))
        if created and there[0] and created != there[0]:
            return None
        if seq > there[1]:
            found.add(shard)
    return frozenset(found)


def are_strangers(one: Lineage, other: Lineage) -> bool:
    """Return whether two lineages are of different clusters: they share no epoch. False where an origin has no name."""
    if not (one.origin and other.origin):
        return False
    return {one.history, *one.past}.isdisjoint({other.history, *other.past})


def held(database: Lineage, mirror: Lineage) -> Lineage:
    """Return what a node holds: a crash may have left the database further than its mirror on some shard."""
    if database.history != mirror.history:
        return mirror
    both = {s: max(p, database.positions.get(s, p), key=lambda each: each.seq) for s, p in mirror.positions.items()}
    return replace(mirror, positions=both)


def drift(database: Lineage, mirror: Lineage) -> Relation:
    """Return how a database relates to a mirror that may belong to another lineage; "same": nothing is to be done.

    Behind: it was restored. A mirror that is the older one is exchanged later for one of the database's history.
    """
    way = relation(database, mirror)
    if way == "same":
        ahead = any(p.seq > database.positions[s].seq for s, p in mirror.positions.items() if s in database.positions)
        return "behind" if ahead else "same"
    return way if database.history in mirror.past else "same"


def start_in(position: Position, info: StreamInfo, common: int | None, left: int | None) -> Position:
    """Return where a mirror at ``position`` continues with a stream: after what is in both, or at the stream's start.

    ``left``: up to where an earlier history had folded it; what was not whole there may have begun anywhere before.
    """
    if common is None and left is not None:
        return Position(position.shard, max(info.first - 1, left), info.first, info.created)
    end = max(info.first - 1, 0 if common is None else common)
    if common is not None and end == position.seq:
        return replace(position, resume=max(position.resume, info.first), created=info.created)
    return Position(position.shard, end, end + 1, info.created)


def is_message(message: StreamMessage, node: str, blocks: Sequence[bytes]) -> bool:
    """Return whether ``message`` can be the last message of a change set of ``node`` with ``blocks`` ([]: unknown)."""
    try:
        envelope = decode_envelope(message, None)
    except WireError:
        return False
    if envelope.kind not in CHANGES or not envelope.last or envelope.node != node:
        return False
    return not blocks or blocks[-1].endswith(envelope.body)


def newest(lineages: Iterable[tuple[str, Lineage]]) -> str:
    """Return the node that holds most: of the longest past, then of the highest positions, then by name."""

    def rank(item: tuple[str, Lineage]) -> tuple[int, int, str]:
        name, lineage = item
        return len(lineage.past), sum(position.seq for position in lineage.positions.values()), name

    return max(lineages, key=rank)[0]
