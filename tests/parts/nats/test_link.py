"""The link finds a server, loses it, finds it again, and says the truth about it at each moment."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

import pytest

from harmonylite.errors import ConfigError, ConnectError, ReconnectsSpentError, StreamError
from harmonylite.nats.link import NatsLink
from harmonylite.nats.names import redact
from harmonylite.nats.settings import LinkSettings
from harmonylite.status import NodeStatus
from tests.parts.fix_nats import PATIENCE, NatsFactory, RealNats, eventually, quick
from tests.serving import serving


@asynccontextmanager
async def pretender(info: dict[str, object]) -> AsyncIterator[str]:
    """A server that introduces itself with ``info`` and answers pings; yields its URL and what was sent to it."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served.append(writer)
        writer.write(b"INFO " + json.dumps({"max_payload": 100_000, "headers": True, **info}).encode() + b"\r\n")
        while line := await reader.readline():
            heard.append(line)
            if line.startswith(b"PING"):
                writer.write(b"PONG\r\n")
        writer.close()
        await writer.wait_closed()
        served.remove(writer)

    heard: list[bytes] = []
    served: list[asyncio.StreamWriter] = []
    async with serving(serve) as port:
        yield f"127.0.0.1:{port}"
        await eventually(lambda: not served, "the client's hanging up")
    assert not any(b"secret" in line for line in heard)


async def test_nothing_starts_before_it_is_opened(nats: RealNats, node_status: NodeStatus) -> None:
    link = NatsLink(quick(nats.url), node_status)
    assert not link.connected
    with pytest.raises(StreamError):
        link.now()
    await link.aclose()


async def test_an_open_link_tells_where_it_is_connected_and_a_closed_one_that_it_is_not(
    nats: RealNats, node_status: NodeStatus
) -> None:
    async with NatsLink(quick(nats.url), node_status) as link:
        assert (node_status.nats_connected, node_status.nats_server) == (True, nats.url)
        assert node_status.parts["nats"].state == "ok"
        waiter = asyncio.create_task(link.lost())
    assert not node_status.nats_connected
    await asyncio.wait_for(waiter, PATIENCE)
    with pytest.raises(StreamError, match="closed"):
        await link.connection()


async def test_retries_at_the_start_end_with_address_and_cause(node_status: NodeStatus) -> None:
    settings = replace(quick("nats://127.0.0.1:1"), connect_retries=3)
    with pytest.raises(
        ConnectError, match=r"NATS server not accepting connections at 127\.0\.0\.1:1: .*refused|failed"
    ):
        await NatsLink(settings, node_status).open()
    assert "127.0.0.1:1" in node_status.parts["nats"].reason


async def test_one_of_several_servers_is_enough(nats: RealNats) -> None:
    for _ in range(3):
        async with NatsLink(quick("nats://127.0.0.1:1", nats.url, "127.0.0.1:2")) as link:
            assert link.connected


async def test_a_server_that_comes_up_later_is_found(nats: RealNats, node_status: NodeStatus) -> None:
    await nats.kill()
    link = NatsLink(quick(nats.url), node_status)
    opening = asyncio.create_task(link.open())
    await eventually(lambda: node_status.parts["nats"].state == "waiting")
    assert "not accepting connections" in node_status.parts["nats"].reason
    await nats.start()
    await asyncio.wait_for(opening, 30)
    await link.aclose()


async def test_spent_reconnects_end_the_link_and_everybody_who_waits_for_it(
    nats: RealNats, node_status: NodeStatus
) -> None:
    async with NatsLink(replace(quick(nats.url), connect_retries=3), node_status) as link:
        lost = asyncio.create_task(link.lost())
        await nats.kill()
        with pytest.raises(ReconnectsSpentError, match="maximum reconnects reached"):
            await asyncio.wait_for(lost, 30)
        with pytest.raises(ReconnectsSpentError):
            await link.connection()
        assert node_status.parts["nats"].state == "failed"
        assert not node_status.nats_connected


async def test_each_reconnect_is_counted_and_the_retries_begin_anew(nats: RealNats, node_status: NodeStatus) -> None:
    async with NatsLink(replace(quick(nats.url), connect_retries=2000), node_status) as link:
        for count in (1, 2, 3):
            await nats.kill()
            await nats.start()
            await eventually(lambda: node_status.nats.reconnects == count and link.connected)  # noqa: B023
            await link.now().request("$JS.API.INFO", seconds=PATIENCE)


async def test_it_goes_over_to_another_server(new_nats: NatsFactory, node_status: NodeStatus) -> None:
    one, two = await new_nats(), await new_nats()
    async with NatsLink(quick(one.url, two.url), node_status) as link:
        first, second = (one, two) if node_status.nats_server == one.url else (two, one)
        await first.kill()
        await eventually(lambda: node_status.nats_server == second.url and link.connected)


async def test_a_silent_server_does_not_hold_the_start_for_ever() -> None:
    async def nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()
        await writer.wait_closed()
        hung_up.set()

    hung_up = asyncio.Event()

    async with serving(nothing) as port:
        settings = replace(quick(f"nats://127.0.0.1:{port}"), connect_retries=1, connect_seconds=0.3)
        with pytest.raises(ConnectError):
            await asyncio.wait_for(NatsLink(settings).open(), PATIENCE)
        await asyncio.wait_for(hung_up.wait(), PATIENCE)


