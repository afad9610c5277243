"""The control API of a running node, for commands on the same machine.

Invariant: it listens on 127.0.0.1 only, every request carries the token of `control.json`, and the file exists exactly
while the server answers. Errors are ``{"error": text}``; no traceback leaves the process.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harmonylite.backoff import Backoff
from harmonylite.errors import DiskFullError, HarmonyLiteError
from harmonylite.resource import Resource
from harmonylite.status import Part
from harmonylite.web.actions import Actions
from harmonylite.web.control_file import ControlFile, remove_control_file, write_control_file
from harmonylite.web.server import HttpServer

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from harmonylite.web.feed_routes import FeedActions
    from harmonylite.web.history_routes import HistoryActions
    from harmonylite.web.schema_routes import SchemaActions

AGAIN, MOST = 0.5, 10.0
"""First and longest pause in seconds until the file is written again where the disk had no room for it."""
CLOSE_GRACE = 2.0
"""Seconds that a running command gets to end when the node stops."""


class ControlServer(Resource):
    """Serves what it is given; writes ``control.json`` into ``folder``, the private one.

    ``part``: says that there is no room for it; the node starts all the same, and commands find it later.
    """

    def __init__(
        self,
        actions: Actions,
        folder: Path,
        past: HistoryActions | None = None,
        feeds: FeedActions[Any] | None = None,
        schemas: SchemaActions | None = None,
        part: Part | None = None,
    ) -> None:
        self._actions = actions
        self._past = past
        self._feeds = feeds
        self._schemas = schemas
        self._folder = folder
        self._part = part or Part("control")
        self._writing: asyncio.Task[None] | None = None
        self._token = secrets.token_urlsafe(32)
        self._server = HttpServer(self._app, "127.0.0.1:0", key="control", grace=CLOSE_GRACE)

    @property
    def port(self) -> int:
        """The port that the system chose, once open."""
        return self._server.port

    async def open(self) -> None:
        """Serve, then write the file: anyone who finds it finds an open port.

        :raises HarmonyLiteError: the folder can't be written.
        """
        await self._server.open()
        try:
            await self._write()
        except DiskFullError:
            self._writing = asyncio.create_task(self._write_later(), name="write control.json")
        except BaseException:
            await self._server.aclose()
            raise

    async def aclose(self) -> None:
        """Remove the file, then stop serving. Safe to call twice."""
        if self._writing is not None:
            self._writing.cancel()
            await asyncio.wait({self._writing})
        remove_control_file(self._folder, self._token)
        await self._server.aclose()

    async def _write(self) -> None:
        found = ControlFile(port=self.port, token=self._token, pid=os.getpid())
        try:
            await asyncio.to_thread(write_control_file, self._folder, found)
        except HarmonyLiteError as error:
            self._part.waiting(f"{error}; commands find this node then")
            raise
        self._part.ok()

    async def _write_later(self) -> None:
        backoff = Backoff(first=AGAIN, most=MOST)
        while True:
            await asyncio.sleep(backoff.failed(time.monotonic()))
            with suppress(HarmonyLiteError):
                return await self._write()

    def _app(self) -> ASGIApp:
        from starlette.applications import Starlette  # here, not above: only an open server pays for starlette

        from harmonylite.web.auth import Auth
        from harmonylite.web.control_routes import control_routes, not_found
        from harmonylite.web.feed_routes import feed_routes
        from harmonylite.web.history_routes import history_routes
        from harmonylite.web.schema_routes import schema_routes

        routes = control_routes(self._actions) + (history_routes(self._past) if self._past is not None else [])
        routes += feed_routes(self._feeds) if self._feeds is not None else []
        routes += schema_routes(self._schemas) if self._schemas is not None else []
        app = Starlette(routes=routes, exception_handlers={404: not_found, 405: not_found})
        return Auth(app, token=self._token, port=lambda: self.port)
