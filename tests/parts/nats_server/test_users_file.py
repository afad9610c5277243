"""The user's nats-server file over ours: what it may say, what a mistake in it shows, and what it may not open."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from harmonylite.errors import ConfigError, EmbeddedServerError
from harmonylite.jetstream.settings import StreamSettings
from harmonylite.jetstream.streams import ensure_streams
from harmonylite.nats_server.server import EmbeddedServer
from harmonylite.nats_server.settings import EmbeddedSettings
from tests.parts.fix_nats import eventually
from tests.parts.nats_server.fix_embedded import running
from tests.ports import free_ports


async def test_the_users_file_is_merged_over_ours(tmp_path: Path) -> None:
    (monitor,) = free_ports(1)
    user_file = tmp_path / "conf" / "nats-server.conf"
    user_file.parent.mkdir()
    user_file.write_text(
        f'jetstream {{\n  store_dir: "{tmp_path}/fast-disk" # elsewhere\n  max_memory_store: 1G\n'
        f"  max_file_store: 10G\n}}\nmonitor_port = {monitor}\nmax_payload: 2MB\n"
    )
    settings = EmbeddedSettings(node_name="7", folder=tmp_path / "nats", server_config=user_file)
    async with running(settings) as (_, link, _status):
        assert link.max_payload == 2 * 1024 * 1024
        assert (tmp_path / "fast-disk" / "jetstream").is_dir()
        reader, writer = await asyncio.open_connection("127.0.0.1", monitor)
        writer.write(b"GET /jsz?config=1 HTTP/1.0\r\n\r\n")
        answer = (await reader.read()).decode()
        writer.close()
    assert '"sync_always": true' in answer, "what the user left out stays ours"
    assert '"max_storage": 10000000000' in answer


async def test_the_users_own_port_and_accounts_win(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    user_file = tmp_path / "nats-server.conf"
    user_file.write_text(f"port: {port}\nhost: 127.0.0.1\nauthorization {{ user: them, password: theirs }}\n")
    settings = EmbeddedSettings(
        node_name="7", folder=tmp_path / "nats", server_config=user_file, user="them", password="theirs"
    )
    async with running(settings) as (server, link, _status):
        assert server.url == f"nats://127.0.0.1:{port}"
        assert link.connected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("jetstream {\n  max_file: 1G\n  foo: 7\n}\n", r'nats-server\.conf:3:3: unknown field "foo"'),
        ("jetstream {\n  max_file: 1G\n", r"nats-server\.conf.*Parse error"),
    ],
)
async def test_a_mistake_in_the_users_file_is_shown_with_file_and_line(tmp_path: Path, text: str, message: str) -> None:
    user_file = tmp_path / "nats-server.conf"
    user_file.write_text(text)
    settings = EmbeddedSettings(node_name="7", folder=tmp_path / "nats", server_config=user_file)
    with pytest.raises(EmbeddedServerError, match=message) as caught:
        await EmbeddedServer(settings).open()
    assert str(user_file) in str(caught.value)


async def test_a_missing_user_file_is_named(tmp_path: Path) -> None:
    settings = EmbeddedSettings(node_name="7", folder=tmp_path, server_config=tmp_path / "absent.conf")
    with pytest.raises(ConfigError, match=r"absent\.conf: no such file"):
        await EmbeddedServer(settings).open()


async def test_a_cluster_leaf_links_and_users_of_the_users_own_file_are_taken_as_they_are(tmp_path: Path) -> None:
    one, two, leaf = free_ports(3)
    settings = []
    for own, other, more in ((one, two, f"leafnodes {{ listen: '127.0.0.1:{leaf}' }}"), (two, one, "")):
        user_file = tmp_path / f"{own}.conf"
        user_file.write_text(
            f"cluster {{ name: theirs, listen: '127.0.0.1:{own}', routes: ['nats://127.0.0.1:{other}'] }}\n"
            f"authorization {{ users: [ {{ user: them, password: theirs }} ] }}\n{more}\n"
        )
        settings.append(
            EmbeddedSettings(
                node_name=f"n{own}", folder=tmp_path / str(own), server_config=user_file, user="them", password="theirs"
            )
        )
    async with running(settings[0]) as (_, link, status), running(settings[1]) as (_, second, _status):
        await eventually(lambda: status.server.get("cluster_peers") == 1.0, "their cluster is there")
        assert link.now().surroundings().startswith(f"server n{one} of cluster theirs")
        await ensure_streams(second, StreamSettings(replicas=2))
        reader, writer = await asyncio.open_connection("127.0.0.1", leaf)
        assert (await reader.readline()).startswith(b"INFO")
        writer.close()


OPEN = {
    "an authorization without a user": (
        'listen: "0.0.0.0:{port}"\nauthorization {{ timeout: 5 }}\n',
        "clients at nats:",
    ),
    "a user for nobody": (
        'LISTEN: "0.0.0.0:{port}"\nlisten: $LISTEN\nno_auth_user: a\n'
        "accounts {{ A {{ jetstream: enabled, users: [ {{ user: a, password: b }} ] }} }}\n",
        "clients at nats:",
    ),
    "routes without authorization": (
        'cluster {{ name: theirs, listen: "0.0.0.0:{port}", routes: ["nats://127.0.0.1:{port}"] }}\n',
        "routes at nats:",
    ),
}
"""Files that open what ours keeps shut, and what is said of them."""


@pytest.mark.parametrize("opening", OPEN)
async def test_a_users_file_that_lets_other_machines_in_is_refused_unless_somebody_insists(
    tmp_path: Path, opening: str
) -> None:
    text, said = OPEN[opening]
    user_file = tmp_path / "nats-server.conf"
    user_file.write_text(text.format(port=free_ports(1)[0]))
    settings = EmbeddedSettings(node_name="7", folder=tmp_path, server_config=user_file, user="me", password="mine")
    server = EmbeddedServer(settings)
    with pytest.raises(ConfigError, match=said) as caught:
        await server.open()
    assert str(user_file) in str(caught.value)
    assert "insecure = true" in str(caught.value)
    assert server.pid == 0, "it does not run on"
    async with EmbeddedServer(replace(settings, insecure=True)) as insisted:
        assert insisted.pid


async def test_a_users_file_with_credentials_may_open_everything(tmp_path: Path) -> None:
    client, route, leaf = free_ports(3)
    user_file = tmp_path / "nats-server.conf"
    user_file.write_text(
        f'listen: "0.0.0.0:{client}"\nleafnodes {{ listen: "0.0.0.0:{leaf}" }}\n'
        f'cluster {{ name: theirs, listen: "0.0.0.0:{route}", routes: ["nats://me:mine@127.0.0.1:{route}"]\n'
        "authorization { user: me, password: mine } }\n"
    )
    settings = EmbeddedSettings(node_name="7", folder=tmp_path, server_config=user_file)
    async with EmbeddedServer(settings) as server:
        assert server.url.endswith(f":{client}")


async def test_a_reload_that_would_let_other_machines_in_ends_the_server_until_the_file_is_mended(
    tmp_path: Path,
) -> None:
    (port,) = free_ports(1)
    user_file = tmp_path / "nats-server.conf"
    shut = f'listen: "0.0.0.0:{port}"\nauthorization {{ user: me, password: mine }}\n'
    user_file.write_text(shut)
    settings = EmbeddedSettings(node_name="7", folder=tmp_path, server_config=user_file, user="me", password="mine")
    async with running(settings) as (server, link, status):
        user_file.write_text(f'listen: "0.0.0.0:{port}"\nauthorization {{ timeout: 5 }}\n')
        with pytest.raises(ConfigError, match="lets other machines in without credentials"):
            await server.reload()
        await eventually(lambda: "lets other machines in" in status.parts["embedded"].reason)
        user_file.write_text(shut)
        await eventually(lambda: link.connected and status.parts["embedded"].state == "ok")
