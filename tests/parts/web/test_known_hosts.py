"""Under which names health, metrics and page answer: a web page must not reach them under a name of its own."""

from __future__ import annotations

import asyncio
import socket
from contextlib import AsyncExitStack

import pytest

from harmonylite.web.endpoints import HealthEndpoint, MetricsEndpoint, http_servers
from harmonylite.web.server import HttpServer
from tests.parts.web.fix_http import fetch, running_status
from tests.parts.web.test_server import hello

PATHS = ("/health", "/livez", "/readyz", "/", "/status.json", "/nothing")

FOREIGN = (
    "evil.example",
    "evil.example:8090",
    "localhost.evil.example",
    "127.0.0.1.evil.example",
    "192.0.2.1",
    "::1",
    "",
    "[",
    "[::1",
    "localhost@evil.example",
    "evil@localhost",
    "127.0.0.1:80:90",
    "2130706433",
)

KNOWN = ("localhost", "LocalHost:1", "127.0.0.1", "127.0.0.1:9", "[::1]", "[::1]:8090")


async def codes(bind: str, host: str, *allowed: str) -> dict[str, int]:
    """Return what a server of health and one of metrics answer on each of their paths."""
    sites = http_servers(
        running_status(), health=HealthEndpoint(bind, hosts=allowed), metrics=MetricsEndpoint(bind, hosts=allowed)
    )
    async with AsyncExitStack() as stack:
        health, metrics = [await stack.enter_async_context(site) for site in sites]
        asked = [(health, path) for path in PATHS] + [(metrics, "/metrics")]
        return {path: (await fetch(site.port, path, headers={"Host": host})).code for site, path in asked}


@pytest.mark.parametrize("host", FOREIGN)
async def test_on_loopback_no_path_answers_to_a_foreign_name(host: str) -> None:
    assert set((await codes("127.0.0.1:0", host)).values()) <= {400, 421}


@pytest.mark.parametrize("host", KNOWN)
async def test_on_loopback_this_machines_own_names_are_known_at_any_port(host: str) -> None:
    found = await codes("127.0.0.1:0", host)
    assert found.pop("/nothing") == 404
    assert set(found.values()) == {200}


async def test_the_refusal_says_which_key_adds_the_name() -> None:
    for site in http_servers(
        running_status(), health=HealthEndpoint("localhost:0"), metrics=MetricsEndpoint("127.0.0.1:0")
    ):
        async with site:
            reply = await fetch(site.port, "/livez", headers={"Host": "app.example:80"})
        assert reply.code == 421
        assert site.key.partition(".")[0] + ".allowed_hosts" in reply.json["error"]
        assert "'app.example:80'" in reply.json["error"]


async def test_names_that_are_configured_are_known_too() -> None:
    assert (await codes("127.0.0.1:0", "App.Example:443", "app.example"))["/livez"] == 200
    assert (await codes("127.0.0.1:0", "other.example", "app.example"))["/livez"] == 421


async def test_a_shared_server_answers_for_the_names_of_both_sections() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        bind = f"127.0.0.1:{free.getsockname()[1]}"
    health, metrics = HealthEndpoint(bind, hosts=("a.example",)), MetricsEndpoint(bind, hosts=("b.example",))
    (site,) = http_servers(running_status(), health=health, metrics=metrics)
    async with site:
        for host, code in (("a.example", 200), ("b.example", 200), ("c.example", 421)):
            assert (await fetch(site.port, "/metrics", headers={"Host": host})).code == code


async def test_a_server_that_others_reach_answers_for_every_name_unless_names_are_configured() -> None:
    assert (await codes("0.0.0.0:0", "evil.example"))["/livez"] == 200
    assert (await codes("0.0.0.0:0", "evil.example", "app.example"))["/livez"] == 421
    assert (await codes("0.0.0.0:0", "app.example", "app.example"))["/livez"] == 200


async def test_the_name_that_it_was_bound_by_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    server = HttpServer(hello, "Node-1.internal:0", key="health_check.bind", hosts=())
    async with server:
        monkeypatch.undo()
        assert (await fetch(server.port, "/", headers={"Host": "node-1.internal"})).code == 200
        assert (await fetch(server.port, "/", headers={"Host": "node-2.internal"})).code == 421


async def test_a_health_check_without_host_is_answered() -> None:
    (site,) = http_servers(running_status(), health=HealthEndpoint("127.0.0.1:0"))
    async with site:
        reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
        writer.write(b"GET /livez HTTP/1.0\r\n\r\n")
        assert b" 200 " in await reader.readline()
        writer.close()