async def test_an_old_server_is_refused_at_once_with_both_versions() -> None:
    async with pretender({"version": "2.9.10"}) as address:
        with pytest.raises(ConnectError, match=r"version 2\.9\.10; HarmonyLite needs 2\.10"):
            await asyncio.wait_for(NatsLink(quick(address)).open(), PATIENCE)


async def test_credentials_are_not_sent_when_somebody_took_tls_away() -> None:
    async with pretender({"version": "2.15.1", "auth_required": True}) as address:
        with pytest.raises(ConnectError, match="TLS was asked for"):
            await asyncio.wait_for(NatsLink(quick(f"tls://user:secret@{address}")).open(), PATIENCE)


async def test_addresses_that_are_none_are_configuration_errors() -> None:
    for url in ("http://localhost:4222", "nats://localhost:port", "ws://localhost"):
        with pytest.raises(ConfigError, match="address"):
            await NatsLink(quick(url)).open()
    with pytest.raises(ConfigError, match="no NATS server"):
        await NatsLink(LinkSettings()).open()


async def test_a_cancelled_start_leaves_nothing_open(node_status: NodeStatus) -> None:
    link = NatsLink(quick("nats://127.0.0.1:1"), node_status)
    opening = asyncio.create_task(link.open())
    await eventually(lambda: node_status.parts["nats"].state == "waiting")
    opening.cancel()
    await asyncio.wait([opening], timeout=PATIENCE)
    assert opening.cancelled()


async def test_passwords_never_reach_logs_errors_or_status(
    nats: RealNats, node_status: NodeStatus, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    settings = replace(
        quick("nats://me:hush@127.0.0.1:1", nats.url.replace("//", "//you:hush@")),
        user="u",
        password="hush",
        token="hush",
    )
    async with NatsLink(settings, node_status):
        await nats.kill()
        await eventually(lambda: node_status.parts["nats"].state == "waiting")
        text = caplog.text + repr(settings) + json.dumps(node_status.report())
    with pytest.raises(ConnectError) as caught:
        await NatsLink(replace(settings, connect_retries=1)).open()
    assert "hush" not in text + str(caught.value)


def test_credentials_in_addresses_are_masked() -> None:
    assert redact("at nats://me:pw@host:1, tls://tok@other and a@b") == "at nats://***@host:1, tls://***@other and a@b"


async def test_an_answer_that_nobody_waits_for_any_more_leaves_the_connection_as_it_is(
    link: NatsLink, caplog: pytest.LogCaptureFixture
) -> None:
    """A stop in the middle of the start gives up on the check that the server answers."""
    client = (await link.connection())._client
    given_up = asyncio.get_running_loop().create_future()
    given_up.cancel()
    await client._send_ping(given_up)
    await client.flush(timeout=30)
    assert link.connected
    assert not [record for record in caplog.records if record.exc_info]


async def test_a_server_that_hangs_up_after_its_greeting_is_tried_again(
    nats: RealNats, node_status: NodeStatus, caplog: pytest.LogCaptureFixture
) -> None:
    """As one does that is being ended: the link must not take that for the end of all tries."""
    greeted = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal greeted
        greeted += 1
        greeting = {"max_payload": 100_000, "headers": True, "version": "2.12.0", "jetstream": True}
        writer.write(b"INFO " + json.dumps(greeting).encode() + b"\r\n")
        while not (await reader.readline()).startswith(b"PING"):
            pass
        writer.write(b"PONG\r\n")
        writer.close()

    async with serving(serve) as port:
        ending = f"nats://127.0.0.1:{port}"
        with pytest.raises(ConnectError, match="not accepting connections"):
            await NatsLink(replace(quick(ending), connect_retries=2), node_status).open()
        assert greeted == 2
        async with NatsLink(quick(nats.url), node_status, urls=lambda: [nats.url, ending]) as link:
            for _ in range(5):
                before = link.now()
                await before.aclose()
                await eventually(lambda: link.connected and link.now() is not before, "it is connected again")  # noqa: B023
            assert not link.given_up


async def test_a_peer_that_sends_is_alive_also_while_its_answer_to_a_ping_waits_behind_that() -> None:
    """A line that is busy for longer than three pings is no dead one; a silent one is."""
    sent, busy, ended = 0, asyncio.Event(), asyncio.Event()

    async def send(writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await busy.wait()
        for sent in range(40):  # noqa: B007
            writer.write(b"MSG somebody 1 1\r\nx\r\n")
            await asyncio.sleep(0.02)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'INFO {"max_payload": 100000, "headers": true, "version": "2.12.0"}\r\n')
        sending = asyncio.create_task(send(writer))
        with suppress(OSError):
            while line := await reader.readline():
                if line.startswith(b"PING") and not busy.is_set():
                    writer.write(b"PONG\r\n")
        sending.cancel()
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
        ended.set()

    async with serving(serve) as port:
        settings = replace(quick(f"127.0.0.1:{port}"), ping_seconds=0.05, reconnect_wait=600)
        async with NatsLink(settings, NodeStatus()) as link:
            over = link.now().over
            busy.set()
            await over.wait()
            assert sent == 39, "not before it was silent"
        await ended.wait()
