"""uvicorn's HTTP/1.1 protocol on a socket of ours, without uvicorn's `Server`.

`uvicorn.Server` takes over signals and wakes up every 0.1 s for as long as it runs, only to refresh a date header and
to look at a flag. Here nothing runs between requests: idle costs nothing.

Invariant: after `stop` no connection and no request of this listener is left. Imported by `server` on open only, so
that a node without HTTP doesn't pay for uvicorn.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from contextlib import suppress
from email.utils import formatdate
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

log = logging.getLogger(__name__)

MAX_CONNECTIONS = 200
"""Connections open at once; further ones are closed at once, so that a flood can't use up the node's files."""

KEEP_ALIVE = 15
"""Seconds that a connection may stay without a request."""

CANCEL_SECONDS = 1.0
"""How long a cancelled request may take to end."""


class _Protocol(H11Protocol):
    """Refuses connections above `MAX_CONNECTIONS`, closes those that never send a request, and tells of the last."""

    none_open: asyncio.Event

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self.none_open.clear()
        if len(self.connections) > MAX_CONNECTIONS:
            transport.abort()
            return
        self.timeout_keep_alive_task = self.loop.call_later(KEEP_ALIVE, self.timeout_keep_alive_handler)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if not self.connections:
            self.none_open.set()


class _App:
    """The application with the headers that every answer carries, and quiet when cut off by `Listener.stop`."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.stopping = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *_common_headers()]
            await send(message)

        try:
            await self.app(scope, receive, send_with_headers)
        except asyncio.CancelledError:
            # Nobody is left to answer to; raising would make uvicorn log a traceback for a plain shutdown.
            if not self.stopping:
                raise


def _common_headers() -> list[tuple[bytes, bytes]]:
    return [
        (b"date", formatdate(usegmt=True).encode()),
        (b"cache-control", b"no-store"),
        (b"x-content-type-options", b"nosniff"),
    ]


class Listener:
    """Serves one ASGI application on one bound socket."""

    def __init__(self, app: ASGIApp, sock: socket.socket) -> None:
        self._app = _App(app)
        self._sock = sock
        self._state = ServerState()
        self._server: asyncio.Server | None = None
        self._none_open = asyncio.Event()
        self._none_open.set()

    async def start(self) -> None:
        """Accept connections from now on."""
        config = Config(
            self._app,
            http=_Protocol,
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            timeout_keep_alive=KEEP_ALIVE,
        )
        config.load()
        app_state: dict[str, Any] = {}

        def protocol() -> _Protocol:
            made = _Protocol(config=config, server_state=self._state, app_state=app_state)
            made.none_open = self._none_open
            return made

        self._server = await asyncio.get_running_loop().create_server(protocol, sock=self._sock)

    async def stop(self, grace: float) -> None:
        """Stop accepting, let requests end for ``grace`` seconds, then cut the rest, streams included.

        Cancelling it skips the grace; connections are cut all the same.
        """
        if self._server is None:
            return
        self._server.close()
        try:
            for connection in list(self._state.connections):
                if not connection.transport.is_closing():
                    connection.shutdown()
            # Connections first: an answer that is complete may still wait in a buffer for a slow reader.
            with suppress(TimeoutError):
                async with asyncio.timeout(grace):
                    await self._none_open.wait()
                    if self._state.tasks:
                        await asyncio.wait(self._state.tasks)
        finally:
            await self._cut()
        await self._server.wait_closed()

    async def _cut(self) -> None:
        self._app.stopping = True
        for connection in list(self._state.connections):
            connection.transport.abort()
        # One turn of the loop tells each request that its client is gone; most end by themselves then.
        await asyncio.sleep(0)
        tasks = set(self._state.tasks)
        for task in tasks:
            task.cancel()
        if tasks and (await asyncio.wait(tasks, timeout=CANCEL_SECONDS))[1]:
            log.warning("a request still runs %.0f s after it was cancelled", CANCEL_SECONDS)
