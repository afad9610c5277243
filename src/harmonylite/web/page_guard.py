"""Access control of the page.

Invariant: nothing is done without the token, wherever the request comes from, and nothing by a page of another site:
the token is in a header that no browser sends by itself, and the Origin must be this server's. Values of rows go to
this machine only, unless the request has the token.
"""

from __future__ import annotations

import hmac
import ipaddress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from harmonylite.web.address import LOOPBACK, is_loopback

if TYPE_CHECKING:
    from starlette.requests import Request

Need = Literal["state", "values", "act"]
"""What a path gives: the node's state, as health has it; values of rows and lines of the log; or it does something."""

FORWARDED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via")
"""Headers that a proxy adds: the one who asks is elsewhere then."""

ADVICE = "set [page] token in this node's configuration"


@dataclass(frozen=True, slots=True)
class PageGuard:
    """``token``: the secret, "" = there is none. ``open``: this machine reads everything without it."""

    token: str = ""
    open: bool = True

    def refusal(self, request: Request, need: Need) -> tuple[int, str] | None:
        """Return status and reason why ``request`` does not get what it ``need``s, None where it does."""
        if need == "act":
            if not self.token:
                return 403, f"nothing can be done from this page: {ADVICE}"
            if not _same_origin(request):
                return 403, "the request comes from a page of another site"
        if self._has_token(request):
            return None
        if request.headers.get("authorization"):
            return 401, "the token is not right"
        if need == "act":
            return 401, "the token is needed: it is [page] token of this node's configuration"
        if self.open and from_here(request):
            return None
        if need == "state" and not self.token:
            return None
        if not self.token:
            return 403, f"values are shown on the node's own machine only; to see them from elsewhere, {ADVICE}"
        return 401, "the token is needed: it is [page] token of this node's configuration"

    def _has_token(self, request: Request) -> bool:
        given = request.headers.get("authorization", "")
        return bool(self.token) and hmac.compare_digest(given.encode(), f"Bearer {self.token}".encode())


def from_here(request: Request) -> bool:
    """Return whether a request comes from this machine, and not through a proxy that passes others' on."""
    host = request.headers.get("host", "").lower()
    name = host.rpartition(":")[0] if not host.endswith("]") and ":" in host else host
    server = request.scope.get("server") or ("", 0)
    client = request.client.host if request.client else ""
    return (
        _local(str(server[0]))
        and _local(client)
        and name.strip("[]") in LOOPBACK
        and request.scope.get("http_version") != "1.0"  # proxies speak it by default, browsers never do
        and not any(header in request.headers for header in FORWARDED)
    )


def _local(address: str) -> bool:
    try:
        mapped = getattr(ipaddress.ip_address(address), "ipv4_mapped", None)
    except ValueError:
        return False
    return is_loopback(str(mapped or address))


def _same_origin(request: Request) -> bool:
    """Return whether no other site's page sent a request (WHATWG Fetch, 3.2: each POST of a browser has an Origin)."""
    origin, host = request.headers.get("origin"), request.headers.get("host", "")
    if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return False
    return origin is None or origin.lower() in (f"http://{host.lower()}", f"https://{host.lower()}")
