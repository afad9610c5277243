"""Figures of a nats-server, read from its monitoring port, and whether its cluster can decide anything.

Invariant: reading never changes anything at the server, and a server that does not answer costs two seconds at most.

Reference: https://docs.nats.io/running-a-nats-service/nats_admin/monitoring
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import msgspec

from harmonylite.errors import ForeignError
from harmonylite.foreign import Long, Seq, Untyped, convert

SECONDS = 2.0
"""Deadline of one question."""

MOST = 4 * 1024 * 1024
"""Bytes of an answer that are read; more is not an answer to our questions."""


class _Monitoring(msgspec.Struct):
    """The fields of the monitoring port's answers that are read one by one."""

    server_name: Long = ""
    config: dict[str, Any] | None = None
    api: dict[str, Any] | None = None
    meta_cluster: _Meta | None = None


class _Meta(msgspec.Struct):
    """JetStream's meta group."""

    cluster_size: Seq = 0
    quorum_needed: Seq = 0
    leader: Long | None = None
    replicas: list[_Replica] | None = None


class _Replica(msgspec.Struct):
    """A server of the meta group."""

    name: Long = "?"


class _Route(msgspec.Struct):
    """A route to another server."""

    remote_name: Long = ""
    remote_id: Long = ""


CODEC = Untyped("an answer of the monitoring port", check=_Monitoring, most=MOST)


@dataclass(frozen=True, slots=True)
class ServerMetrics:
    """The result of one query. ``trouble``: why the cluster can't decide anything now, "" when it can. ``here``: names
    of the cluster's servers that are connected, the asked one among them; empty without a cluster.
    """

    values: dict[str, float]
    trouble: str = ""
    here: tuple[str, ...] = ()


async def read_metrics(url: str) -> ServerMetrics:
    """Return the figures of the server whose monitoring is at ``url``; raises OSError, ForeignError, TimeoutError."""
    async with asyncio.timeout(SECONDS):
        varz, jsz = await _get(f"{url}/varz"), await _get(f"{url}/jsz")
        meta = jsz.get("meta_cluster") or {}
        listed = (await _get(f"{url}/routez")).get("routes") or [] if meta else []
    routes = convert(listed, list[_Route], "the routes of the server")
    peers = {route.remote_name or route.remote_id for route in routes}
    values = _values(varz, jsz) | {"cluster_peers": float(len(peers))}
    own = str(varz.get("server_name", ""))
    return (
        ServerMetrics(values, _cluster_problem(meta, own, peers), tuple(sorted({own, *peers})))
        if meta
        else ServerMetrics(values)
    )


def _values(varz: Mapping[str, Any], jsz: Mapping[str, Any]) -> dict[str, float]:
    config, api = jsz.get("config") or {}, jsz.get("api") or {}
    found = {
        "memory_bytes": varz.get("mem"),
        "cpu_ratio": convert(varz.get("cpu") or 0, float, "the processor time of the server") / 100,
        "connections": varz.get("connections"),
        "leaf_links": varz.get("leafnodes"),
        "subscriptions": varz.get("subscriptions"),
        "slow_consumers": varz.get("slow_consumers"),
        "in_messages": varz.get("in_msgs"),
        "in_bytes": varz.get("in_bytes"),
        "out_messages": varz.get("out_msgs"),
        "out_bytes": varz.get("out_bytes"),
        "streams": jsz.get("streams"),
        "consumers": jsz.get("consumers"),
        "stored_messages": jsz.get("messages"),
        "stored_bytes": jsz.get("storage"),
        "store_limit_bytes": config.get("max_storage"),
        "api_requests": api.get("total"),
        "api_errors": api.get("errors"),
    }
    values = convert(found, dict[str, float | None], "the figures of the server")
    return {name: value or 0.0 for name, value in values.items()}


def _cluster_problem(meta: Mapping[str, Any], own: str, peers: set[str]) -> str:
    """Return why JetStream's meta group has no valid leader; a leader that lost its followers reports it late."""
    size, needed = int(meta.get("cluster_size") or 0), int(meta.get("quorum_needed") or 0)
    online = len(peers) + 1
    if size and online < needed:
        replicas = {str(one.get("name", "?")).partition(" ")[0] for one in meta.get("replicas") or []}
        absent = sorted(replicas - peers - {own, "Server"})
        named = f"; not reached: {', '.join(absent)}" if absent else ""
        return f"no quorum: {online} of {size} servers of the cluster are here, {needed} are needed{named}"
    if not meta.get("leader"):
        return f"the servers of the cluster have not elected a leader yet ({online} of {size or '?'} are here)"
    return ""


async def _get(url: str) -> dict[str, Any]:
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    try:
        writer.write(f"GET {parts.path} HTTP/1.0\r\nHost: {parts.hostname}\r\n\r\n".encode())
        answer = await reader.read(MOST)
        while not reader.at_eof() and len(answer) < MOST:
            answer += await reader.read(MOST)
    finally:
        writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    if b" 200 " not in head.partition(b"\r\n")[0]:
        raise ForeignError(f"monitoring answered {head[:60]!r}")
    return CODEC.decode(body)
