"""What other nodes say of themselves: the fields that this version shows have a type, whatever else is there passes.

Invariant: a report that can be read can be shown by the CLI, the page and the doctor.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from harmonylite.foreign import Long, Name, Seconds, Seq, Shard, Untyped
from harmonylite.ports import UNREAD


class ShardReport(msgspec.Struct):
    """Where one shard of a node is."""

    shard: Shard
    position: Seq = 0
    last: Seq = 0
    lag_messages: Seq = 0
    lag_seconds: Seconds = 0.0


class PartReport(msgspec.Struct):
    """How one part of a node is."""

    state: Long = ""
    reason: Long = ""
    seconds: float = 0.0


class PeerReport(msgspec.Struct):
    """What a node knows of another one."""

    node_id: Long = ""
    state: Long = ""
    silent_seconds: Seconds | None = None
    lag_messages: Seq = 0
    lag_seconds: Seconds = 0.0
    version: Long = ""


class RegionReport(msgspec.Struct):
    """What a node says of its region."""

    region: Long = ""
    primary: Long = ""
    reachable: bool = True
    unreachable_since: Seconds = 0.0
    round_trip_seconds: Seconds = 0.0
    copy_behind: Seq = 0
    failover: bool = False
    failover_since: Seconds = 0.0


class CatchingUpReport(msgspec.Struct):
    """How far a node has still to go."""

    messages: Seq
    seconds: Seconds | None


class SchemaReport(msgspec.Struct, frozen=True):
    """What a node says of its schema."""

    hash: Long = ""
    previous_hash: Long = ""
    since: Seconds = 0.0
    version: int = 0
    tables: Seq = 0
    paused: bool = False
    why: Long = ""
    waiting: list[dict[str, Long]] = []


class Report(msgspec.Struct):
    """The fields of `harmonylite.status.NodeStatus.report` that are shown of other nodes."""

    node_id: Name
    status: Long = ""
    ready: bool = False
    caught_up: bool = False
    version: Long = ""
    db_path: Long = ""
    uptime_seconds: Seconds = 0.0
    db_connected: bool = False
    nats_connected: bool = False
    nats_server: Long = ""
    server: dict[str, float] = {}
    tables_tracked: Seq = 0
    pending_rows: Annotated[int, Meta(le=2**63 - 1)] = 0
    held_rows: Seq = 0
    shards: list[ShardReport] = []
    catching_up: CatchingUpReport | None = None
    peers: list[PeerReport] = []
    parts: dict[str, PartReport] = {}
    schema_state: SchemaReport = SchemaReport()
    region: RegionReport | None = None
    waits: list[Long] = []
    warnings: dict[str, Long] = {}
    counters: dict[str, Seq] = {}


CODEC = Untyped("the report of a node", check=Report, most=1024 * 1024)


def by_node(reports: Iterable[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return reports by node."""
    return {report["node_id"]: report for report in reports}


def unreadable(nodes: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return what is known of nodes whose reports can't be read, by node; "" is one that did not say its name."""
    return {
        node or "?": {"node_id": node or "?", "status": "unknown", "waits": [f"it {UNREAD}"]} for node in sorted(nodes)
    }
