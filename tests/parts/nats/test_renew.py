"""Certificates and credentials are read again when asked: by the link, by the embedded server, by SIGHUP."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import ssl
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import trustme

from harmonylite.errors import ConfigError, ConnectError, EmbeddedServerError
from harmonylite.nats.link import NatsLink
from harmonylite.nats.settings import TlsSettings
from harmonylite.nats_server.server import EmbeddedServer
from harmonylite.nats_server.settings import EmbeddedSettings
from harmonylite.status import NodeStatus
from tests.parts.fix_nats import NatsFactory, RealNats, eventually, quick
from tests.parts.nats.fix_keys import Certificates
from tests.parts.nats_server.fix_embedded import running
from tests.ports import free_ports


def issue(authority: trustme.CA, folder: Path) -> TlsSettings:
    """Write a certificate of ``authority``, over the one that is there."""
    issued = authority.issue_cert("localhost", "127.0.0.1")
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    issued.cert_chain_pems[0].write_to_path(str(folder / "cert.pem"))
    issued.private_key_pem.write_to_path(str(folder / "key.pem"))
    return TlsSettings(ca_file=folder / "ca.pem", cert_file=folder / "cert.pem", key_file=folder / "key.pem")


def shown_by(port: int, trust: Path) -> int:
    """Return the serial number of the certificate that the NATS server shows (it speaks first, then TLS begins)."""
    import socket

    context = ssl.create_default_context(cafile=trust)
    with socket.create_connection(("127.0.0.1", port), 60) as line:
        assert line.recv(65536).startswith(b"INFO")
        with context.wrap_socket(line, server_hostname="127.0.0.1") as secure:
            found = secure.getpeercert()
            assert found
            return int(str(found["serialNumber"]), 16)


async def test_a_renewed_link_has_a_new_connection_and_misses_nothing(nats: RealNats) -> None:
    status = NodeStatus()
    async with NatsLink(quick(nats.url), status) as link:
        old, heard = link.now(), asyncio.Event()
        await link.renew()
        assert link.now() is not old
        assert old.over.is_set()
        await link.now().subscribe("x", lambda _: heard.set())
        await link.now().publish("x", b"")
        await asyncio.wait_for(heard.wait(), 30)
        assert status.nats.reconnects == 0, "it was not lost"
        await nats.kill()
        await nats.start()
        await eventually(lambda: link.connected and status.nats.reconnects == 1)


async def test_new_client_certificates_are_shown_after_a_renewal(
    certificates: Certificates, new_nats: NatsFactory, tmp_path: Path
) -> None:
    server = await new_nats(f'tls {{ {certificates.server_tls}, ca_file: "{certificates.ca}", verify: true }}')
    for name in ("cert", "key"):
        (tmp_path / name).write_bytes(getattr(certificates, f"client_{name}").read_bytes())
    tls = TlsSettings(ca_file=certificates.ca, cert_file=tmp_path / "cert", key_file=tmp_path / "key")
    address = server.url.replace("nats://", "tls://")
    async with NatsLink(replace(quick(address), tls=tls)) as link:
        old = link.now()
        (tmp_path / "cert").write_text("no certificate")
        with pytest.raises(ConfigError, match="cert"):
            await link.renew()
        assert link.now() is old, "what worked continues"
        stranger = trustme.CA().issue_cert("somebody@example.org")
        stranger.cert_chain_pems[0].write_to_path(str(tmp_path / "cert"))
        stranger.private_key_pem.write_to_path(str(tmp_path / "key"))
        with pytest.raises(ConnectError):
            await link.renew()
        assert link.connected


async def test_the_embedded_server_shows_a_new_certificate_after_a_reload(tmp_path: Path) -> None:
    authority = trustme.CA()
    # Without a client's certificate, so that the test can look at the server's.
    tls = replace(issue(authority, tmp_path), ca_file=None)
    async with EmbeddedServer(EmbeddedSettings(node_name="7", folder=tmp_path / "nats", tls=tls)) as server:
        port = int(server.url.rpartition(":")[2])
        before = await asyncio.to_thread(shown_by, port, tmp_path / "ca.pem")
        issue(authority, tmp_path)
        await server.reload()
        assert await asyncio.to_thread(shown_by, port, tmp_path / "ca.pem") != before


async def test_a_reload_that_the_server_refuses_is_told_and_it_goes_on(tmp_path: Path) -> None:
    tls = replace(issue(trustme.CA(), tmp_path), ca_file=None)
    async with EmbeddedServer(EmbeddedSettings(node_name="7", folder=tmp_path / "nats", tls=tls)) as server:
        pid = server.pid
        (tmp_path / "cert.pem").write_text("no certificate")
        with pytest.raises(EmbeddedServerError, match="did not take its configuration"):
            await server.reload()
        assert server.pid == pid


async def test_routes_and_clients_are_let_in_with_certificate_and_password_only(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    authority, (one, two, three) = trustme.CA(), free_ports(3)
    settings = [
        EmbeddedSettings(
            node_name=str(own),
            folder=tmp_path / str(own),
            cluster_addr=f"127.0.0.1:{own}",
            cluster_peers=(f"nats://127.0.0.1:{other}/",),
            user="me",
            password="s3cret",
            tls=issue(authority, tmp_path),
        )
        for own, other in ((one, two), (two, one))
    ]
    stranger = tmp_path / "stranger"
    stranger.mkdir()
    wrong = replace(
        settings[0],
        node_name="wrong",
        folder=tmp_path / "wrong",
        cluster_addr=f"127.0.0.1:{three}",
        tls=issue(trustme.CA(), stranger),
        start_seconds=60,
    )
    async with running(settings[0]) as (server, _, status), running(settings[1]):
        await eventually(lambda: status.server.get("cluster_peers") == 1.0, "the two are connected")
        with pytest.raises(ConnectError):
            await NatsLink(replace(quick(server.url), user="me", password="s3cret", tls=wrong.tls)).open()
        async with EmbeddedServer(wrong):
            await eventually(lambda: "TLS route handshake error" in caplog.text, "a stranger's route is refused")
            assert status.server["cluster_peers"] == 1.0


async def test_leaf_links_are_let_in_with_certificate_and_password_only(tmp_path: Path) -> None:
    authority, (port,) = trustme.CA(), free_ports(1)
    home = EmbeddedSettings(
        node_name="home",
        folder=tmp_path / "home",
        cluster_name="a",
        domain="a",
        leaf_addr=f"127.0.0.1:{port}",
        user="me",
        password="s3cret",
        tls=issue(authority, tmp_path),
    )
    away = replace(
        home,
        node_name="away",
        folder=tmp_path / "away",
        cluster_name="b",
        domain="b",
        leaf_addr="",
        leaf_servers=(f"nats://127.0.0.1:{port}/",),
    )
    stranger = tmp_path / "stranger"
    stranger.mkdir()
    async with running(home) as (_, _link, status):
        await eventually(lambda: bool(status.server), "the first look")
        for wrong in (
            replace(away, node_name="guess", folder=tmp_path / "guess", password="guess"),
            replace(away, node_name="other", folder=tmp_path / "other", tls=issue(trustme.CA(), stranger)),
        ):
            async with running(wrong) as (_, _wrong_link, there):
                await eventually(lambda: bool(there.server), "it had time to link")
                assert there.server["leaf_links"] == 0.0
        async with running(away):
            await eventually(lambda: status.server["leaf_links"] == 1.0, "who has both is let in")


async def test_the_figures_of_the_server_come_into_the_status(tmp_path: Path) -> None:
    async with running(EmbeddedSettings(node_name="7", folder=tmp_path)) as (_, _link, status):
        await eventually(lambda: status.server.get("connections") == 1.0, "a look since the link is there")
        assert status.server["store_limit_bytes"] > 0
        assert "http_base_path" in (tmp_path / "7" / "nats-server.conf").read_text()


async def test_the_monitoring_of_our_own_has_a_secret_path(tmp_path: Path) -> None:
    async with running(EmbeddedSettings(node_name="7", folder=tmp_path)):
        (ports,) = (json.loads(path.read_text()) for path in (tmp_path / "7").glob("*.ports"))
        reader, writer = await asyncio.open_connection("127.0.0.1", int(ports["monitoring"][0].rpartition(":")[2]))
        writer.write(b"GET /connz HTTP/1.0\r\n\r\n")
        assert b"404" in (await reader.read()).partition(b"\r\n")[0]
        writer.close()


def test_sighup_makes_a_node_connect_anew(tmp_path: Path) -> None:
    import apsw

    connection = apsw.Connection(str(tmp_path / "app.db"))
    connection.execute("CREATE TABLE t (id TEXT PRIMARY KEY)")
    connection.close()
    (tmp_path / "config.toml").write_text(f'db_path = "{tmp_path}/app.db"\n')
    node = subprocess.Popen(
        [sys.executable, "-m", "harmonylite", "-config", str(tmp_path / "config.toml")],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert node.stderr
    try:
        for line in node.stderr:
            if "bootstrapped a new cluster" in line:
                node.send_signal(signal.SIGHUP)
            if "reloaded certificates" in line:
                break
        else:
            pytest.fail("it did not read them again")
        assert node.poll() is None
    finally:
        node.terminate()
        assert node.wait(60) == 0
        node.stderr.close()
