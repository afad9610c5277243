"""The embedded server: it runs while we run, comes back when it dies, never outlives us, and lets nobody in."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import urllib.request
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from harmonylite.errors import ConfigError, ConnectError, EmbeddedServerError
from harmonylite.jetstream.settings import StreamSettings
from harmonylite.jetstream.shard import JetStreamShard
from harmonylite.jetstream.streams import ensure_streams
from harmonylite.nats.link import NatsLink
from harmonylite.nats.settings import LinkSettings, TlsSettings, split_addresses
from harmonylite.nats_server import server as server_module
from harmonylite.nats_server import server_files
from harmonylite.nats_server.binary import find_server
from harmonylite.nats_server.server import EmbeddedServer
from harmonylite.nats_server.settings import EmbeddedSettings
from harmonylite.status import NodeStatus
from tests.parts.fix_nats import PATIENCE, eventually, quick
from tests.parts.nats.fix_keys import Certificates
from tests.parts.nats_server.fix_embedded import running, stored
from tests.ports import free_ports


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


async def test_it_runs_with_its_files_beside_the_database_and_is_gone_after(tmp_path: Path) -> None:
    async with running(EmbeddedSettings(node_name="7", folder=tmp_path / "nats")) as (server, link, status):
        assert link.connected
        assert status.parts["embedded"].state == "ok"
        assert (tmp_path / "nats" / "7" / "jetstream").is_dir()
        config = tmp_path / "nats" / "7" / "nats-server.conf"
        assert stat.S_IMODE(config.stat().st_mode) == 0o600
        assert "sync_interval" in config.read_text()
        pid = server.pid
        assert alive(pid)
    assert not alive(pid)


@pytest.mark.parametrize("where", ["login", "configuration", "server"])
async def test_it_starts_once_a_full_disk_has_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    status = NodeStatus()
    made = EmbeddedServer(EmbeddedSettings(node_name="7", folder=tmp_path), status)
    kept, waited = server_files.write_private, list[str]()
    begun = made._start

    def full(path: Path, text: str) -> None:
        if not waited and (where == "login") == (path.name == "client-auth.json"):
            raise OSError(errno.ENOSPC, "No space left on device")
        kept(path, text)

    async def ends() -> None:
        if not waited:
            made._log("[1] 2026/11/28 17:00:00 [FTL] could not create storage: no space left on device")
            raise EmbeddedServerError("nats-server did not start")
        await begun()

    async def comes() -> None:
        waited.append(status.parts["embedded"].reason)
        made._room.gone.clear()

    monkeypatch.setattr(made._room, "comes", comes)
    if where == "server":
        monkeypatch.setattr(made, "_start", ends)
    else:
        monkeypatch.setattr(server_module if where == "configuration" else server_files, "write_private", full)
    async with made:
        assert len(waited) == 1
        assert "no room is left" in waited[0]
        assert status.parts["embedded"].state == "ok"


async def test_what_it_acknowledges_is_synced_to_the_disk_before(tmp_path: Path) -> None:
    async with running(EmbeddedSettings(node_name="7", folder=tmp_path)):
        folder = tmp_path / "7"
        (ports,) = folder.glob("*.ports")
        hidden = re.search(r'^http_base_path: "(.+)"$', (folder / "nats-server.conf").read_text(), re.MULTILINE)
        assert hidden
        url = json.loads(ports.read_text())["monitoring"][0] + hidden[1] + "/jsz"
        told = await asyncio.to_thread(lambda: urllib.request.urlopen(url, timeout=60).read())  # noqa: S310 # our own
    assert json.loads(told)["config"]["sync_always"] is True


async def test_what_was_stored_is_there_after_a_restart(tmp_path: Path) -> None:
    settings = EmbeddedSettings(node_name="7", folder=tmp_path)
    for start in range(3):
        async with running(settings) as (_, link, _status):
            await ensure_streams(link, StreamSettings())
            shard = JetStreamShard(link, StreamSettings(), 0, "7")
            assert await shard.publish(b"x", message_id=str(start), expected_last=start) == start + 1


async def test_nobody_without_the_generated_credentials_gets_in(tmp_path: Path) -> None:
    async with running(EmbeddedSettings(node_name="7", folder=tmp_path)) as (server, _, _status):
        for url in (server.url, server.url.replace("//", "//harmonylite:guess@")):
            with pytest.raises(ConnectError, match="Authorization Violation"):
                await NatsLink(quick(url)).open()
        kept = tmp_path / "7" / "client-auth.json"
        assert stat.S_IMODE(kept.stat().st_mode) == 0o600


async def test_a_killed_server_is_started_again_on_its_port_and_the_link_goes_on(tmp_path: Path) -> None:
    async with running(EmbeddedSettings(node_name="7", folder=tmp_path)) as (server, link, status):
        await ensure_streams(link, StreamSettings())
        shard = JetStreamShard(link, StreamSettings(), 0, "7")
        await shard.publish(b"before", message_id="1")
        url, pid = server.url, server.pid
        os.kill(pid, signal.SIGKILL)
        await eventually(lambda: status.nats.restarts == 1)
        await eventually(lambda: status.nats.reconnects == 1 and link.connected)
        await eventually(lambda: status.parts["embedded"].state == "ok")
        assert server.url == url
        assert server.pid != pid
        assert await shard.publish(b"after", message_id="2", expected_last=1) == 2


async def test_a_server_that_keeps_dying_is_told_in_the_status(tmp_path: Path) -> None:
    async with running(EmbeddedSettings(node_name="7", folder=tmp_path)) as (server, _, status):
        (tmp_path / "7" / "nats-server.conf").unlink()
        os.kill(server.pid, signal.SIGKILL)
        await eventually(lambda: status.parts["embedded"].state == "waiting")
        assert "signal 9" in status.parts["embedded"].reason


@pytest.mark.skipif(sys.platform != "linux", reason="the parent-death signal is Linux's")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_the_server_is_gone_when_its_node_is_killed(tmp_path: Path, number: signal.Signals) -> None:
    program = (
        "import asyncio, sys\n"
        "from pathlib import Path\n"
        "from harmonylite.nats_server.server import EmbeddedServer\n"
        "from harmonylite.nats_server.settings import EmbeddedSettings\n"
        "async def main():\n"
        "    async with EmbeddedServer(EmbeddedSettings(node_name='7', folder=Path(sys.argv[1]))) as server:\n"
        "        print(server.pid, flush=True)\n"
        "        await asyncio.Event().wait()\n"
        "asyncio.run(main())\n"
    )
    node = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", program, str(tmp_path)),
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert node.stdout is not None
    pid = int(await node.stdout.readline())
    assert alive(pid)
    node.send_signal(number)
    await node.wait()
    await eventually(lambda: not alive(pid), "the end of nats-server")


async def test_a_start_that_is_cancelled_leaves_no_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = EmbeddedServer(EmbeddedSettings(node_name="7", folder=tmp_path))
    reached = asyncio.Event()

    async def never(_: object) -> int:
        reached.set()
        await asyncio.Event().wait()
        return 0

    monkeypatch.setattr(server, "_listening", never)  # it is in the middle of its start for as long as that
    opening = asyncio.create_task(server.open())
    await asyncio.wait_for(reached.wait(), PATIENCE)
    pid = server.pid
    assert alive(pid)
    opening.cancel()
    await asyncio.wait([opening])
    assert opening.cancelled()
    assert not alive(pid)


async def test_a_taken_port_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        settings = EmbeddedSettings(node_name="7", folder=tmp_path, bind_address=f"127.0.0.1:{port}")
        with pytest.raises(EmbeddedServerError, match=rf":{port}.*address already in use.*; stop what listens"):
            await EmbeddedServer(settings).open()
        with pytest.raises(EmbeddedServerError, match=rf"{port}.*address already in use"):
            await EmbeddedServer(replace(settings, bind_address="", cluster_addr=f"127.0.0.1:{port}")).open()


@pytest.mark.parametrize("address", ["0.0.0.0:4333", ":4333", "[::]:4333", "example.org:4333"])
async def test_opening_it_to_others_without_credentials_is_refused(tmp_path: Path, address: str) -> None:
    settings = EmbeddedSettings(node_name="7", folder=tmp_path)
    for risky in (replace(settings, bind_address=address), replace(settings, cluster_addr=address)):
        with pytest.raises(ConfigError, match="user_name and user_password"):
            await EmbeddedServer(risky).open()
    assert not list((tmp_path / "7").glob("*.conf"))


async def test_opening_it_to_others_works_with_credentials_or_when_insisted_on(tmp_path: Path) -> None:
    settings = EmbeddedSettings(node_name="7", folder=tmp_path, bind_address=f":{free_ports(1)[0]}")
    async with running(replace(settings, user="me", password="p:@/ $1")) as (_, link, _status):
        assert link.connected
    async with running(replace(settings, insecure=True)) as (_, link, _status):
        assert link.connected


async def test_names_can_not_leave_the_folder(tmp_path: Path) -> None:
    async with running(EmbeddedSettings(node_name="../../evil node", folder=tmp_path / "nats")) as (server, _, _status):
        assert server.folder.parent == tmp_path / "nats"


async def test_no_password_reaches_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    port, peer = free_ports(2)
    settings = EmbeddedSettings(
        node_name="7",
        folder=tmp_path,
        user="me",
        password="s3cret/pass",
        cluster_addr=f"127.0.0.1:{port}",
        cluster_peers=(f"nats://127.0.0.1:{peer}/",),
    )
    async with running(settings) as (server, _, _status):
        await eventually(lambda: "trying to connect to route" in caplog.text)
        assert "s3cret" not in repr(settings) + repr(server.link_settings(LinkSettings()))
    assert "s3cret" not in caplog.text
    assert "harmonylite.nats-server" in caplog.text


async def test_three_nodes_by_the_guides_command_lines_make_a_cluster_that_all_read(tmp_path: Path) -> None:
    one, two, three = free_ports(3)
    flags = {
        f"localhost:{one}": f"nats://localhost:{two}/,nats://localhost:{three}/",
        f"localhost:{two}": f"nats://localhost:{one}/,nats://localhost:{three}/",
        f"localhost:{three}": f"nats://localhost:{one}/,nats://localhost:{two}/",
    }
    settings = [
        EmbeddedSettings(
            node_name=f"node-{number}",
            folder=tmp_path / str(number) / "nats",
            cluster_addr=address,
            cluster_peers=split_addresses(peers),
        )
        for number, (address, peers) in enumerate(flags.items())
    ]
    for replicas in (1, 3):
        streams = StreamSettings(replicas=replicas, stream_prefix=f"r{replicas}", subject_prefix=f"r{replicas}")
        async with AsyncExitStack() as stack:
            nodes = await asyncio.gather(*(stack.enter_async_context(running(one)) for one in settings))
            await asyncio.gather(*(ensure_streams(link, streams) for _, link, _ in nodes))
            shards = [JetStreamShard(link, streams, 0, f"node-{i}") for i, (_, link, _) in enumerate(nodes)]
            for i, shard in enumerate(shards):
                await stored(shard, f"from {i}".encode())
            for shard in shards:
                read: list[bytes] = []
                async for batch in shard.read(1):
                    read += [message.payload for message in batch]
                    if len(read) == 3:
                        break
                assert read == [b"from 0", b"from 1", b"from 2"]


async def test_of_three_nodes_with_three_replicas_one_may_be_killed_and_the_rest_goes_on(tmp_path: Path) -> None:
    ports = free_ports(3)
    settings = [
        EmbeddedSettings(
            node_name=f"node-{number}",
            folder=tmp_path / str(number),
            cluster_addr=f"localhost:{port}",
            cluster_peers=tuple(f"nats://localhost:{other}/" for other in ports if other != port),
            user="me",
            password="shared",
        )
        for number, port in enumerate(ports)
    ]
    streams = StreamSettings(replicas=3)
    async with AsyncExitStack() as stack:
        nodes = await asyncio.gather(*(stack.enter_async_context(running(one)) for one in settings))
        await asyncio.gather(*(ensure_streams(link, streams) for _, link, _ in nodes))
        shards = [JetStreamShard(link, streams, 0, str(i), publish_seconds=2) for i, (_, link, _) in enumerate(nodes)]
        read: list[int] = []

        async def follow() -> None:
            async for batch in shards[1].read(1):
                read.extend(message.seq for message in batch)

        following = asyncio.create_task(follow())
        await stored(shards[1], b"before")
        await eventually(lambda: read == [1])
        await nodes[0][0].aclose()
        await stored(shards[1], b"after")
        await eventually(lambda: len(read) == 2 or following.done())
        following.cancel()
        await asyncio.wait([following])
        assert read == [1, 2]


def test_the_server_is_found_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = find_server()
    assert found.name == "nats-server"
    monkeypatch.setenv("NATS_SERVER_BIN", str(tmp_path / "absent"))
    with pytest.raises(EmbeddedServerError, match="NATS_SERVER_BIN"):
        find_server()


async def test_a_certificate_that_does_not_do_is_named_before_the_server_is_started(
    tmp_path: Path, certificates: Certificates
) -> None:
    wrong = tmp_path / "wrong.pem"
    wrong.write_text("-----BEGIN ENCRYPTED PRIVATE KEY-----\n")
    good = TlsSettings(ca_file=certificates.ca, cert_file=certificates.server_cert, key_file=certificates.server_key)
    for key, tls in {
        "ca_file": replace(good, ca_file=wrong),
        "cert_file": replace(good, cert_file=wrong),
        "key_file": replace(good, key_file=wrong),
    }.items():
        settings = EmbeddedSettings(node_name="7", folder=tmp_path, tls=tls)
        with pytest.raises(ConfigError, match=rf"tls_{key} .*wrong\.pem"):
            await EmbeddedServer(settings).open()
