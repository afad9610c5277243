"""Another node, as its heartbeats describe it.

Invariant: what a node reports is decoded within bounds, and believed only about that node.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

from harmonylite.foreign import Line, Seconds, Seq

PeerState = Literal["up", "silent", "stopped", "unknown"]


class NodeHealth(msgspec.Struct, kw_only=True):
    """What each node reports to the others of its health; lags are the sum, and the age of the oldest, over all shards.

    ``starting``: it is not healthy because it has not got that far yet; ``page``: where its page is, "" = nowhere.
    """

    healthy: bool = False
    starting: bool = False
    ready: bool = False
    lag_messages: Seq = 0
    lag_seconds: Seconds = 0.0
    pending_rows: Seq = 0
    version: Line = ""
    host: Line = ""
    region: Line = ""
    page: Line = ""


@dataclass(slots=True)
class Peer:
    """Another node. ``health``: as its last heartbeat describes it; ``schema``: digest of its replicated tables and
    their columns, as the cluster's list of nodes last gave it, "" = not known.

    ``state``: ``up``: its heartbeats come; ``silent``: its heartbeats stopped; ``stopped``: it announced its stop;
    ``unknown``: this node has no connection to NATS, or has not listened for long enough. ``seen``: time of the last
    heartbeat on the monotonic clock, ``seen_wall``: the same in seconds since the epoch by this node's clock; 0 = never
    since this node's start. ``every``: seconds between its heartbeats.
    """

    node: str
    state: PeerState = "unknown"
    seen: float = 0.0
    seen_wall: float = 0.0
    every: float = 0.0
    health: NodeHealth = field(default_factory=NodeHealth)
    schema: str = ""

    def report(self, now: float) -> dict[str, Any]:
        """Return the peer as JSON-able values; ``now``: on the monotonic clock."""
        return {
            "node_id": self.node,
            "state": self.state,
            "last_heard": self.seen_wall,
            "silent_seconds": round(now - self.seen, 1) if self.seen else None,
            **{name: getattr(self.health, name) for name in NodeHealth.__struct_fields__},
            "schema": self.schema,
            "lag_seconds": round(self.health.lag_seconds, 3),
        }
