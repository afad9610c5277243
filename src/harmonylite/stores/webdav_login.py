"""Log in to a WebDAV server the way that it asks for: digest where it offers that, else basic.

Invariant: over http:// the password itself is not sent before the server has had a chance to ask for a digest of it.
"""

from __future__ import annotations

from collections.abc import Generator

import httpx

UNAUTHORIZED = 401

Flow = Generator[httpx.Request, httpx.Response, None]


class Login(httpx.Auth):
    """The login of one client. ``plainly``: send it with the first request already, which saves a question.

    A request whose body is read from a file can't be sent twice, so the way must be known before: the store asks for
    its folder first.
    """

    def __init__(self, name: str, secret: str, *, plainly: bool) -> None:
        self._basic = httpx.BasicAuth(name, secret)
        self._digest = httpx.DigestAuth(name, secret)
        self._way: httpx.Auth | None = self._basic if plainly else None

    def auth_flow(self, request: httpx.Request) -> Flow:
        """Send ``request``, once more where the answer asks for another login; see `httpx.Auth`."""
        if self._way is self._digest:
            yield from self._digest.auth_flow(request)
            return
        if self._way is not None:
            yield from self._with_basic(request)
            return
        response = yield request
        yield from self._asked(request, response)

    def _with_basic(self, request: httpx.Request) -> Flow:
        response = yield next(self._basic.auth_flow(request))
        if _offers(response, "digest"):
            del request.headers["Authorization"]
            yield from self._asked(request, response)

    def _asked(self, request: httpx.Request, response: httpx.Response) -> Flow:
        if _offers(response, "digest"):
            self._way = self._digest
            flow = self._digest.auth_flow(request)
            next(flow)  # what it would send first was sent
            try:
                yield flow.send(response)
            except StopIteration:
                return
        else:
            self._way = self._basic
            if response.status_code == UNAUTHORIZED:
                yield next(self._basic.auth_flow(request))


def _offers(response: httpx.Response, scheme: str) -> bool:
    asked = response.headers.get_list("www-authenticate")
    return response.status_code == UNAUTHORIZED and any(each.lower().startswith(f"{scheme} ") for each in asked)
