"""Messages about nodes' lineages, when streams are lost.

Invariant: an answer says no more than its node's mirror holds.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import msgspec
from msgspec import Meta

from harmonylite.changes.epochs import PAST_KEPT, Lineage
from harmonylite.foreign import Codec, Line, Name, StreamEnds
from harmonylite.model import Position


class PeerState(msgspec.Struct):
    """A node's lineage. ``following``: its mirror continues with the streams as they are."""

    node: Name
    following: bool
    history: Line
    left: StreamEnds
    past: Annotated[int, Meta(ge=0, le=PAST_KEPT)] = 0

    def lineage(self) -> Lineage:
        """Return the lineage of that node's mirror, as far as the message says."""
        positions = {shard: Position(shard, seq, created=created) for shard, (created, seq) in self.left.items()}
        return Lineage(self.history, positions, {str(n): {} for n in range(self.past)})


ANSWER = Codec("at which position a node is", PeerState)


def answers_by_node(found: Iterable[PeerState]) -> dict[str, PeerState]:
    """Return answers by node."""
    return {answer.node: answer for answer in found}
