"""The link to NATS: one live connection at a time, created again when it is lost, and its true state in the status.

Invariant: `now` returns a connection that is not known to be lost, or raises; nothing waits for one unknowingly.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from harmonylite.backoff import Backoff, Retry
from harmonylite.errors import ConfigError, ConnectError, ReconnectsSpentError, StreamError
from harmonylite.nats.connection import AuthError, Connection
from harmonylite.nats.credentials import connect_options
from harmonylite.nats.names import host_port, redact, split_address
from harmonylite.nats.probes import accepts
from harmonylite.nats.settings import LinkSettings
from harmonylite.resource import Resource
from harmonylite.status import NATS, NodeStatus

log = logging.getLogger(__name__)

PART = NATS


class NatsLink(Resource):
    """Keeps a connection to one of several NATS servers.

    ``urls``: asked before each round instead of ``settings.urls`` when given (the embedded server's port may change).
    ``behind``: the status's part whose trouble explains a lost connection.
    """

    def __init__(
        self,
        settings: LinkSettings,
        status: NodeStatus | None = None,
        *,
        urls: Callable[[], Sequence[str]] | None = None,
        behind: str = "",
    ) -> None:
        self.settings = settings
        self._status = status or NodeStatus()
        self._part = self._status.part(PART)
        if behind:
            self._status.behind[PART] = behind
        self._urls = urls or (lambda: settings.urls)
        self._discovered: list[str] = []
        self._connection: Connection | None = None
        self._count = 0
        self._up = asyncio.Event()
        self._closed = False
        self._repository: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Connect, trying each server up to ``connect_retries`` rounds; raises ConnectError, ConfigError.

        Refused credentials and too old servers end the tries at once. Cancelling leaves nothing open.
        """
        self._check_settings()
        self._take(await self._rounds(first=True))
        self._repository = asyncio.create_task(self._keep(), name="nats link")

    async def aclose(self) -> None:
        """Close the connection; anyone who waits for one gets StreamError."""
        self._closed = True
        if self._repository is not None:
            while not self._repository.done():
                # More than once, for a cancellation that meets a failing attempt in the same moment may get lost.
                self._repository.cancel()
                await asyncio.wait([self._repository], timeout=1)
        connection, self._connection = self._connection, None
        self._up.set()
        self._status.nats_connected = False
        self._part.set("stopped")
        if connection is not None:
            await connection.aclose()

    @property
    def connected(self) -> bool:
        """True while the connection is not known to be lost."""
        return self._connection is not None and not self._connection.over.is_set()

    @property
    def count(self) -> int:
        """How many connections there were until now: another number is another connection."""
        return self._count

    @property
    def closed(self) -> bool:
        """True once `aclose` was called."""
        return self._closed

    @property
    def given_up(self) -> bool:
        """True once the retries are spent: there will be no connection any more."""
        return self._repository is not None and self._repository.done() and not self._closed

    @property
    def max_payload(self) -> int:
        """Bytes that the server takes in one message, headers included; raises StreamError when not connected."""
        return self.now().max_payload

    @property
    def servers(self) -> int:
        """How many servers of the cluster are known: none too few, where one has several addresses too many."""
        announced = self._connection.servers if self._connection is not None else 1
        return max(announced, 1 + int(self._status.server.get("cluster_peers", 0)))

    def surroundings(self) -> str:
        """Return which server the link leads to and which others that one sees, to explain a missing quorum."""
        if self._connection is None:
            return "not connected to NATS"
        return self._status.servers or self._connection.surroundings()

    async def missing(self) -> list[str]:
        """Return ``host:port`` of the configured servers that take no connection now."""
        others = [url for url in self._urls() if self._connection is None or host_port(url) != self._connection.address]
        places = [(url, *split_address(url, 4222)) for url in others]
        there = await asyncio.gather(*(accepts(host, port) for _, host, port in places))
        return [host_port(url) for (url, _, _), here in zip(places, there, strict=True) if not here]

    def now(self) -> Connection:
        """Return the live connection; raises StreamError when there is none."""
        connection = self._connection
        if connection is None or connection.over.is_set():
            reason = "the link is closed" if self._closed else self._part.reason or "connecting"
            raise StreamError(f"not connected to NATS: {reason}")
        return connection

    async def connection(self) -> Connection:
        """Return the live connection, waiting as long as it takes; raises StreamError once the link is closed."""
        while not self.connected:
            if self._closed:
                raise StreamError("not connected to NATS: the link is closed")
            if self._repository is not None and self.given_up:
                self._repository.result()
            self._up.clear()
            await self._up.wait()
        return self.now()

    async def renew(self) -> None:
        """Connect with the current credentials and certificates, then close the old connection.

        Raises ConfigError, ConnectError, and keeps the old connection, if the new files don't work.
        """
        old = self._connection
        if old is None or not self.connected:
            return  # a connection is on its way, and reads the files by itself
        self._check_settings()
        new = await self._round()
        if self._connection is old and not old.over.is_set() and not self._closed:
            self._take(new)
            await old.aclose()
        else:
            await new.aclose()

    async def lost(self) -> None:
        """Wait until the link is given up: raises ReconnectsSpentError then; returns when the link is closed."""
        if self._repository is None:
            raise StreamError("the link to NATS is not open")
        await asyncio.wait([self._repository])
        if not self._repository.cancelled():
            self._repository.result()

    async def _keep(self) -> None:
        try:
            while self._connection is not None:
                lost = self._connection
                await lost.over.wait()
                if lost is not self._connection:
                    continue  # it was renewed
                self._status.nats_connected = False
                why = f"connection to {lost.address} lost: {lost.cause}"
                self._part.waiting(why)
                self._part.event(why, warning=True)
                await lost.aclose()
                self._take(await self._rounds(first=False))
                self._status.nats.reconnects += 1
        finally:
            self._up.set()

    def _take(self, connection: Connection) -> None:
        self._connection = connection
        self._count += 1
        self._status.nats_connected = True
        self._status.nats_server = f"nats://{connection.address}"
        self._part.ok()
        if not self.settings.stick:
            self._discovered = connection.discovered()
        version, address = connection.version, connection.address
        self._part.event("connected to NATS %(version)s at %(address)s", version=version, address=address)
        self._up.set()

    async def _rounds(self, *, first: bool) -> Connection:
        failed, start = 0, time.monotonic()
        wait = self.settings.reconnect_wait  # the pause is a setting: it doesn't grow
        retry = Retry(log, f"connecting to NATS (each {wait:g} s)", Backoff(first=wait, most=wait), logging.DEBUG)
        while True:
            try:
                return await self._round()
            except (ConnectError, ConfigError) as error:
                failed += 1
                if first and isinstance(error, (AuthError, ConfigError)):
                    raise
                spent = 0 < self.settings.connect_retries <= failed
                if spent and first:
                    raise
                if spent:
                    raise self._spent(failed, time.monotonic() - start, error) from error
                self._part.waiting(error.message)
                retry.failed(error.message, time.monotonic())
            await asyncio.sleep(wait)

    def _spent(self, failed: int, seconds: float, error: ConnectError | ConfigError) -> ReconnectsSpentError:
        lost = ReconnectsSpentError(
            f"maximum reconnects reached ({failed} in {seconds:.0f} s): {error.message}",
            advice="nothing is lost; raise connect_retries in [nats], 0 never gives up",
        )
        self._part.failed(lost.message)
        return lost

    async def _round(self) -> Connection:
        """Try every server once, in random order so that many nodes spread; raise what all of them answered."""
        known = list(self._urls())
        scheme = "tls" if any(url.startswith("tls://") for url in known) else "nats"
        urls = [*random.sample(known, len(known)), *(f"{scheme}://{server}" for server in self._discovered)]
        if not urls:
            raise ConfigError("no NATS server is named", advice="set urls in [nats]")
        refused: AuthError | None = None
        failures: list[ConnectError] = []
        for url in urls:
            connection = Connection(url, self._with_credentials(url, known))
            try:
                await connection.open()
            except ConnectError as error:
                log.debug("%s", error.message)
                failures.append(error)
                # A refusal of credentials says more than a server that is down: it is the one to be shown.
                refused = refused or (error if isinstance(error, AuthError) else None)
            else:
                return connection
        if refused is not None or len(failures) == 1:
            raise refused or failures[0]
        # sorted: the order of the tries is random, and a wait that stays the same is one wait
        raise ConnectError("; ".join(sorted({each.message for each in failures})), advice=failures[-1].advice)

    def _with_credentials(self, url: str, known: Sequence[str]) -> LinkSettings:
        """Servers that the cluster announced come without credentials: they get those of the first configured URL."""
        if url in known or not known:
            return self.settings
        options = connect_options(known[0], replace(self.settings, seed_file=None, creds_file=None))
        given = {key: options[key] for key in ("user", "password", "token") if key in options}
        return replace(self.settings, **given)

    def _check_settings(self) -> None:
        for url in self._urls():
            if "://" in url and not url.startswith(("nats://", "tls://")):
                raise ConfigError(f"NATS address {redact(url)!r}: only nats:// and tls:// are known")
            split_address(url, 4222)
            connect_options(url, self.settings)
