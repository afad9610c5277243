"""Servers that find each other by addresses of both families: what ``dns://`` looks up is what a server listens on."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from harmonylite.jetstream.settings import StreamSettings
from harmonylite.jetstream.streams import ensure_streams
from harmonylite.nats_server.settings import EmbeddedSettings
from tests.parts.fix_nats import eventually
from tests.parts.nats_server.fix_embedded import running
from tests.ports import free_port


def has_ipv6() -> bool:
    """Return whether this machine has an IPv6 loopback."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
async def test_a_name_with_a_and_aaaa_records_joins_servers_of_both_families(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    asked: list[str] = []
    loop = asyncio.get_running_loop()
    real = loop.getaddrinfo

    async def answers(host: str, *rest: object, **more: object) -> object:
        if host != "nodes.example":
            return await real(host, *rest, **more)  # type: ignore[arg-type] # passed on as they came
        asked.append(host)
        return [(0, 0, 0, "", ("127.0.0.1", 0)), (0, 0, 0, "", ("::1", 0, 0, 0))]

    monkeypatch.setattr(loop, "getaddrinfo", answers)
    settings = [
        EmbeddedSettings(
            node_name=f"n{number}",
            folder=tmp_path / str(number),
            cluster_addr=address,
            cluster_peers=(f"dns://nodes.example:{port}/",),
            user="me",
            password="s3cret",
        )
        for number, address in enumerate((f"127.0.0.1:{port}", f"[::1]:{port}"))
    ]
    async with running(settings[0]) as (_, link, status), running(settings[1]):
        await eventually(lambda: status.server.get("cluster_peers") == 1.0, "the two are one cluster")
        await ensure_streams(link, StreamSettings(replicas=2))
    assert asked
    routes = (tmp_path / "0" / "n0" / "nats-server.conf").read_text()
    assert f"@127.0.0.1:{port}" in routes
    assert f"@[::1]:{port}" in routes
