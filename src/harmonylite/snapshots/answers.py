"""What nodes tell each other of where they stand, when streams are lost.

Invariant: an answer says no more than its node's mirror holds.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from harmonylite.changes.histories import Standing
from harmonylite.model import Position


class Answer(msgspec.Struct):
    """Where a node stands. ``following``: its mirror goes on with the streams as they are."""

    node: str
    following: bool
    history: str
    left: dict[int, tuple[str, int]]
    past: int = 0

    def standing(self) -> Standing:
        """Return what can be told of where that node's mirror stands."""
        positions = {shard: Position(shard, seq, created=created) for shard, (created, seq) in self.left.items()}
        return Standing(self.history, positions, {str(n): {} for n in range(self.past)})


def answers_by_node(found: Iterable[bytes]) -> dict[str, Answer]:
    """Decode answers."""
    return {answer.node: answer for answer in (msgspec.json.decode(data, type=Answer) for data in found)}
