"""Get past a change set that needs a schema which this node never had, and which no node has any more.

A migration brings a column, rows are written, and the next migration renames the column: a node that was away then has
today's schema and can't know what those rows mean. A node that saw it happen can; its mirror holds them.

Invariant: only a snapshot whose tables have the very columns of this node's is taken up for it, so no value is lost.
"""

from __future__ import annotations

from contextlib import suppress

import msgspec

from harmonylite.db.replica import Replica
from harmonylite.db.sqlite.thread import SqliteThread
from harmonylite.errors import PassedError, StreamError
from harmonylite.foreign import Codec, Line, Name, PerShard, Text
from harmonylite.ports import Peers
from harmonylite.schema.shape import outline
from harmonylite.snapshots.requests import ask_nodes
from harmonylite.status import NodeStatus

ASK = 1.0
"""Seconds that nodes have to answer that they are further."""
TOPIC = "beyond"


class SchemaWait(msgspec.Struct):
    """Where a node waits. ``outline``: see `harmonylite.schema.shape`; ``at``: sequence by shard."""

    node: Name
    history: Line
    outline: Line
    at: PerShard


CODEC = Codec("where a node is stuck", SchemaWait)
HELPER = Text("the name of a node that can help", r"[^\x00-\x1f\x7f]{1,128}")


class SchemaResync:
    """Finds a node of the same schema that is further. ``replica``: None until there is one; ``newer``: the snapshot
    that such a node saved, until it is taken up.
    """

    def __init__(self, thread: SqliteThread, status: NodeStatus, peers: Peers, *, node: str) -> None:
        self._thread = thread
        self._status = status
        self._peers = peers
        self._node = node
        self.replica: Replica | None = None
        self.newer = ""

    async def serve(self) -> None:
        """Answer nodes that can't continue whether this one can help, without end."""
        await self._peers.serve(TOPIC, CODEC.decode, self._answer)

    async def check(self) -> None:
        """Raise PassedError when this node waits for a schema and such a node has saved a snapshot for it."""
        if self.replica is None or not self._status.waits_for_schema:
            return
        stuck = CODEC.encode(await self._thread.run(self._where, self.replica))
        with suppress(StreamError):
            for helper in (await self._peers.ask(TOPIC, stuck, HELPER.decode, seconds=ASK, expect=1)).answers[:1]:
                saved = await ask_nodes(self._peers, [helper], me=self._node)
                self.newer = saved[0] if saved else ""
        if self.newer:
            why = self._status.part("merge").reason
            raise PassedError(f"{why}; a node of the same schema is past that: this node resyncs from it")

    def _where(self, replica: Replica) -> SchemaWait:
        lineage = replica.lineage()
        here = outline(table.shape for table in replica.tables.values())
        at = {shard: position.seq for shard, position in lineage.positions.items()}
        return SchemaWait(self._node, lineage.history, here, at)

    async def _answer(self, stuck: SchemaWait) -> bytes | None:
        if self.replica is None or stuck.node == self._node or not self._status.caught_up:
            return None
        if self._status.waits_for_schema:
            return None
        mine = await self._thread.run(self._where, self.replica)
        same = (mine.history, mine.outline) == (stuck.history, stuck.outline)
        further = mine.at != stuck.at and all(mine.at.get(shard, 0) >= seq for shard, seq in stuck.at.items())
        return HELPER.encode(self._node) if same and further else None
