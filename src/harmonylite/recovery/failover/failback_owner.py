"""Which node fails a failover back to the primary region, as the pointers of its region say.

Invariant: the first node that claims the failback does it, until it is silent; its announcements survive a move of the
primary region.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from harmonylite.foreign import Codec, Name, PerShard, StreamEnds


class FailbackClaim(msgspec.Struct, frozen=True):
    """The node that does a failback. ``ends``: how far it had folded that order, by shard. ``upto``: where the primary
    region's order held all of it, by shard the identity of the order and a sequence; None: not yet.
    """

    node: Name
    ends: PerShard
    upto: StreamEnds | None = None


CODEC = Codec("the pointer to who brings a failover home", FailbackClaim)


def mark_of_base(base: Path) -> str:
    """Return the mark of the failover that ``base`` was kept for."""
    return base.stem.removeprefix("interim-")


def key_of(mark: str) -> str:
    """Return the pointer that says which node fails the failover ``mark`` back."""
    return f"interim-{mark}"
