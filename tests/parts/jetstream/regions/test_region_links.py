"""Leaf links between embedded servers: names that NATS accepts, and nobody gets in without password and certificate."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import pytest
import trustme

from harmonylite.errors import ConfigError, StreamError
from harmonylite.jetstream.api import JetStream
from harmonylite.nats.link import NatsLink
from harmonylite.nats.settings import LinkSettings, TlsSettings
from harmonylite.nats_server.server import EmbeddedServer
from harmonylite.nats_server.settings import EmbeddedSettings
from harmonylite.status import NodeStatus
from tests.cluster.proxy import Proxy
from tests.parts.fix_nats import eventually
from tests.ports import free_port
from tests.serving import serving


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    """What is entered here is left at the end."""
    async with AsyncExitStack() as opened:
        yield opened


def certificates(folder: Path) -> TlsSettings:
    """Return a certificate for 127.0.0.1 of an authority of its own."""
    authority = trustme.CA()
    own = authority.issue_cert("127.0.0.1", "localhost")
    authority.cert_pem.write_to_path(folder / "ca.pem")
    own.private_key_pem.write_to_path(folder / "key.pem")
    own.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    return TlsSettings(ca_file=folder / "ca.pem", cert_file=folder / "cert.pem", key_file=folder / "key.pem")


def pair(folder: Path) -> tuple[EmbeddedSettings, EmbeddedSettings]:
    """Return settings of a server that takes leaf links, and of one that makes one."""
    address = f"127.0.0.1:{free_port()}"
    base = EmbeddedSettings(node_name="a1", folder=folder, user="regions", password="the right one", domain="a")
    near = replace(base, leaf_addr=address)
    return near, replace(base, node_name="b1", domain="b", leaf_servers=(f"nats://{address}/",))


async def reaches(stack: AsyncExitStack, server: EmbeddedServer, domain: str) -> bool:
    """Return whether JetStream of ``domain`` answers a client of ``server``."""
    link = await stack.enter_async_context(NatsLink(server.link_settings(LinkSettings())))
    for _ in range(40):
        try:
            await JetStream(link, domain).call("INFO", seconds=0.5)
        except StreamError:
            await asyncio.sleep(0.1)
        else:
            return True
    return False


@pytest.mark.parametrize("tls", [False, True])
async def test_two_regions_reach_each_other_over_a_protected_link(
    tmp_path: Path, stack: AsyncExitStack, tls: bool
) -> None:
    near, far = pair(tmp_path)
    if tls:
        near, far = (replace(side, tls=certificates(tmp_path)) for side in (near, near))
        far = replace(pair(tmp_path)[1], tls=near.tls, leaf_servers=(f"nats://{near.leaf_addr}/",))
    servers = [await stack.enter_async_context(EmbeddedServer(side)) for side in (near, far)]
    assert await reaches(stack, servers[1], "a")
    assert await reaches(stack, servers[0], "b")


async def test_a_wrong_password_a_missing_one_and_a_strangers_certificate_get_nowhere(
    tmp_path: Path, stack: AsyncExitStack, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "stranger").mkdir()
    near, far = pair(tmp_path)
    near = replace(near, tls=certificates(tmp_path))
    await stack.enter_async_context(EmbeddedServer(near))
    mine = f"nats://{near.leaf_addr}/"
    wrong = f"nats://regions:wrong@{near.leaf_addr}/"
    for name, stranger in {
        "password": replace(far, tls=near.tls, leaf_servers=(wrong,)),
        "certificate": replace(far, tls=certificates(tmp_path / "stranger"), leaf_servers=(mine,)),
    }.items():
        server = await stack.enter_async_context(EmbeddedServer(replace(stranger, node_name=name)))
        errors = ("authorization violation", "certificate", "tls")
        await eventually(lambda: any(e in r.getMessage().lower() for r in caplog.records for e in errors), name)  # noqa: B023
        caplog.clear()
        link = await stack.enter_async_context(NatsLink(server.link_settings(LinkSettings())))
        with pytest.raises(StreamError):
            await JetStream(link, "a").call("INFO", seconds=1.0)
    assert "wrong" not in caplog.text
    assert "the right one" not in caplog.text


async def test_leaf_links_without_credentials_are_refused(tmp_path: Path) -> None:
    open_to_all = EmbeddedSettings(node_name="a1", folder=tmp_path, domain="a", leaf_addr="127.0.0.1:7422")
    with pytest.raises(ConfigError, match=r"leaf_addr .* with credentials only; set user_name and user_password"):
        await EmbeddedServer(open_to_all).open()


async def test_a_leaf_link_that_dies_silently_ends_within_four_pings(tmp_path: Path, stack: AsyncExitStack) -> None:
    near, far = pair(tmp_path)
    line = Proxy(int(near.leaf_addr.rpartition(":")[2]))
    port = await stack.enter_async_context(serving(line.serve))
    status = NodeStatus()
    await stack.enter_async_context(EmbeddedServer(near))
    far = replace(far, leaf_servers=(f"nats://127.0.0.1:{port}/",))
    server = await stack.enter_async_context(EmbeddedServer(far, status))
    text = (server.folder / "nats-server.conf").read_text()
    assert 'ping_interval: "2.5s"' in text
    assert "ping_max: 2" in text
    await eventually(lambda: status.server.get("leaf_links") == 1, "the leaf link")
    line.order("hole")
    await eventually(lambda: status.server.get("leaf_links") == 0, "its end")
    line.order("reset")
