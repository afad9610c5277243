"""The control API's endpoints for applications: the change feed, the position of a commit, waiting for one.

Invariant: a feed that ends because of an error says so in its last line; without such a line the reader was cut off.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from typing import Any, Protocol, TypeVar

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from harmonylite.errors import HarmonyLiteError
from harmonylite.web.control_routes import BadArgumentError, answering, failure, parsed, seconds
from harmonylite.web.values import ShownEntry, json_of

EVENTS = "text/event-stream"
LINES = "application/x-ndjson"
F = TypeVar("F")


class FeedActions(Protocol[F]):
    """The requests of applications to a node; `harmonylite.node.feeds` answers. May raise `HarmonyLiteError`."""

    async def feed(self, start: str, table: str) -> F:
        """Return the changes from ``start`` on: "now", "start" or a position."""

    def follow(self, feed: F) -> AsyncGenerator[ShownEntry, None]:
        """Yield the entries of a feed."""

    async def position(self, seconds: float) -> dict[str, Any]:
        """Return the position of what was committed here before."""

    async def wait(self, position: str, seconds: float) -> dict[str, Any]:
        """Return once the node is at ``position``, "" for where the streams end now."""


class EntryStream(StreamingResponse):
    """A stream that ends when its reader is gone."""

    def __init__(self, entries: AsyncGenerator[bytes, None], media_type: str) -> None:
        super().__init__(entries, media_type=media_type)
        self._entries = entries

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._entries.aclose()


def feed_routes(feeds: FeedActions[F]) -> list[Route]:
    """Return the routes over ``feeds``."""

    async def changes(request: Request) -> Response:
        query = _known(request.query_params, {"from", "table"})
        start = request.headers.get("last-event-id") or query.get("from") or "now"
        as_events = EVENTS in request.headers.get("accept", "")
        try:
            feed = await feeds.feed(start, query.get("table", ""))
        except HarmonyLiteError as error:
            return failure(error)
        entries = feeds.follow(feed)
        return EntryStream(written(entries, as_events=as_events), EVENTS if as_events else LINES)

    async def position(request: Request) -> dict[str, Any]:
        query = _known(request.query_params, {"seconds"})
        return await feeds.position(seconds(parsed(query.get("seconds", "30"))))

    async def wait(request: Request) -> dict[str, Any]:
        query = _known(request.query_params, {"position", "seconds"})
        return await feeds.wait(query.get("position", ""), seconds(parsed(query.get("seconds", "30"))))

    return [
        Route("/v1/changes", answering(changes), methods=["GET"]),
        Route("/v1/position", answering(position), methods=["GET"]),
        Route("/v1/wait", answering(wait), methods=["GET"]),
    ]


def _known(query: Mapping[str, str], names: set[str]) -> Mapping[str, str]:
    if unknown := sorted(query.keys() - names):
        raise BadArgumentError(f"unknown argument {unknown[0]!r}; there are {', '.join(sorted(names))}")
    return query


async def written(entries: AsyncGenerator[ShownEntry, None], *, as_events: bool) -> AsyncGenerator[bytes, None]:
    """Yield ``entries`` as events or lines, an error as the last one."""
    try:
        async for entry in entries:
            yield entry.event if as_events else entry.line
    except HarmonyLiteError as error:
        last = json_of({"error": str(error), "exit_code": error.exit_code}) + b"\n"
        yield b"event: failed\ndata: " + last + b"\n" if as_events else last
    finally:
        await entries.aclose()
