"""uvicorn's HTTP/1.1 protocol on a socket of ours, without uvicorn's `Server`.

`uvicorn.Server` takes over signals and wakes up every 0.1 s for as long as it runs, only to refresh a date header and
to look at a flag. Here nothing runs between requests: idle costs nothing.

Invariant: after `stop` no connection and no request of this listener is left. A connection that waits for its client
(for a whole request, or for an answer to be taken) has a deadline that no single byte extends, and gives its place to a
newer one when all places are taken: slow clients shut no other client out. Imported by `server` on open only, so that a
node without HTTP doesn't pay for uvicorn.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import Counter
from contextlib import suppress
from email.utils import formatdate
from typing import Any

import h11
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

log = logging.getLogger(__name__)

MAX_CONNECTIONS = 200
"""Connections open at once, so that a flood can't use up the node's files. A further one takes the place of one that
waits for its client; where none does, it is closed."""

CLIENT_SECONDS = 15
"""How long a connection waits for its client: for the whole of the next request, counted from the connection's start or
the last answer, and for room to write more of an answer."""

CANCEL_SECONDS = 1.0
"""How long a cancelled request may take to end."""


class _Protocol(H11Protocol):
    """Knows since when it waits for its client, ends when that lasts, and makes room when all places are taken."""

    none_open: asyncio.Event
    _waiting: asyncio.TimerHandle | None = None
    _unread = False
    """True while the client leaves so much of an answer that no more is written."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self.none_open.clear()
        if len(self.connections) > MAX_CONNECTIONS:
            gives_way = self._giving_way() or self
            gives_way._wait_no_more()  # the next one in this turn of the loop takes another's place
            gives_way.transport.abort()
        self._wait_for_client()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._wait_no_more()
        if not self.connections:
            self.none_open.set()

    def handle_events(self) -> None:
        super().handle_events()
        self._check()

    def on_response_complete(self) -> None:
        self._wait_no_more()
        self._wait_for_client()  # also where the connection closes now: the rest of the answer has to be taken
        super().on_response_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unread = True
        self._wait_for_client()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._unread = False
        self._check()

    def _check(self) -> None:
        """Stop waiting once a request is here whole and its answer is taken; a part of either changes nothing."""
        if self.conn.their_state in (h11.DONE, h11.MUST_CLOSE, h11.CLOSED) and not self._unread:
            self._wait_no_more()

    def _wait_for_client(self) -> None:
        if self._waiting is None:
            self._waiting = self.loop.call_later(CLIENT_SECONDS, self._too_late)

    def _wait_no_more(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def _too_late(self) -> None:
        self._waiting = None
        if self.transport.get_write_buffer_size():
            self.transport.abort()  # closing would wait for the client that takes nothing
        else:
            self.transport.close()

    def _giving_way(self) -> Any:
        """Return the connection that gives way: of the address with most connections, the one that waits longest."""
        waiting = {other: since for other in self.connections if (since := _since(other)) and other is not self}
        of = Counter(_host(other) for other in self.connections)
        return min(waiting, key=lambda other: (-of[_host(other)], waiting[other]), default=None)


def _since(connection: object) -> float:
    """Return when a connection is closed unless its client does something, 0 when it doesn't wait for its client."""
    timer = connection._waiting if isinstance(connection, _Protocol) else None
    return timer.when() if timer is not None else 0.0


def _host(connection: object) -> str:
    return connection.client[0] if isinstance(connection, _Protocol) and connection.client else ""


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
            # No client is left to answer to; raising would make uvicorn log a traceback for a plain shutdown.
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
            timeout_keep_alive=CLIENT_SECONDS,
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
        # In one turn of the loop each request learns that its client is gone; most end by themselves then.
        await asyncio.sleep(0)
        tasks = set(self._state.tasks)
        for task in tasks:
            task.cancel()
        if tasks and (await asyncio.wait(tasks, timeout=CANCEL_SECONDS))[1]:
            log.warning(
                "abandoned a request that still runs %(seconds).0f s after it was cancelled",
                {"seconds": CANCEL_SECONDS},
            )
