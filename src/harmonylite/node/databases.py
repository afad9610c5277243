"""The nodes of several databases in one process: one connection to NATS, one server for pages and metrics, a node for
each.

Invariant: a database whose node fails is shown as failed and restarted after a growing pause, without effect on the
others. Only the shared connection to NATS ends the process.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field, replace

from harmonylite.backoff import Backoff
from harmonylite.config import Settings
from harmonylite.errors import leaves
from harmonylite.identity import identify
from harmonylite.logs import LogTail, bind
from harmonylite.nats.link import NatsLink
from harmonylite.node.claim import process_name
from harmonylite.node.exit import ended_by
from harmonylite.node.line import Line
from harmonylite.node.node import NodeRuntime, Shared
from harmonylite.node.page import PageParts, page_source
from harmonylite.node.wait_log import WaitLog
from harmonylite.node.wiring import health_endpoint, metrics_endpoint, page_address
from harmonylite.status import NodeStatus
from harmonylite.version import __version__
from harmonylite.web.databases import Site, databases_servers, page_path
from harmonylite.web.endpoints import HEALTH_KEY
from harmonylite.web.server import HttpServer

log = logging.getLogger(__name__)

PART = "node"
FIRST_PAUSE, LONGEST_PAUSE, CALM = 1.0, 60.0, 120.0
"""Seconds until a node that failed is started again: after the first failure, at most, and as after a first one once it
ran for so long.
"""


LOST_SECONDS = 10.0
"""How long the nodes may take to end once NATS is lost for good."""


@dataclass(slots=True)
class ProcessStatus:
    """What systemd is notified of: the worst of the databases. ``stopping``: the process was asked to end."""

    databases: dict[str, NodeStatus]
    stopping: bool = False

    @property
    def cdc_installed(self) -> bool:
        """True once every database has its triggers, or has failed: systemd doesn't wait for that one."""
        return all(each.cdc_installed or _failed(each) for each in self.databases.values())

    @property
    def caught_up(self) -> bool:
        """True when every database is caught up."""
        return all(each.caught_up for each in self.databases.values())

    @property
    def comes_back(self) -> bool:
        """True while one of them is an older file."""
        return any(each.comes_back and not each.caught_up for each in self.databases.values())

    @property
    def waits(self) -> list[str]:
        """What the databases wait for, each with its name."""
        return [f"{name}: {why}" for name, each in self.databases.items() for why in each.waits]

    @property
    def pending_rows(self) -> int:
        """Rows that are pending in all of them."""
        return sum(each.pending_rows for each in self.databases.values())


def _failed(status: NodeStatus) -> bool:
    return PART in status.parts and status.parts[PART].state == "failed"


@dataclass(slots=True)
class _Database:
    """One database. ``runtime``: the node that runs now, None between two."""

    settings: Settings
    status: NodeStatus
    runtime: NodeRuntime | None = None
    backoff: Backoff = field(default_factory=lambda: Backoff(first=FIRST_PAUSE, most=LONGEST_PAUSE, calm=CALM))


