"""The requests of the control API to a node. `harmonylite.node.node` implements them; tests use a small double.

Invariant: the control API makes no other requests to a node.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from harmonylite.model import Conflict


class Actions(Protocol):
    """The node, as the control API sees it. Dicts hold JSON-able values only.

    Every method may raise `HarmonyLiteError`; its text goes to the client.
    """

    async def status(self) -> dict[str, Any]:
        """Return `NodeStatus.report`, with whatever the node adds."""

    async def cluster(self) -> Sequence[dict[str, Any]]:
        """Return one report per known node, including this one; one that did not answer has ``status`` "unknown"."""

    async def nodes(self) -> Sequence[dict[str, Any]]:
        """Return a row for each node that the cluster knows: state, when it was last seen, version and lag."""

    async def forget(self, node: str) -> dict[str, Any]:
        """Remove a permanently gone node from every node's lists; refused for one that answers."""

    async def conflicts(self, table: str | None, limit: int) -> Sequence[Conflict]:
        """Return up to ``limit`` entries of the conflict journal, newest first; ``table``: of this table only."""

    async def verify(self, repair: bool, seconds: float, without: frozenset[str]) -> dict[str, Any]:
        """Compare database, mirror and nodes within ``seconds``; with ``repair`` repair what differs here.

        ``without``: known nodes that are not waited for.
        """

    async def save_snapshot(self) -> dict[str, Any]:
        """Save a snapshot now and return its name."""

    async def region(self, action: str, force: bool) -> dict[str, Any]:
        """Make this node's region the primary region (``action`` "promote"; ``force``: without the present primary
        region), or its streams copies of the primary region's again ("rejoin"); say what was done.
        """

    async def skip(self, shard: int, seq: int) -> dict[str, Any]:
        """Leave out the message ``seq`` of ``shard``, at which the node is paused; return what it holds."""

    async def left_out(self) -> Sequence[dict[str, Any]]:
        """Return the messages that were left out and that the mirror still lacks."""

    async def undo_skip(self, shard: int, seq: int) -> dict[str, Any]:
        """Apply a message that was left out, at its place in the order; return what it holds."""
