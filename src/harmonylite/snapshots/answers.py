"""What nodes tell each other of where they stand, when streams are lost, and how they ask for a snapshot.

Invariant: an answer says no more than its node's mirror holds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from harmonylite.changes.histories import Standing
from harmonylite.model import Position
from harmonylite.replication.ports import Peers

SNAPSHOT = "snapshot"
"""The question for a snapshot; what is asked are the nodes that may save it, as a JSON list; empty: any."""
SAVE = 10.0
"""Seconds that the others have to save a snapshot when they are asked for one."""


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


async def ask_for_snapshot(peers: Peers, nodes: Sequence[str] = (), *, seconds: float = SAVE) -> list[str]:
    """Ask other nodes to save a snapshot, ``nodes`` alone where there are any; return the names of those saved.

    Ends with the first one. Raises StreamError.
    """
    question = msgspec.json.encode(nodes) if nodes else b""
    return [name.decode() for name in await peers.ask(SNAPSHOT, question, seconds=seconds, expect=1)]


def answers_by_node(found: Iterable[bytes]) -> dict[str, Answer]:
    """Decode answers."""
    return {answer.node: answer for answer in (msgspec.json.decode(data, type=Answer) for data in found)}
