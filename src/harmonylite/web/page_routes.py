"""What the page asks its node for, each path behind `PageGuard`.

Invariant: arguments are checked before the node is asked; a value of SQLite reaches the page as text beside its type,
so that a number of 64 bits is shown whole.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from harmonylite.errors import HarmonyLiteError
from harmonylite.web.control_routes import BadArgumentError, Endpoint, answering, arguments, failure, parsed, whole
from harmonylite.web.feed_routes import LINES, EntryStream, written
from harmonylite.web.last_hour import LastHour
from harmonylite.web.page_guard import Need, PageGuard

MOST_CONFLICTS = 200
"""Conflicts in one answer."""
WRONG_SECONDS = 0.3
"""How long an answer to a wrong token takes."""


class PageActions(Protocol):
    """What the page asks a node; `harmonylite.node.page` answers. May raise `HarmonyLiteError`."""

    async def details(self) -> dict[str, Any]:
        """Return nodes, tables, snapshots and the last comparison; ``errors`` says what of it is not known, and why."""

    async def conflicts(self, table: str, words: str, limit: int) -> Sequence[dict[str, Any]]:
        """Return the newest conflicts that have all ``words``, of ``table`` ("" = of all)."""

    async def changes(self) -> AsyncGenerator[dict[str, Any], None]:
        """Return the last changes, and those that come."""

    def log(self) -> Sequence[dict[str, str]]:
        """Return the last lines of the log, the oldest first."""

    async def put_back(self, conflict: str) -> dict[str, Any]:
        """Write the value that was overruled in the conflict of that id."""

    async def save_snapshot(self) -> dict[str, Any]:
        """Save a snapshot now."""

    async def verify(self) -> dict[str, Any]:
        """Compare database, mirror and nodes now."""


@dataclass(frozen=True, slots=True)
class PageSource:
    """Where the page's data comes from, and who may have it. ``name``: of the database among the ``databases`` of its
    process, each of which has a tab; "" and none where it is the only one.
    """

    actions: PageActions
    hour: LastHour
    guard: PageGuard
    name: str = ""
    databases: Callable[[], Sequence[Any]] = tuple


def page_data_routes(source: PageSource) -> list[Route]:
    """Return the routes over ``source``, but for ``/status.json``."""
    actions, guard = source.actions, source.guard

    async def hour(_: Request) -> dict[str, Any]:
        return source.hour.report()

    async def details(_: Request) -> dict[str, Any]:
        return await actions.details()

    async def conflicts(request: Request) -> dict[str, Any]:
        query = request.query_params
        limit = whole("limit", parsed(query.get("limit", "50")), 1, MOST_CONFLICTS)
        found = await actions.conflicts(query.get("table", ""), query.get("search", "")[:200], limit)
        return {"conflicts": list(found)}

    async def log(_: Request) -> dict[str, Any]:
        return {"lines": list(actions.log())}

    async def changes(_: Request) -> Response:
        try:
            entries = await actions.changes()
        except HarmonyLiteError as error:
            return failure(error)
        return EntryStream(written(_shown_entries(entries), as_events=False), LINES)

    def path(where: str, endpoint: Endpoint, need: Need) -> Route:
        return Route(where, guarded(guard, endpoint, need), methods=["POST" if need == "act" else "GET"])

    return [
        path("/hour.json", hour, "state"),
        path("/details.json", details, "values"),
        path("/conflicts.json", conflicts, "values"),
        path("/log.json", log, "values"),
        path("/changes.ndjson", changes, "values"),
        *(path(where, endpoint, "act") for where, endpoint in _acts(actions)),
    ]


def _acts(actions: PageActions) -> list[tuple[str, Endpoint]]:
    async def snapshot(request: Request) -> dict[str, Any]:
        await arguments(request, {})
        return await actions.save_snapshot()

    async def verify(request: Request) -> dict[str, Any]:
        await arguments(request, {})
        return await actions.verify()

    async def put_back(request: Request) -> dict[str, Any]:
        given = await arguments(request, {"conflict": ""})
        if not isinstance(given["conflict"], str) or not given["conflict"]:
            raise BadArgumentError("conflict is not the id of a conflict")
        return await actions.put_back(given["conflict"])

    return [("/actions/snapshot", snapshot), ("/actions/verify", verify), ("/actions/put-back", put_back)]


def guarded(guard: PageGuard, endpoint: Endpoint, need: Need) -> Callable[[Request], Any]:
    """Return ``endpoint``, asked only by those who may have what it gives."""
    answer = answering(endpoint)

    async def guarded_answer(request: Request) -> Response:
        refused = guard.refusal(request, need)
        if refused is None:
            return await answer(request)
        code, why = refused
        if code == 401 and request.headers.get("authorization"):
            await asyncio.sleep(WRONG_SECONDS)
        return JSONResponse({"error": why, "login": code == 401}, code)

    return guarded_answer


async def _shown_entries(entries: AsyncGenerator[dict[str, Any], None]) -> AsyncGenerator[dict[str, Any], None]:
    try:
        async for entry in entries:
            yield entry | {"changes": [shown_change(change) for change in entry["changes"]]}
    finally:
        await entries.aclose()


def shown_change(change: dict[str, Any]) -> dict[str, Any]:
    """Return a change of the feed with each value as `shown`."""
    return change | {side: shown_row(change[side]) for side in ("key", "before", "after")}


def shown_row(row: dict[str, Any]) -> list[list[str]]:
    """Return name, type and text of each value of a row."""
    return [[name, *shown(value)] for name, value in row.items()]


def shown(value: Any) -> tuple[str, str]:
    """Return type and text of a value that `harmonylite.web.values.sql_json` made, shortened where it is long."""
    match value:
        case None:
            return "null", "NULL"
        case {"blob": str(text)}:
            return "blob", f"x'{_short(text)}' ({len(text) // 2:,} bytes)"
        case {"raw_text": str(text)}:
            return "text", f"not UTF-8: {_short(text)}"
        case {"real": str(text)}:
            return "real", text
        case int() | float():
            return ("integer" if isinstance(value, int) else "real"), str(value)
    return "text", _short(str(value), 2_000)


def _short(text: str, most: int = 64) -> str:
    return text if len(text) <= most else f"{text[:most]}\N{HORIZONTAL ELLIPSIS}"
