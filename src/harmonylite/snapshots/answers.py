"""What nodes tell each other of where they stand, when streams are lost, and how they ask for a snapshot.

Invariant: an answer says no more than its node's mirror holds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated

import msgspec
from msgspec import Meta

from harmonylite.changes.histories import PAST_KEPT, Standing
from harmonylite.foreign import Codec, Line, Name, Stands, Text
from harmonylite.model import Position
from harmonylite.replication.ports import Peers
from harmonylite.snapshots.description import NAME

SNAPSHOT = "snapshot"
"""The question for a snapshot; what is asked are the nodes that may save it, as a JSON list; empty: any."""
SAVE = 10.0
"""Seconds that the others have to save a snapshot when they are asked for one."""


class Answer(msgspec.Struct):
    """Where a node stands. ``following``: its mirror goes on with the streams as they are."""

    node: Name
    following: bool
    history: Line
    left: Stands
    past: Annotated[int, Meta(ge=0, le=PAST_KEPT)] = 0

    def standing(self) -> Standing:
        """Return what can be told of where that node's mirror stands."""
        positions = {shard: Position(shard, seq, created=created) for shard, (created, seq) in self.left.items()}
        return Standing(self.history, positions, {str(n): {} for n in range(self.past)})


ANSWER = Codec("where a node stands", Answer)
SAVED = Text("the name of a saved snapshot", NAME)
NODES = Codec("the nodes that may save a snapshot", list[Name])


def may_save(question: bytes) -> list[str]:
    """Return the nodes that a question for a snapshot names, none where any may save it; raises ForeignError."""
    return NODES.decode(question) if question else []


async def ask_for_snapshot(peers: Peers, nodes: Sequence[str] = (), *, seconds: float = SAVE) -> list[str]:
    """Ask other nodes to save a snapshot, ``nodes`` alone where there are any; return the names of those saved.

    Ends with the first one. Raises StreamError.
    """
    question = NODES.encode(list(nodes)) if nodes else b""
    return (await peers.ask(SNAPSHOT, question, SAVED.decode, seconds=seconds, expect=1)).answers


def answers_by_node(found: Iterable[Answer]) -> dict[str, Answer]:
    """Return answers by node."""
    return {answer.node: answer for answer in found}
