"""A process's connection to NATS: its embedded server, if it has one, and one connection for all of its databases.

Invariant: whatever `Line.open` started is closed by `Line.aclose`, in the reverse order, also when opening failed.
"""

from __future__ import annotations

import logging
from contextlib import AsyncExitStack

from harmonylite.config import Settings
from harmonylite.errors import HarmonyLiteError, StreamError
from harmonylite.nats.link import PART, NatsLink
from harmonylite.nats.settings import LinkSettings
from harmonylite.nats_server.server import PART as EMBEDDED
from harmonylite.nats_server.server import EmbeddedServer
from harmonylite.node.claim import refuse_twin
from harmonylite.node.wiring import embedded_settings, link_settings
from harmonylite.resource import Resource
from harmonylite.status import NodeStatus

log = logging.getLogger(__name__)


class Line(Resource):
    """The way to NATS of the node ``node``, as ``settings`` have it; it shows itself in ``status``.

    ``process``: names this process. Raises ConfigError for an embedded server's folder that is unknown.
    """

    def __init__(self, settings: Settings, node: str, process: str, status: NodeStatus) -> None:
        self._settings = settings
        self._node = node
        self._process = process
        self._embedded = None if settings.nats.urls else embedded_settings(settings, node)
        self._stack = AsyncExitStack()
        self._link: NatsLink | None = None
        self._server: EmbeddedServer | None = None
        self.status = status

    @property
    def link(self) -> NatsLink:
        """The connection; raises StreamError before it is there."""
        if self._link is None:
            raise StreamError("not connected to NATS yet")
        return self._link

    @property
    def given_up(self) -> bool:
        """True once the connection is closed for good."""
        return self._link is not None and self._link.given_up

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the parts of the status that are the process's."""
        return (PART,) if self._embedded is None else (PART, EMBEDDED)

    async def open(self) -> None:
        """Start the server and connect. Raises HarmonyLiteError; FencedError where another process has the node id."""
        try:
            self._link = await self._open(link_settings(self._settings, self._node))
        except BaseException:
            await self.aclose()
            raise

    async def _open(self, base: LinkSettings) -> NatsLink:
        if self._embedded is None:
            return await self._stack.enter_async_context(NatsLink(base, self.status))
        await refuse_twin(self._settings, self._embedded, self._node, self._process)
        server = self._server = await self._stack.enter_async_context(EmbeddedServer(self._embedded, self.status))
        link = NatsLink(server.link_settings(base), self.status, urls=server.urls, behind=EMBEDDED)
        return await self._stack.enter_async_context(link)

    async def aclose(self) -> None:
        """Close the connection and end the server."""
        await self._stack.aclose()

    async def renew(self) -> None:
        """Read certificates and credentials from their files again; what fails is logged."""
        try:
            if self._server is not None:
                await self._server.reload()
            if self._link is not None:
                await self._link.renew()
            log.info("reloaded certificates and credentials for NATS")
        except (HarmonyLiteError, OSError) as error:
            log.error("kept certificates and credentials for NATS: %(error)s", {"error": error})
