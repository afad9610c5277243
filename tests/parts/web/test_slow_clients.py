"""Clients that are slow, many or silent: the server closes them in time, and others get in meanwhile."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from harmonylite.web import listener
from harmonylite.web.control import ControlServer
from harmonylite.web.endpoints import HealthEndpoint, MetricsEndpoint, http_servers
from harmonylite.web.server import HttpServer
from tests.parts.fix_nats import PATIENCE
from tests.parts.web.fix_http import fetch, running_status
from tests.parts.web.test_control import FakeNode

if TYPE_CHECKING:
    from pathlib import Path

    from starlette.requests import Request

PIECES = {
    "nothing": b"",
    "a part of the request line": b"GET /li",
    "half a header": b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: ",
    "a part of a body": b"POST /v1/verify HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 60000\r\n\r\n{",
}
"""What a client may leave a server with, and never send the rest of."""


async def client(port: int, sent: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(sent)
    return reader, writer


async def ended(reader: asyncio.StreamReader) -> None:
    """Return once the server has closed the connection."""
    async with asyncio.timeout(PATIENCE):
        try:
            await reader.read()
        except ConnectionError:
            return


@pytest.mark.parametrize("sent", PIECES.values(), ids=PIECES)
async def test_200_slow_clients_shut_nobody_out_of_any_server(sent: bytes, tmp_path: Path) -> None:
    status = running_status()
    sites = http_servers(status, health=HealthEndpoint("127.0.0.1:0"), metrics=MetricsEndpoint("127.0.0.1:0"))
    async with AsyncExitStack() as stack:
        ports = [(await stack.enter_async_context(site)).port for site in sites]
        ports.append((await stack.enter_async_context(ControlServer(FakeNode(), tmp_path))).port)
        for port, path, code in zip(ports, ("/livez", "/metrics", "/v1/status"), (200, 200, 401), strict=True):
            slow = [await client(port, sent) for _ in range(listener.MAX_CONNECTIONS)]
            for _ in range(3):
                assert (await fetch(port, path)).code == code
            for _, writer in slow:
                writer.close()


async def test_the_place_that_is_given_up_is_the_one_that_waits_longest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "MAX_CONNECTIONS", 2)
    (site,) = http_servers(running_status(), health=HealthEndpoint("127.0.0.1:0"))
    async with site:
        (first, first_writer), (second, second_writer) = [await client(site.port, b"GET /livez HTT") for _ in range(2)]
        assert (await fetch(site.port, "/livez")).code == 200
        await ended(first)
        second_writer.write(b"P/1.1\r\nHost: localhost\r\n\r\n")
        assert await second.readline() == b"HTTP/1.1 200 OK\r\n"
        first_writer.close()
        second_writer.close()


async def test_a_request_under_way_never_gives_its_place_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "MAX_CONNECTIONS", 2)
    entered, answer = asyncio.Semaphore(0), asyncio.Event()

    async def slow(_: Request) -> PlainTextResponse:
        entered.release()
        await answer.wait()
        return PlainTextResponse("done")

    async with HttpServer(lambda: Starlette(routes=[Route("/", slow)]), "127.0.0.1:0", key="k") as server:
        running = [asyncio.create_task(fetch(server.port, "/")) for _ in range(2)]
        for _ in running:
            await entered.acquire()
        with pytest.raises(ConnectionError):
            await fetch(server.port, "/")
        answer.set()
        assert [(await each).text for each in running] == ["done", "done"]


@pytest.mark.parametrize("sent", PIECES.values(), ids=PIECES)
@pytest.mark.parametrize("drip", [False, True], ids=["silent", "drips"])
async def test_a_request_that_does_not_come_whole_in_time_is_closed(
    sent: bytes, drip: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "CLIENT_SECONDS", 0.2)
    (site,) = http_servers(running_status(), health=HealthEndpoint("127.0.0.1:0"))
    async with site:
        reader, writer = await client(site.port, sent)
        over = asyncio.create_task(ended(reader))
        while drip and not over.done():
            writer.write(b"x" if sent else b"")
            await asyncio.wait([over], timeout=0.02)
        await over
        writer.close()


@pytest.mark.parametrize("closes", [False, True], ids=["keep-alive", "connection: close"])
@pytest.mark.parametrize("size", [200_000, 16_000_000])
async def test_a_client_that_does_not_take_its_answer_is_closed(
    size: int, closes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "CLIENT_SECONDS", 0.2)
    gone = asyncio.Event()

    async def large(_: Request) -> PlainTextResponse:
        return PlainTextResponse(b"x" * size)

    class Watched(listener._Protocol):
        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            gone.set()

    monkeypatch.setattr(listener, "_Protocol", Watched)
    async with HttpServer(lambda: Starlette(routes=[Route("/", large)]), "127.0.0.1:0", key="k") as server:
        _, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=1)
        ask = b"GET / HTTP/1.1\r\nHost: x\r\n" + (b"Connection: close\r\n" if closes else b"") + b"\r\n"
        writer.write(ask)
        async with asyncio.timeout(PATIENCE):
            await gone.wait()
        writer.close()


async def test_a_connection_that_is_kept_for_the_next_request_answers_it() -> None:
    (site,) = http_servers(running_status(), health=HealthEndpoint("127.0.0.1:0"))
    async with site:
        reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
        for _ in range(3):
            writer.write(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200")
            length = next(int(line[16:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length"))
            await reader.readexactly(length)
        writer.close()
