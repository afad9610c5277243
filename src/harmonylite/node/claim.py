"""One process per node id: who starts asks first whether the id is in use, and from then on answers those who ask.

Invariant: the process that runs is never the one that ends. One that does not answer within `PATIENCE` is down: a
crash and a restart refuse no process. What slips through (no connection between the two at the start, a version that
does not answer) the fence of `replication.publisher` stops.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import socket
import tempfile
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import msgspec

from harmonylite.backoff import Backoff, Retry
from harmonylite.config import Settings
from harmonylite.errors import FencedError, StreamError
from harmonylite.foreign import Codec, Line, Long, Name, Seconds, Seq, Text
from harmonylite.nats.link import NatsLink
from harmonylite.nats.peers import NatsPeers
from harmonylite.nats_server.server import EmbeddedServer
from harmonylite.nats_server.server_files import ServerFile
from harmonylite.nats_server.settings import EmbeddedSettings
from harmonylite.node.wiring import link_settings, stream_settings
from harmonylite.resource import Resource
from harmonylite.wire import token

log = logging.getLogger(__name__)

PATIENCE = 2.0
"""Seconds that a process under the same id has to answer; where no client listens, NATS says so at once."""
SETTLE = 1.0
"""Two processes that claim an id within this many seconds have started together: the smaller session stays."""
GUEST_WAITS = 2.0
"""Seconds in which a new server has to meet another one of its cluster before it counts as the first."""
GUEST_ASKS = 1.0
"""Seconds for which it asks once it has met one: the others' addresses are passed on meanwhile."""


class Running(msgspec.Struct):
    """A process that has an id. ``up``: seconds since it claimed it; ``since``: the same by its own clock."""

    node: Name
    session: Line
    host: Line
    pid: Seq
    database: Long
    since: Seconds
    up: Seconds
    version: Line = ""

    def refusal(self) -> FencedError:
        """Return the error for another process that wants this id."""
        when = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(self.since))
        return FencedError(
            f"node id {self.node} is in use: process {self.pid} on host {self.host} runs it for {self.database!r}"
            f" since {when}",
            advice="give this node a node_id of its own; a copied configuration is the usual cause",
        )


CODEC = Codec("who runs under a node id", Running)
QUESTION = Text("the session that asks for a node id", r"[A-Za-z0-9_.-]{1,128}")


def process_name() -> str:
    """Return a name for this process, which no other has; those of its runs over the files begin with it."""
    return f"{time.time_ns():x}-{secrets.token_hex(4)}"


class Claim(Resource):
    """This process's right to its node id. ``session``: names the process, as no other one."""

    def __init__(self, peers: NatsPeers, node: str, session: str, db_path: Path, version: str = "") -> None:
        self._peers = peers
        self._topic = _topic(node)
        self._session = session
        self._started = time.monotonic()
        self._self = Running(
            node, session, socket.gethostname()[:255], os.getpid(), str(db_path)[:4096], time.time(), 0.0, version
        )
        self._task: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Ask, then answer from now on. Raises FencedError when another process has the id."""
        with suppress(StreamError):  # the connection went this moment: it is asked again below
            await self.check()
        self._task = asyncio.create_task(self._run(), name="claim of the node id")

    async def aclose(self) -> None:
        """Give the id up."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def ended(self) -> None:
        """Wait until the claim ends; raises what it ended with: FencedError for a process that started together."""
        if self._task is not None:
            await asyncio.wait({self._task})
            if not self._task.cancelled():
                self._task.result()

    async def check(self) -> None:
        """Raise FencedError when another process has the id; StreamError when no node can be asked."""
        for other in await self._others():
            raise other.refusal()

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._peers.serve(self._topic, QUESTION.decode, self._answer), name="answer for the id")
            group.create_task(self._settle(), name="settle the node id")

    async def _settle(self) -> None:
        """Ask once more now that both would answer: two that start together both got no answer before."""
        retry, pause = Retry(log, "asking who has the node id", Backoff(first=SETTLE, most=10 * SETTLE)), SETTLE
        while True:
            await asyncio.sleep(pause)
            try:
                others = await self._others()
            except StreamError as error:
                pause = retry.failed(error, time.monotonic())
                continue
            for other in others:
                if self._yields_to(other):
                    raise other.refusal()
            log.debug("settled node id %(node)s: no other process has it", {"node": self._self.node})
            return

    def _yields_to(self, other: Running) -> bool:
        ahead = other.up - self._up
        return ahead > SETTLE or (ahead >= -SETTLE and other.session < self._session)

    async def _others(self) -> list[Running]:
        def found(answers: list[Running]) -> bool:
            return any(answer.session != self._session for answer in answers)

        answered = await self._peers.ask(
            self._topic, QUESTION.encode(self._session), CODEC.decode, seconds=PATIENCE, enough=found
        )
        return [answer for answer in answered.answers if answer.session != self._session]

    async def _answer(self, session: str) -> bytes | None:
        if session == self._session:
            return None
        return CODEC.encode(msgspec.structs.replace(self._self, up=self._up))

    @property
    def _up(self) -> float:
        return time.monotonic() - self._started


async def runs(peers: NatsPeers, node: str, *, seconds: float = PATIENCE) -> bool:
    """Return whether a process answers under a node id within ``seconds``; at once where NATS knows of none.

    Raises StreamError.
    """
    answered = await peers.ask(_topic(node), QUESTION.encode("-"), CODEC.decode, seconds=seconds, expect=1)
    return bool(answered.answers or answered.unread)


def _topic(node: str) -> str:
    return f"node-{node}"


async def refuse_twin(settings: Settings, embedded: EmbeddedSettings, node: str, session: str) -> None:
    """Look into the cluster before this node's server joins it for the first time here; raises FencedError.

    Two servers of one name vote for one another's streams, so a guest without JetStream, under a name of its own, goes
    first. It is not needed where the server was in the cluster before, nor done where a file of the user's decides what
    a server is.
    """
    place = ServerFile.read(embedded.folder / (embedded.server or token(node)))
    known = place is not None and place.database == embedded.database
    if known or not embedded.cluster_peers or embedded.server_config is not None:
        return
    with tempfile.TemporaryDirectory(prefix="harmonylite-guest-") as folder:
        name = f"{token(node)}-guest-{secrets.token_hex(4)}"
        guest = replace(embedded, folder=Path(folder), server=name, leaf_addr="", leaf_servers=(), guest=True)
        with suppress(StreamError):
            async with (
                EmbeddedServer(guest) as server,
                NatsLink(server.link_settings(link_settings(settings, node))) as link,
            ):
                peers = NatsPeers(link, stream_settings(settings).subject_prefix)
                await _ask_around(link, Claim(peers, node, session, settings.db_path))


async def _ask_around(link: NatsLink, claim: Claim) -> None:
    end = time.monotonic() + GUEST_WAITS
    while link.now().servers < 2:
        if time.monotonic() > end:
            return
        await asyncio.sleep(0.02)
    end = time.monotonic() + GUEST_ASKS
    while time.monotonic() < end:
        await claim.check()
        await asyncio.sleep(0.1)
