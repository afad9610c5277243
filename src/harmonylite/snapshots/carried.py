"""Who brings an interim order home, as the pointers of its region say it.

Invariant: the first that claims it does, until it is silent; what it told of stays told when home moves.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from harmonylite.errors import StreamError


class Carried(msgspec.Struct, frozen=True):
    """Who brings an interim order home. ``ends``: how far it had folded that order, by shard. ``upto``: where home's
    order held all of it, by shard the identity of the order and a sequence; None: not yet.
    """

    node: str
    ends: dict[int, int]
    upto: dict[int, tuple[str, int]] | None = None


def mark_of_base(base: Path) -> str:
    """Return the mark of the interim order that ``base`` was kept for."""
    return base.stem.removeprefix("interim-")


def key_of(mark: str) -> str:
    """Return the pointer that says who brings the interim order ``mark`` home."""
    return f"interim-{mark}"


def decode(data: bytes) -> Carried:
    """Return what such a pointer says; raises StreamError."""
    try:
        return msgspec.json.decode(data, type=Carried)
    except msgspec.DecodeError as error:
        raise StreamError(f"the pointer to who brings an interim order home can't be read: {error}") from error
