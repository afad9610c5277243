"""One HTTP server inside the node's event loop.

Invariant: signals stay the node's, nothing is imported or listens before `HttpServer.open`, and closing takes the
grace and not a moment longer.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection
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
        try:
            from harmonylite.web.listener import Listener  # here, not above: uvicorn costs 0.1 s and some MB

            host, port = sock.getsockname()[:2]
            listener = Listener(self._guarded(is_loopback(host)), sock)
            await listener.start()
        except BaseException:
            sock.close()
            raise
        self._bound, self._listener = Address(self._wanted.host, port), listener
        if not is_loopback(host):
            log.warning(
                "exposing %s = %s to other machines without a password; "
                "bind it to 127.0.0.1 or keep others out with a firewall",
                self.key,
                self._bound,
            )

    def _guarded(self, on_loopback: bool) -> ASGIApp:
        """Return the application, open only to known names where a web page could reach it under another one."""
        if self._hosts is None or not (on_loopback or self._hosts):
            return self._make_app()
        from harmonylite.web.auth import KnownHosts

        key = f"{self.key.partition('.')[0]}.allowed_hosts"
        return KnownHosts(self._make_app(), {self._wanted.host, *self._hosts}, key=key)

    async def aclose(self) -> None:
        """Stop serving; safe to call twice, and before `open`. Cancelling it skips the grace, nothing else."""
        listener, self._listener = self._listener, None
        if listener is not None:
            await listener.stop(self._grace)
