"""The login of a WebDAV server, on real ones: what is sent, and in which order."""

from __future__ import annotations

import httpx
import pytest

from harmonylite.stores.webdav_login import Login
from tests.parts.stores.servers import LOGIN, PASSWORD, Server


def sent(server: Server, *, plainly: bool, secret: str = PASSWORD, requests: int = 2) -> tuple[list[str], list[int]]:
    """Ask ``server`` so often with one login; return the ways of all requests that went out, and the answers' codes."""
    ways: list[str] = []

    def note(request: httpx.Request) -> None:
        ways.append(request.headers.get("authorization", "none").partition(" ")[0])

    login = Login(LOGIN, secret, plainly=plainly)
    with httpx.Client(auth=login, event_hooks={"request": [note]}) as client:
        codes = [
            client.request("PROPFIND", f"http://127.0.0.1:{server.port}/dav", headers={"depth": "0"}).status_code
            for _ in range(requests)
        ]
    return ways, codes


def test_a_server_that_wants_digests_never_hears_the_password_itself(webdav_digest: Server) -> None:
    assert sent(webdav_digest, plainly=False) == (["none", "Digest", "Digest"], [207, 207])


def test_a_server_that_wants_basic_hears_it_when_it_asked(webdav: Server) -> None:
    assert sent(webdav, plainly=False) == (["none", "Basic", "Basic"], [207, 207])


def test_over_a_safe_line_nothing_is_asked_first_and_digests_work_all_the_same(
    webdav: Server, webdav_digest: Server
) -> None:
    assert sent(webdav, plainly=True) == (["Basic", "Basic"], [207, 207])
    assert sent(webdav_digest, plainly=True) == (["Basic", "Digest", "Digest"], [207, 207])


@pytest.mark.parametrize("plainly", [False, True])
def test_a_wrong_password_is_refused_and_not_tried_for_ever(
    webdav: Server, webdav_digest: Server, plainly: bool
) -> None:
    for server in (webdav, webdav_digest):
        ways, codes = sent(server, plainly=plainly, secret="wrong")
        assert codes == [401, 401]
        assert len(ways) <= 4