class Databases:
    """`run` it once; `stop` ends it. ``settings``: of each database, with a name; ``tail``: the log's last lines."""

    def __init__(self, settings: Sequence[Settings], tail: LogTail | None = None) -> None:
        self._tail = tail or LogTail()
        self._databases = [
            _Database(each, NodeStatus(version=__version__, db_path=str(each.db_path))) for each in settings
        ]
        self.status_object = ProcessStatus({each.settings.name: each.status for each in self._databases})
        self.site = Site({each.settings.name: each.status for each in self._databases})
        self._stopping = asyncio.Event()
        self._line: Line | None = None
        self._renewing: asyncio.Task[None] | None = None
        self._page = ""
        self.servers: Sequence[HttpServer] = ()

    def stop(self) -> None:
        """Drain and end all of them."""
        self.status_object.stopping = True
        self._stopping.set()
        for each in self._databases:
            if each.runtime is not None:
                each.runtime.stop()

    def renew(self) -> None:
        """Read certificates and credentials from their files again."""
        if self._line is not None and (self._renewing is None or self._renewing.done()):
            self._renewing = asyncio.create_task(self._line.renew(), name="renew the connection to NATS")

    async def run(self) -> None:
        """Run until `stop`. Raises HarmonyLiteError when the way to NATS is lost for good."""
        node = self._name_all()
        async with AsyncExitStack() as stack:
            await self._listen(stack)
            status = NodeStatus(node_id=node, version=__version__)
            line = self._line = Line(self._databases[0].settings, node, process_name(), status)
            stack.push_async_callback(line.aclose)
            opening = asyncio.create_task(line.open(), name="open the way to NATS")
            narrator = asyncio.create_task(WaitLog(status).run(), name="wait log")

            async def connected() -> NatsLink:
                await asyncio.shield(opening)
                return line.link

            nodes = [
                asyncio.create_task(self._keep(each, line, connected), name=f"database {each.settings.name}")
                for each in self._databases
            ]
            lost = asyncio.create_task(_lost(connected), name="the way to NATS")
            ended = asyncio.create_task(_all_ended(nodes), name="all databases")
            try:
                await asyncio.wait({lost, ended}, return_when=asyncio.FIRST_COMPLETED)
                if lost.done() and not self._stopping.is_set():
                    self._stopping.set()  # each node ends by the same error, and is not to be started again
                    await asyncio.wait(nodes, timeout=LOST_SECONDS)
                    lost.result()
            finally:
                # what the nodes opened they close over a link that is only ended after them
                for tasks in ({*nodes}, {narrator, lost, ended, opening}):
                    for task in tasks:
                        task.cancel()
                    await asyncio.wait(tasks)

    def _name_all(self) -> str:
        """Give all databases one node id: the configured one, or that of the first."""
        first = self._databases[0].settings
        identity = identify(first.db_path, first.node_id)
        if identity.note:
            log.warning("%s", identity.note)
        node = identity.node_id
        for each in self._databases:
            was = each.settings
            each.settings = replace(was, node_id=node).named(was.name, was.beside)
        return node

    async def _listen(self, stack: AsyncExitStack) -> None:
        settings = self._databases[0].settings
        health, metrics = health_endpoint(settings), metrics_endpoint(settings)
        self.servers = databases_servers(self.site, health=health, metrics=metrics)
        for server in self.servers:
            await stack.enter_async_context(server)
            log.info("%(setting)s: listening at %(url)s", {"setting": server.key, "url": server.url})
            if server.key == HEALTH_KEY and settings.health_check.detailed:
                self._page = server.url
                address = page_address(settings, server, socket.gethostname()[:255]).rstrip("/")
                for name, status in self.site.statuses.items():
                    status.page = f"{address}{page_path(name)}"

    async def _show(self, stack: AsyncExitStack, settings: Settings, status: NodeStatus, parts: PageParts) -> str:
        """Put the page of a database that runs now into its place."""
        health, name = health_endpoint(settings), settings.name
        if health is None:
            return ""
        source = page_source(settings, status, parts, self.site.listed)
        self.site.show(name, health, source)
        taking = asyncio.create_task(source.hour.run(), name="last hour")
        stack.callback(taking.cancel)
        return f"{self._page}{page_path(name)}" if self._page else ""

    async def _keep(self, database: _Database, line: Line, connected: Callable[[], Awaitable[NatsLink]]) -> None:
        """Run the node of ``database``, again and again where it fails, until the process stops."""
        bind(database=database.settings.name)
        status = database.status
        while not self._stopping.is_set():
            status.begin()
            status.share(line.status, line.parts)
            runtime = NodeRuntime(database.settings, self._tail, status=status, shared=Shared(connected, self._show))
            database.runtime = runtime
            try:
                await runtime.run()
            except Exception as error:  # noqa: BLE001  # the database's edge: whatever it is, it is shown and logged
                if not line.given_up:  # that is logged once, for the process
                    ended_by(error)
                status.part(PART).failed("; ".join(dict.fromkeys(str(each) for each in leaves(error))))
            finally:
                database.runtime = None
            with suppress(TimeoutError):
                async with asyncio.timeout(database.backoff.failed(time.monotonic())):
                    await self._stopping.wait()


async def _all_ended(nodes: Sequence[asyncio.Task[None]]) -> None:
    await asyncio.wait(nodes)
    for each in nodes:
        each.result()


async def _lost(connected: Callable[[], Awaitable[NatsLink]]) -> None:
    await (await connected()).lost()
