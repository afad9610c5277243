"""Public: read your writes behind a load balancer, for applications that speak ASGI (FastAPI, Starlette, Django).

Invariant: no request waits longer than its time for the node; if waiting is impossible, it serves local data.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from os import PathLike
from typing import Any

from harmonylite.client import AsyncClient, HarmonyLiteError
from harmonylite.position_cookie import READING, Said, cookie, position_in, waiting

__all__ = ["AsgiReadYourWrites"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class AsgiReadYourWrites:
    """ASGI middleware: what a user wrote through one node, the user reads through every other one.

    After a request that may write (any method but GET, HEAD, OPTIONS and TRACE) a cookie carries the position of what
    was committed; a request with that cookie waits until the database here has reached it. ``db_path``: the database
    here. ``seconds``: the longest wait before a request is served and before an answer is sent. If NATS or the node is
    down, no request waits longer: it is served from local data.
    """

    def __init__(self, app: App, *, db_path: str | PathLike[str], seconds: float = 2.0) -> None:
        self._app = app
        self._client = AsyncClient(db_path)
        self._seconds = seconds
        self._said = Said()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        header = "; ".join(
            value.decode("latin-1", errors="replace") for name, value in scope["headers"] if name == b"cookie"
        )
        if position := position_in(header):
            await self._wait(position)
        if scope["type"] == "websocket" or scope["method"] in READING:
            await self._app(scope, receive, send)
            return

        async def send_with_cookie(message: Message) -> None:
            if message["type"] == "http.response.start" and (found := await self._position()):
                made = cookie(found, secure=scope.get("scheme") == "https")
                added = [(b"set-cookie", made.encode())] if made else []
                message = {**message, "headers": [*message.get("headers", ()), *added]}
            await send(message)

        await self._app(scope, receive, send_with_cookie)

    async def _wait(self, position: str) -> None:
        with waiting(self._said):
            await self._client.wait(position, seconds=self._seconds, for_start=False)

    async def _position(self) -> str:
        try:
            found = await self._client.position(seconds=self._seconds)
        except HarmonyLiteError as error:
            self._said.failed(error)
            return ""
        self._said.worked()
        return found
