"""Who may use the control API: whoever can read the token, and no web page.

Invariant: nothing behind the guard runs, and no body is read, before host, origin and token are right. A page in a
browser can send requests to 127.0.0.1, also under a name of its own (DNS rebinding); its Host or Origin gives it away.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send


class Guard:
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
