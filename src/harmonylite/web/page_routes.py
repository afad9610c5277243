"""The page's requests to its node, each path behind `PageGuard`.

Invariant: arguments are checked before the node is asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from harmonylite.errors import HarmonyLiteError
from harmonylite.web.control_routes import BadArgumentError, Endpoint, answering, arguments, failure, parsed, whole
from harmonylite.web.feed_routes import LINES, EntryStream, written
from harmonylite.web.page_guard import Need, PageGuard
from harmonylite.web.page_source import PageActions, PageSource
from harmonylite.web.values import ShownEntry, shown_change

MOST_CONFLICTS = 200
"""Conflicts in one answer."""
WRONG_SECONDS = 0.3
"""How long an answer to a wrong token takes."""


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


async def _shown_entries(entries: AsyncGenerator[dict[str, Any], None]) -> AsyncGenerator[ShownEntry, None]:
    try:
        async for entry in entries:
            yield ShownEntry(entry | {"changes": [shown_change(change) for change in entry["changes"]]})
    finally:
        await entries.aclose()
