"""Who may send requests: the names that a server answers for, and, for the control API, holders of its token.

Invariant: nothing behind a guard runs, and no body is read, before host, origin and token are right. A page in a
browser can send requests to 127.0.0.1, also under a name of its own (DNS rebinding); its Host or Origin gives it away.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable, Collection

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from harmonylite.web.address import LOOPBACK

_HOST = re.compile(r"(?:\[(?P<v6>[0-9a-f:.]+)\]|(?P<name>[^\s:/@\[\]]+))(?::[0-9]*)?")


class KnownHosts:
    """Lets a request through to ``app`` when its Host is a name in ``names`` or of loopback, at any port, or absent.

    ``key``: the configuration key that adds names. No browser leaves Host out; old health checks (HTTP/1.0) do.
    """

    def __init__(self, app: ASGIApp, names: Collection[str], *, key: str) -> None:
        self._app = app
        self._names = {*LOOPBACK, *(name.lower() for name in names if name)}
        self._key = key

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 421, or pass the request on."""
        await (self._refusal(Headers(scope=scope).get("host")) or self._app)(scope, receive, send)

    def _refusal(self, host: str | None) -> JSONResponse | None:
        if host is None or _name(host) in self._names:
            return None
        error = f"this server does not answer for the host {host!r}; if that is its name, add the name to {self._key}"
        return JSONResponse({"error": error}, 421)


def _name(host: str) -> str:
    """Return the name in a Host header in lower case, without port and brackets; "" when it is malformed."""
    found = _HOST.fullmatch(host.lower())
    return (found["v6"] or found["name"]) if found else ""


class Auth:
    """Lets a request through to ``app`` when it names this server and carries ``token``.

    ``port``: gives the server's port, which is known only once it listens.
    """

    def __init__(self, app: ASGIApp, *, token: str, port: Callable[[], int]) -> None:
        self._app = app
        self._bearer = f"Bearer {token}".encode()
        self._port = port

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 403 or 401, or pass the request on."""
        refusal = self._refusal(Headers(scope=scope))
        await (refusal or self._app)(scope, receive, send)

    def _refusal(self, headers: Headers) -> JSONResponse | None:
        hosts = {f"{name}:{self._port()}" for name in ("127.0.0.1", "localhost")}
        origin = headers.get("origin")
        if headers.get("host", "").lower() not in hosts:
            return JSONResponse({"error": "wrong Host header: the control API answers on 127.0.0.1 only"}, 403)
        if origin is not None and origin.lower() not in {f"http://{host}" for host in hosts}:
            return JSONResponse({"error": "wrong Origin header: the control API is not for web pages"}, 403)
        if not hmac.compare_digest(headers.get("authorization", "").encode(), self._bearer):
            return JSONResponse(
                {"error": "wrong or missing token: take it from control.json"}, 401, {"www-authenticate": "Bearer"}
            )
        return None
