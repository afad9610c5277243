"""Public: read your writes behind a load balancer, for applications that speak WSGI (Flask, Django).

Invariant: no request waits longer than its time for the node; what can't be waited for is served from what is here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from os import PathLike
from typing import Any

from harmonylite.client import Client, HarmonyLiteError
from harmonylite.position_cookie import READING, Said, cookie, position_in, waiting

__all__ = ["WsgiReadYourWrites"]

Environ = dict[str, Any]
Headers = list[tuple[str, str]]
StartResponse = Callable[..., Any]
App = Callable[[Environ, StartResponse], Iterable[bytes]]


class WsgiReadYourWrites:
    """WSGI middleware: as `harmonylite.asgi.AsgiReadYourWrites`, with the same arguments. A wait keeps its thread."""

    def __init__(self, app: App, *, db_path: str | PathLike[str], seconds: float = 2.0) -> None:
        self._app = app
        self._client = Client(db_path)
        self._seconds = seconds
        self._said = Said()

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request."""
        if position := position_in(environ.get("HTTP_COOKIE", "")):
            self._wait(position)
        if environ["REQUEST_METHOD"] in READING:
            return self._app(environ, start_response)

        def start_with_cookie(status: str, headers: Headers, *error: Any) -> Any:
            # Called once the application's own code has run, so what the request committed is committed.
            if found := self._position():
                made = cookie(found, secure=environ.get("wsgi.url_scheme") == "https")
                headers = [*headers, *([("Set-Cookie", made)] if made else ())]
            return start_response(status, headers, *error)

        return self._app(environ, start_with_cookie)

    def _wait(self, position: str) -> None:
        with waiting(self._said):
            self._client.wait(position, seconds=self._seconds, for_start=False)

    def _position(self) -> str:
        try:
            found = self._client.position(seconds=self._seconds)
        except HarmonyLiteError as error:
            self._said.failed(error)
            return ""
        self._said.worked()
        return found
