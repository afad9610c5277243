"""The HTTP server over loopback: where it listens, what it costs idle, how it ends."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route

from harmonylite.errors import ConfigError, HarmonyLiteError
from harmonylite.web.address import Address, bind_address, parse_address
from harmonylite.web.server import HttpServer
from tests.parts.fix_nats import eventually
from tests.parts.web.fix_http import fetch

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request


def hello() -> Starlette:
    async def answer(_: Request) -> PlainTextResponse:
        return PlainTextResponse("hello")

    return Starlette(routes=[Route("/", answer)])


def server(bind: str = "127.0.0.1:0", grace: float = 0.5) -> HttpServer:
    return HttpServer(hello, bind, key="health_check.bind", grace=grace)


async def test_port_zero_reports_the_real_port_and_answers_there() -> None:
    async with server() as http:
        assert http.port > 0
        assert http.url == f"http://127.0.0.1:{http.port}"
        reply = await fetch(http.port, "/")
    assert (reply.code, reply.text) == (200, "hello")
    assert reply.headers["cache-control"] == "no-store"
    assert "date" in reply.headers
    assert "server" not in reply.headers


async def test_a_taken_port_is_an_error_that_names_key_and_address() -> None:
    async with server() as first:
        with pytest.raises(HarmonyLiteError, match=rf"health_check\.bind.*127\.0\.0\.1:{first.port}.*another process"):
            await server(f"127.0.0.1:{first.port}").open()


@pytest.mark.parametrize("bind", ["", "8090", "127.0.0.1", "127.0.0.1:", "localhost:http", "a:70000", "::1:80", ":-1"])
def test_a_malformed_address_is_refused_before_anything_starts(bind: str) -> None:
    with pytest.raises(ConfigError, match=r"health_check\.bind"):
        server(bind)


@pytest.mark.parametrize("bind", ["192.0.2.1:0", "no-such-host.invalid:0"])
async def test_an_address_that_is_not_ours_is_a_configuration_error(bind: str) -> None:
    with pytest.raises(ConfigError, match=r"health_check\.bind: can't listen on"):
        await server(bind).open()


def test_every_usual_form_of_an_address_is_understood() -> None:
    assert parse_address(":8090", key="k") == Address("", 8090)
    assert parse_address("[::1]:80", key="k") == Address("::1", 80)
    assert str(parse_address("[::1]:80", key="k")) == "[::1]:80"
    assert parse_address("localhost:0", key="k") == Address("localhost", 0)


@pytest.mark.parametrize("bind", ["localhost:0", "[::1]:0", ":0", "0.0.0.0:0"])
async def test_names_ipv6_and_every_interface_can_be_bound(bind: str) -> None:
    if bind.startswith("[") and not socket.has_dualstack_ipv6():
        pytest.skip("no IPv6 here")
    async with server(bind) as http:
        host = "::1" if bind.startswith("[") else "127.0.0.1"
        assert (await fetch(http.port, "/", host=host)).code == 200


def test_a_name_with_both_kinds_of_address_is_bound_at_ipv4(monkeypatch: pytest.MonkeyPatch) -> None:
    both = [
        (family, socket.SOCK_STREAM, 6, "", (host, 0))
        for family, host in ((socket.AF_INET6, "::1"), (socket.AF_INET, "127.0.0.1"))
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: both)
    with bind_address(Address("localhost", 0), key="k") as sock:
        assert sock.getsockname()[0] == "127.0.0.1"


@pytest.mark.parametrize(("bind", "warns"), [("127.0.0.1:0", False), ("localhost:0", False), ("0.0.0.0:0", True)])
async def test_only_an_address_that_others_can_reach_is_warned_of(
    bind: str, warns: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        async with server(bind):
            pass
    assert ("health_check.bind" in caplog.text) is warns


async def test_signals_stay_the_nodes_own() -> None:
    before = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]
    async with server():
        assert [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)] == before


async def test_an_open_server_schedules_nothing_while_no_one_asks() -> None:
    loop = asyncio.get_running_loop()
    async with server() as http:
        await fetch(http.port, "/")

        def rests() -> bool:
            timers = [handle for handle in loop._scheduled if not handle.cancelled()]  # type: ignore[attr-defined]
            return timers == [] and asyncio.all_tasks() == {asyncio.current_task()}

        await eventually(rests, "the end of the connection")


async def test_requests_leave_no_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        async with server() as http:
            await fetch(http.port, "/")
    assert [r for r in caplog.records if r.name.startswith("uvicorn")] == []


@pytest.mark.parametrize("stubborn", [False, True])
async def test_closing_is_fast_and_quiet_with_an_open_stream(stubborn: bool, caplog: pytest.LogCaptureFixture) -> None:
    ended = asyncio.Event()

    async def forever() -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"x\n"
                await asyncio.Event().wait()
        finally:
            ended.set()

    async def endless(_: Request) -> PlainTextResponse:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return PlainTextResponse("never")

    async def stream(_: Request) -> StreamingResponse:
        return StreamingResponse(forever())

    app = Starlette(routes=[Route("/", endless if stubborn else stream)])
    http = HttpServer(lambda: app, "127.0.0.1:0", key="k", grace=0.05)
    await http.open()
    reader, writer = await asyncio.open_connection("127.0.0.1", http.port)
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    if not stubborn:
        await reader.readuntil(b"x\n")
    else:
        await fetch(http.port, "/missing")  # by the time that it is answered, the first request runs
    async with asyncio.timeout(20):
        await http.aclose()
    assert ended.is_set()
    assert caplog.records == []
    writer.close()


async def test_a_request_that_runs_is_answered_before_the_server_is_gone() -> None:
    entered, go_on = asyncio.Event(), asyncio.Event()

    async def slow(_: Request) -> PlainTextResponse:
        entered.set()
        await go_on.wait()
        return PlainTextResponse("done")

    http = HttpServer(lambda: Starlette(routes=[Route("/", slow)]), "127.0.0.1:0", key="k", grace=10)
    await http.open()
    asked = asyncio.create_task(fetch(http.port, "/"))
    await entered.wait()
    closing = asyncio.create_task(http.aclose())
    asyncio.get_running_loop().call_soon(go_on.set)
    assert (await asked).text == "done"
    await closing
    with pytest.raises(ConnectionRefusedError):
        await fetch(http.port, "/")


async def test_a_large_answer_reaches_a_slow_reader_whole_while_the_server_closes() -> None:
    size = 16_000_000

    async def large(_: Request) -> PlainTextResponse:
        return PlainTextResponse(b"x" * size)

    http = HttpServer(lambda: Starlette(routes=[Route("/", large)]), "127.0.0.1:0", key="k", grace=20)
    await http.open()
    reader, writer = await asyncio.open_connection("127.0.0.1", http.port)
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    await reader.readuntil(b"\r\n\r\n")
    closing = asyncio.create_task(http.aclose())
    assert len(await reader.readexactly(size)) == size
    await closing
    writer.close()


async def test_idle_connections_do_not_hold_up_closing() -> None:
    http = server(grace=30)
    await http.open()
    reader, writer = await asyncio.open_connection("127.0.0.1", http.port)
    await fetch(http.port, "/")
    async with asyncio.timeout(20):
        await http.aclose()
        assert await reader.read() == b""
    writer.close()


async def test_closing_twice_or_before_opening_is_harmless() -> None:
    http = server()
    await http.aclose()
    await http.open()
    await http.aclose()
    await http.aclose()


async def test_garbage_is_answered_and_does_no_harm() -> None:
    async with server() as http:
        reader, writer = await asyncio.open_connection("127.0.0.1", http.port)
        writer.write(b"\x16\x03\x01 not http\r\n\r\n")
        assert b"400" in await reader.readline()
        writer.close()
        assert (await fetch(http.port, "/")).code == 200


def test_a_node_without_http_never_imports_the_web_stack() -> None:
    code = (
        "import sys; import harmonylite.web.endpoints, harmonylite.web.control; "
        "print([m for m in ('uvicorn', 'starlette', 'prometheus_client') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
