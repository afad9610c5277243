"""Health over HTTP: the configured path, `/livez` and `/readyz`.

Invariant: the answer is current, read from `NodeStatus` for each request; nothing is cached or measured for it.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse
from starlette.routing import Route

from harmonylite.errors import ConfigError
from harmonylite.progress import catching_up

if TYPE_CHECKING:
    from starlette.requests import Request

    from harmonylite.status import NodeStatus

DETAILS = (
    "ready",
    "caught_up",
    "catching_up",
    "pending_rows",
    "held_rows",
    "unfinished_change_sets",
    "foreign_messages",
    "left_out_messages",
    "shards",
    "peers",
    "region",
    "waits",
    "warnings",
)
"""What ``detailed`` adds, under the names of `NodeStatus.report`; ``region`` only where there are regions."""


def health_routes(status: NodeStatus, *, path: str = "/health", detailed: bool = True) -> list[Route]:
    """Return the routes ``path``, ``/livez`` and ``/readyz`` over ``status``.

    :raises ConfigError: ``path`` is not a plain path.
    """

    async def health(_: Request) -> JSONResponse:
        return JSONResponse(health_body(status, detailed=detailed), 200 if status.healthy else 503)

    async def livez(_: Request) -> JSONResponse:
        # Whatever a part waits for or failed at, a restart does not bring it; a node that can't continue ends by
        # itself.
        return JSONResponse({"status": "alive", "reasons": status.waits})

    async def readyz(_: Request) -> JSONResponse:
        return _verdict("ready" if status.ready else "not ready", [] if status.ready else not_ready(status.report()))

    return [Route(plain_path(path), health), Route("/livez", livez), Route("/readyz", readyz)]


def health_body(status: NodeStatus, *, detailed: bool) -> dict[str, Any]:
    """Return the health answer: ten well-known fields, and `DETAILS` when ``detailed``.

    Times are RFC 3339 in UTC, null for never. ``node_id`` is a number where it is written as one, which is what
    monitors made for the Go edition of HarmonyLite read.
    """
    report = status.report()
    body = {
        "status": report["status"],
        "node_id": _number_if_decimal(report["node_id"]),
        "uptime_seconds": int(report["uptime_seconds"]),
        "db_connected": report["db_connected"],
        "nats_connected": report["nats_connected"],
        "cdc_installed": report["cdc_installed"],
        "tables_tracked": report["tables_tracked"],
        "last_replicated_event_timestamp": rfc3339(report["last_replicated_event_timestamp"]),
        "last_published_event_timestamp": rfc3339(report["last_published_event_timestamp"]),
        "version": report["version"],
    }
    if not detailed:
        return body
    peers = [peer | {"last_heard": rfc3339(peer["last_heard"])} for peer in report["peers"]]
    details = {name: report[name] for name in DETAILS if name in report}
    return body | details | {"schema": report["schema_state"], "peers": peers}


def not_ready(report: dict[str, Any]) -> list[str]:
    """Return why a node is not ready, a sentence each; never empty for one that is not."""
    behind = [
        f"shard {s['shard']} is {s['lag_messages']} messages ({s['lag_seconds']:.0f} s) behind"
        for s in report["shards"]
        if s["lag_messages"]
    ]
    if (found := report.get("catching_up")) and found["seconds"] is not None:
        behind.append(catching_up(found))
    if not report["caught_up"] and not behind:
        behind = ["the stream was not read to its end yet"]
    absent = [] if report["db_connected"] else ["the database is not open"]
    absent += [] if report["cdc_installed"] or not report["db_connected"] else ["the capture triggers are not in place"]
    absent += [] if report["nats_connected"] else ["NATS is not connected"]
    reasons = absent + list(report["waits"]) + ([] if report["caught_up"] else behind)
    return reasons or ["the node is stopping"]


def rfc3339(seconds: float) -> str | None:
    """Return the time ``seconds`` after the epoch, in UTC with milliseconds; None for 0, which means never."""
    if not seconds:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _verdict(status: str, reasons: list[str]) -> JSONResponse:
    return JSONResponse({"status": status, "reasons": reasons}, 503 if reasons else 200)


def _number_if_decimal(node_id: str) -> int | str:
    return int(node_id) if node_id.isascii() and node_id.isdecimal() and str(int(node_id)) == node_id else node_id


def plain_path(path: str) -> str:
    """Return ``path`` with a slash at its beginning; raises ConfigError where it is no plain path."""
    path = path if path.startswith("/") else f"/{path}"
    if any(c in path for c in "{}?# ") or not path.isprintable():
        raise ConfigError(f"health_check.path = {path!r} is not a plain path", advice='write for example "/health"')
    return path
