"""What `harmonylite node` does: list all nodes that the cluster knows, and forget one that is permanently gone.

Invariant: a node that answers is never forgotten.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterable, Mapping
from typing import Any

from harmonylite.errors import HarmonyLiteError, NotFoundError
from harmonylite.node.registry import ListedNode, NodeList
from harmonylite.status import NodeStatus


def known_nodes(remembered: Iterable[str], roll: NodeList, status: NodeStatus) -> set[str]:
    """Return the nodes that take part: those in the history and those that send heartbeats, without what is forgotten.

    One that sends heartbeats is not forgotten, whatever the list says: a version that does not list itself may have
    come back.
    """
    up = {name for name, peer in status.peers.items() if peer.state == "up"}
    return ({*remembered} - roll.forgotten.keys()) | up | {status.node_id}


def all_nodes(known: Iterable[str], roll: NodeList, status: NodeStatus) -> set[str]:
    """Return ``known`` and every other node that is on the list or sent a heartbeat since this node's start."""
    return {*known} | ({*roll.nodes, *status.peers} - roll.forgotten.keys())


def node_rows(known: Iterable[str], roll: NodeList, status: NodeStatus) -> list[dict[str, Any]]:
    """Return a row for each node. ``last_seen``: seconds since the epoch, 0 = not known; lag: None = not known."""
    return [_row(name, roll.nodes.get(name, ListedNode()), status) for name in sorted(known)]


def _row(name: str, entry: ListedNode, status: NodeStatus) -> dict[str, Any]:
    row = {
        "node_id": name,
        "state": "unknown",
        "last_seen": entry.seen,
        "host": entry.host,
        "version": entry.version,
        "region": "",
        "schema": entry.schema.short,
        "page": "",
        "lag_messages": None,
        "lag_seconds": None,
        "pending_rows": None,
    }
    if name == status.node_id:
        shards = status.shards.values()
        return row | {
            "state": "this node",
            "last_seen": time.time(),
            "version": status.version,
            "host": socket.gethostname()[:255],
            "region": str(status.region.get("region", "")),
            "schema": status.schema,
            "page": status.page,
            "lag_messages": sum(shard.lag for shard in shards),
            "lag_seconds": max((shard.lag_seconds for shard in shards), default=0.0),
            "pending_rows": status.pending_rows,
        }
    peer = status.peers.get(name)
    if peer is None:
        return row
    if not peer.seen:
        return row | {"state": peer.state}
    health = peer.health
    return row | {
        "state": peer.state,
        "last_seen": max(peer.seen_wall, entry.seen),
        "host": health.host,
        "version": health.version,
        "region": health.region,
        "page": health.page,
        "lag_messages": health.lag_messages,
        "lag_seconds": health.lag_seconds,
        "pending_rows": health.pending_rows,
    }


def refuse_to_forget(node: str, listed: Iterable[str], reports: Iterable[Mapping[str, Any]], own: str) -> None:
    """Raise HarmonyLiteError unless ``node`` is ``listed`` and does not answer. ``reports``: of the nodes that do."""
    if node == own:
        raise HarmonyLiteError(f"{node} is this node, which runs", advice="forget it from another node once it is gone")
    if any(report["node_id"] == node and (report["status"] != "unknown" or report.get("waits")) for report in reports):
        raise answers(node)
    if node not in listed:
        raise NotFoundError(f"no node {node} is known", advice=f"known are {', '.join(sorted(listed))}")


def answers(node: str) -> HarmonyLiteError:
    """Return the error for a node that runs and is to be forgotten."""
    return HarmonyLiteError(f"node {node} answers, so it is not forgotten", advice="stop it first")
