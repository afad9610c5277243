"""The control API's endpoints about the past: snapshots, copies of earlier states, a row's history.

Invariant: a request is decoded and bounded before the node is asked.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

from starlette.requests import Request
from starlette.routing import Route

from harmonylite.web.control_routes import BadArgumentError, answering, arguments, parsed, whole

MOST_EVENTS = 100_000
"""Events of a history in one answer."""


class HistoryActions(Protocol):
    """The requests about the past to a node; `harmonylite.node.history` answers. May raise `HarmonyLiteError`."""

    async def snapshots(self) -> Sequence[dict[str, Any]]:
        """Return the snapshots in the store, the newest first."""

    async def fetch_snapshot(self, name: str, target: str) -> dict[str, Any]:
        """Fetch a snapshot, "" for the newest one, into the new file ``target``."""

    async def restore(self, target: str, at: float | None, position: int | None) -> dict[str, Any]:
        """Restore a copy of the database to a point in time."""

    async def history(self, table: str, key: Sequence[str], limit: int) -> dict[str, Any]:
        """Return what happened to a row."""


def history_routes(past: HistoryActions) -> list[Route]:
    """Return the routes over ``past``."""

    async def snapshots(_: Request) -> dict[str, Any]:
        return {"snapshots": list(await past.snapshots())}

    async def fetch(request: Request) -> dict[str, Any]:
        given = await arguments(request, {"name": "", "target": None})
        return await past.fetch_snapshot(_text("name", given["name"]), _text("target", given["target"]))

    async def restore(request: Request) -> dict[str, Any]:
        given = await arguments(request, {"target": None, "at": None, "position": None})
        at, position = given["at"], given["position"]
        if at is not None and (isinstance(at, bool) or not isinstance(at, int | float) or not math.isfinite(at)):
            raise BadArgumentError("at is not a time in seconds since the epoch")
        if position is not None:
            whole("position", position, 0)
        return await past.restore(_text("target", given["target"]), at, position)

    async def history(request: Request) -> dict[str, Any]:
        limit = whole("limit", parsed(request.query_params.get("limit", "100")), 1, MOST_EVENTS)
        key = parsed(request.query_params.get("key", "[]"))
        if not isinstance(key, list) or not all(isinstance(part, str) for part in key):
            raise BadArgumentError("key is not a list of texts")
        return await past.history(_text("table", request.query_params.get("table")), key, limit)

    return [
        Route("/v1/snapshots", answering(snapshots), methods=["GET"]),
        Route("/v1/snapshot/fetch", answering(fetch), methods=["POST"]),
        Route("/v1/snapshot/restore", answering(restore), methods=["POST"]),
        Route("/v1/history", answering(history), methods=["GET"]),
    ]


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str) or (name != "name" and not value):
        raise BadArgumentError(f"{name} is not a text")
    return value
