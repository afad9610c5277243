"""One HTTP server inside the node's event loop.

Invariant: signals stay the node's, nothing listens before `HttpServer.open`, and closing takes the grace and not a
moment longer. What answers is imported when the first connection is there, on a thread: uvicorn and starlette take
0.2 s and 5 MB, which a node without clients has no use for. The first client waits for it; the node does not.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection
from socket import socket
from typing import TYPE_CHECKING

from harmonylite.resource import Resource
from harmonylite.web.address import Address, bind_address, is_loopback, parse_address

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from harmonylite.web.listener import Listener

log = logging.getLogger(__name__)


class HttpServer(Resource):
    """Serves one ASGI application on ``bind``.

    ``app``: makes the application, called once by `open`. ``bind``: ``host:port``; port 0 lets the system choose.
    ``key``: the configuration key that ``bind`` came from, for messages. ``grace``: seconds that running requests get
    to end on close, 0 cuts them at once. ``hosts``: further names that it answers for, from the key
    ``<section>.allowed_hosts``; where it listens on loopback, and wherever names are given, it answers for no others.
    None: the application looks at that itself.

    :raises ConfigError: ``bind`` is not ``host:port``.
    """

    def __init__(
        self,
        app: Callable[[], ASGIApp],
        bind: str,
        *,
        key: str,
        grace: float = 0.5,
        hosts: Collection[str] | None = None,
    ) -> None:
        self._make_app = app
        self.key = key
        self._grace = grace
        self._hosts = hosts
        self._wanted = parse_address(bind, key=key)
        self._bound: Address | None = None
        self._listener: Listener | None = None
        self._serving: asyncio.Task[None] | None = None
        self._sock: socket | None = None

    @property
    def address(self) -> Address:
        """Where it really listens; before `open`, where it is meant to."""
        return self._bound or self._wanted

    @property
    def port(self) -> int:
        """The real port, once open."""
        return self.address.port

    @property
    def url(self) -> str:
        """``http://host:port`` as a client on this machine can use it."""
        here = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}  # noqa: S104  # compared, not bound
        return f"http://{Address(here.get(self._wanted.host, self._wanted.host), self.port)}"

    async def open(self) -> None:
        """Bind and serve. Warns when other machines can reach it: nothing here asks for a password.

        :raises ConfigError: the address can't be used. :raises HarmonyLiteError: it is taken.
        """
        sock = await asyncio.to_thread(bind_address, self._wanted, key=self.key)
        host, port = sock.getsockname()[:2]
        self._bound = Address(self._wanted.host, port)
        self._sock = sock
        self._serving = asyncio.create_task(self._serve(sock, is_loopback(host)), name=f"serve {self.key}")
        if not is_loopback(host):
            log.warning(
                "exposing %(setting)s = %(url)s to other machines without a password; bind it to 127.0.0.1 "
                "or keep others out with a firewall",
                {"setting": self.key, "url": self._bound},
            )

    async def _serve(self, sock: socket, on_loopback: bool) -> None:
        """Wait for the first connection, then serve it and all others."""
        try:
            await _readable(sock)
            self._listener = await asyncio.to_thread(self._load, sock, on_loopback)
            await self._listener.start()
        except Exception:
            self._listener = None
            sock.close()
            log.exception("%(setting)s: failed to answer at %(url)s", {"setting": self.key, "url": self._bound})

    def _load(self, sock: socket, on_loopback: bool) -> Listener:
        from harmonylite.web.listener import Listener

        return Listener(self._guarded(on_loopback), sock)

    def _guarded(self, on_loopback: bool) -> ASGIApp:
        """Return the application, open only to known names where a web page could reach it under another one."""
        if self._hosts is None or not (on_loopback or self._hosts):
            return self._make_app()
        from harmonylite.web.auth import KnownHosts

        key = f"{self.key.partition('.')[0]}.allowed_hosts"
        return KnownHosts(self._make_app(), {self._wanted.host, *self._hosts}, key=key)

    async def aclose(self) -> None:
        """Stop serving; safe to call twice, and before `open`. Cancelling it skips the grace, nothing else."""
        serving, self._serving = self._serving, None
        if serving is not None:
            serving.cancel()
            await asyncio.wait({serving})
        listener, self._listener = self._listener, None
        try:
            if listener is not None:
                await listener.stop(self._grace)
        finally:
            if self._sock is not None:
                self._sock.close()  # still this object's where no client ever asked


async def _readable(sock: socket) -> None:
    """Return once a connection waits to be accepted."""
    loop, ready = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(sock, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(sock)
