"""The secret that embedded servers ask of each other: made once, found by all nodes of a user, asked of everybody."""

from __future__ import annotations

import asyncio
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from harmonylite.errors import ConfigError
from harmonylite.jetstream.settings import StreamSettings
from harmonylite.jetstream.shard import JetStreamShard
from harmonylite.jetstream.streams import ensure_streams
from harmonylite.nats_server.cluster_secret import Refusals, RouteLogin, route_login, secret_in, users_file
from harmonylite.nats_server.server import EmbeddedServer
from harmonylite.nats_server.settings import EmbeddedSettings
from tests.parts.fix_nats import RealNats, eventually
from tests.parts.nats_server.fix_embedded import running, stored
from tests.ports import free_ports

PEERS = ("nats://127.0.0.1:4222/",)
SAME = ("nats://me:p%40ss@127.0.0.1:4222/", "dns://me:p%40ss@name:4223/", "nats://127.0.0.1:4224/")
OTHER = ("nats://me:one@127.0.0.1:4222/", "nats://me:two@127.0.0.1:4223/")

MAKER = """
import pathlib, sys
from harmonylite.nats_server.cluster_secret import secret_in
sys.stdin.read(1)
print(secret_in(pathlib.Path(sys.argv[1]), own=True))
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state folder of this test's own."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state" / "harmonylite"


def settings_of(folder: Path, **more: object) -> EmbeddedSettings:
    return replace(EmbeddedSettings(node_name="n", folder=folder, cluster_addr="127.0.0.1:0"), **more)  # type: ignore[arg-type]


def test_nodes_of_one_user_find_the_same_secret_and_other_clusters_another(home: Path, tmp_path: Path) -> None:
    one = route_login(settings_of(tmp_path / "1"))
    two = route_login(settings_of(tmp_path / "2", cluster_peers=PEERS))
    other = route_login(settings_of(tmp_path / "3", cluster_name="harmonylite-berlin"))
    assert one
    assert other
    assert one == two
    assert one.password != other.password
    assert len(one.password) >= 32
    (kept,) = [path for path in home.iterdir() if "berlin" not in path.name]
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert one.password not in repr(one)
    assert str(kept) in one.source


def test_who_starts_alone_or_open_has_no_secret(home: Path, tmp_path: Path) -> None:
    assert route_login(settings_of(tmp_path, cluster_addr="")) is None
    assert route_login(settings_of(tmp_path, insecure=True)) is None
    assert not home.exists()


@pytest.mark.parametrize(
    ("more", "user", "password"),
    [
        ({"user": "u", "password": "p"}, "u", "p"),
        ({"user": "u", "password": "p", "cluster_peers": SAME}, "u", "p"),
        ({"cluster_peers": SAME}, "me", "p@ss"),
        ({"cluster_peers": SAME, "insecure": True}, "me", "p@ss"),
        ({"cluster_peers": OTHER}, "harmonylite", None),
        ({"cluster_peers": PEERS}, "harmonylite", None),
        ({"file": True}, "harmonylite", "x" * 20),
        ({"file": True, "user": "u", "password": "p"}, "harmonylite", "x" * 20),
        ({"file": True, "insecure": True, "cluster_peers": SAME}, "harmonylite", "x" * 20),
    ],
)
def test_what_is_configured_goes_before_what_is_found(
    home: Path, tmp_path: Path, more: dict[str, object], user: str, password: str | None
) -> None:
    if more.pop("file", False):
        (tmp_path / "secret").write_text("x" * 20 + "\n")
        more["cluster_secret_file"] = tmp_path / "secret"
    login = route_login(settings_of(tmp_path, **more))
    assert login
    assert login.user == user
    assert login.found is (password is None)
    assert login.password == (password or (home / "cluster-harmonylite.secret").read_text().strip())


def test_of_many_processes_that_start_at_once_all_have_the_secret_that_one_made(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    processes = [
        subprocess.Popen([sys.executable, "-c", MAKER, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(8)
    ]
    for process in processes:
        assert process.stdin
        process.stdin.write("!")
        process.stdin.flush()
    assert {process.communicate()[0].strip() for process in processes} == {path.read_text().strip()}
    assert list(tmp_path.iterdir()) == [path]


def test_who_loses_the_race_takes_the_winners_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "secret"
    link = Path.hardlink_to

    def later(self: Path, target: str) -> None:
        if not path.exists():
            path.write_text("w" * 20)
            path.chmod(0o600)
        link(self, target)

    monkeypatch.setattr(Path, "hardlink_to", later)
    assert secret_in(path, own=True) == "w" * 20
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("content", [b"", b"\n", b"short", b"two words of it, long", b"caf\xc3\xa9" * 5, b"\x00" * 40])
def test_a_file_without_a_secret_is_named_and_kept(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "secret"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=rf"{path} holds no secret"):
        secret_in(path)
    assert path.read_bytes() == content


def test_a_place_that_can_not_be_used_says_what_to_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"absent/secret: No such file.*-cluster-secret-file"):
        secret_in(tmp_path / "absent" / "secret")
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    with pytest.raises(ConfigError, match=r"no place for the cluster's secret.*-cluster-secret-file"):
        users_file("harmonylite")
    monkeypatch.setenv("XDG_STATE_HOME", "")
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    assert users_file("a").parent == tmp_path / ".local" / "state" / "harmonylite"


@pytest.mark.parametrize("spoil", ["file readable", "file writable", "folder readable", "link", "owner"])
def test_a_users_file_that_others_may_have_touched_is_refused(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: str
) -> None:
    settings = settings_of(tmp_path)
    assert route_login(settings)
    path = users_file("harmonylite")
    match spoil:
        case "file readable":
            path.chmod(0o640)
        case "file writable":
            path.chmod(0o602)
        case "folder readable":
            home.chmod(0o755)
        case "link":
            path.rename(tmp_path / "elsewhere")
            path.symlink_to(tmp_path / "elsewhere")
        case "owner":
            monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(ConfigError, match="-cluster-secret-file"):
        route_login(settings)


def test_a_configured_file_may_be_shared_to_read_and_not_to_write(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("s" * 20)
    path.chmod(0o640)
    assert secret_in(path) == "s" * 20
    path.chmod(0o660)
    with pytest.raises(ConfigError, match="can be changed by others"):
        secret_in(path)


REFUSED = [
    ("127.0.0.1:14342 - rid:20 - Route Error 'Authorization Violation'", "the server at 127.0.0.1:14342 refuses"),
    ('127.0.0.1:56726 - rid:21 - authentication error - User "hl"', "another server is refused here"),
    ("127.0.0.1:56726 - rid:21 - authentication error", "another server is refused here"),
    ('10.0.0.7:4248 - rid:5 - Remote server has a duplicate name: "n1"', "10.0.0.7:4248 has the same name as this one"),
]
OTHERS = ["127.0.0.1:5 - cid:21 - authentication error", "127.0.0.1:6 - rid:20 - Route connection created", ""]


@pytest.mark.parametrize(("line", "told"), REFUSED)
def test_a_refused_route_is_told_for_a_while_with_where_and_what_to_do(line: str, told: str) -> None:
    refusals = Refusals()
    refusals.source = "cluster secret /a/b"
    assert refusals.said(0.0) == ""
    assert refusals.note_line(line, 100.0)
    assert told in refusals.said(100.0)
    assert told in refusals.said(100.0 + Refusals.SECONDS - 1)
    assert ("/a/b" in refusals.said(100.0)) is ("same name" not in told)
    assert refusals.said(100.0 + Refusals.SECONDS) == ""


@pytest.mark.parametrize("line", OTHERS)
def test_other_lines_are_no_refusal(line: str) -> None:
    refusals = Refusals()
    assert not refusals.note_line(line, 1.0)
    assert refusals.said(1.0) == ""


def cluster(folder: Path, ports: list[int], **more: object) -> list[EmbeddedSettings]:
    """Return settings of servers that name each other, as the guide's command lines do."""
    return [
        settings_of(
            folder / str(port),
            node_name=f"node-{i}",
            cluster_addr=f"localhost:{port}",
            cluster_peers=tuple(f"nats://localhost:{other}/" for other in ports if other != port),
            **more,
        )
        for i, port in enumerate(ports)
    ]


def intruder(folder: Path, port: int, userinfo: str = "") -> RealNats:
    """Return a server of somebody else that knows the cluster's name and the port."""
    return RealNats(
        folder,
        f'server_name: intruder\ncluster {{ name: harmonylite, listen: "127.0.0.1:-1", '
        f'routes: ["nats://{userinfo}127.0.0.1:{port}"] }}',
    )


@pytest.mark.parametrize("secret", ["none", "wrong", "right"])
async def test_only_who_has_the_secret_joins_by_the_route_port(tmp_path: Path, home: Path, secret: str) -> None:
    (port,) = free_ports(1)
    (settings,) = cluster(tmp_path, [port])
    login = route_login(settings)
    assert login
    userinfo = {"none": "", "wrong": "harmonylite:guessed@", "right": f"harmonylite:{login.password}@"}[secret]
    async with running(settings) as (_, _, status):
        other = intruder(tmp_path / "other", port, userinfo)
        await other.start()
        try:
            if secret == "right":
                await eventually(lambda: status.server.get("cluster_peers") == 1.0, "the route")
            else:
                await eventually(lambda: any("Authorization Violation" in line for line in other.log), "the refusal")
                await eventually(lambda: "cluster_peers" in status.server, "a look at the figures")
                assert status.server["cluster_peers"] == 0.0
        finally:
            await other.stop()


async def decided(settings: list[EmbeddedSettings], *checks: Callable[[], bool]) -> None:
    """Run servers of one cluster until a stream that all of them hold takes a message."""
    streams = StreamSettings(replicas=len(settings))
    async with AsyncExitStack() as stack:
        nodes = await asyncio.gather(*(stack.enter_async_context(running(one)) for one in settings))
        await asyncio.gather(*(ensure_streams(link, streams) for _, link, _ in nodes))
        await stored(JetStreamShard(nodes[0][1], streams, 0, "x"), b"x")
        assert all(check() for check in checks)


@pytest.mark.parametrize("how", ["found", "file", "user", "in the peers' addresses"])
async def test_three_nodes_form_a_cluster_whichever_way_they_share_what_they_ask(
    tmp_path: Path, home: Path, how: str
) -> None:
    settings = cluster(tmp_path, free_ports(3))
    match how:
        case "file":
            settings = [replace(each, cluster_secret_file=tmp_path / "secret") for each in settings]
        case "user":
            settings = [replace(each, user="me", password="p@ss w/rd") for each in settings]
        case "in the peers' addresses":
            settings = [
                replace(each, cluster_peers=tuple(p.replace("//", "//me:pw@") for p in each.cluster_peers))
                for each in settings
            ]
    await decided(settings, lambda: (home / "cluster-harmonylite.secret").exists() is (how == "found"))


async def test_a_cluster_without_secret_is_upgraded_node_by_node(tmp_path: Path, home: Path) -> None:
    """Nodes of before ask for nothing; here `insecure` makes them."""
    after = cluster(tmp_path, free_ports(3))
    before = [replace(each, insecure=True) for each in after]
    streams = StreamSettings(replicas=3)
    async with AsyncExitStack() as stack:
        contexts = [running(each) for each in before]
        nodes = list(await asyncio.gather(*(context.__aenter__() for context in contexts)))
        stack.push_async_callback(lambda: asyncio.gather(*(c.__aexit__(None, None, None) for c in contexts)))
        await ensure_streams(nodes[0][1], streams)
        for i, settings in enumerate(after):
            await contexts[i].__aexit__(None, None, None)
            contexts[i] = running(settings)
            nodes[i] = await contexts[i].__aenter__()
            await eventually(lambda i=i: nodes[i][2].server.get("cluster_peers") == 2.0, f"node {i} sees the others")  # type: ignore[misc]
            await ensure_streams(nodes[i][1], streams)
            await stored(JetStreamShard(nodes[i][1], streams, 0, f"node-{i}"), f"from {i}".encode())


async def test_a_new_secret_is_taken_by_a_reload_of_each_server(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("the-old-secret-of-all\n")
    settings = [replace(each, cluster_secret_file=path) for each in cluster(tmp_path, free_ports(3))]
    streams = StreamSettings(replicas=3)
    async with AsyncExitStack() as stack:
        nodes = await asyncio.gather(*(stack.enter_async_context(running(each)) for each in settings))
        await ensure_streams(nodes[0][1], streams)
        path.write_text("the-new-secret-of-all\n")
        for server, _, _ in nodes:
            await server.reload()
        port = int(settings[0].cluster_addr.rpartition(":")[2])
        for secret, word in (("the-old-secret-of-all", "Authorization Violation"), ("the-new-secret-of-all", "Route")):
            other = intruder(tmp_path / secret, port, f"harmonylite:{secret}@")
            await other.start()
            await eventually(lambda o=other, w=word: any(w in line for line in o.log), word)  # type: ignore[misc]
            await other.stop()
        assert not any("Authorization Violation" in line for line in other.log)
        for _, _, status in nodes:
            await eventually(lambda s=status: s.server.get("cluster_peers") == 2.0, "all are linked again")  # type: ignore[misc]
        await stored(JetStreamShard(nodes[0][1], streams, 0, "x"), b"x")


async def test_nodes_with_different_secrets_say_which_file_and_what_to_do(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ports = free_ports(2)
    files = [tmp_path / f"secret-{port}" for port in ports]
    one, two = [
        replace(each, cluster_secret_file=file) for each, file in zip(cluster(tmp_path, ports), files, strict=True)
    ]
    async with EmbeddedServer(one) as first, EmbeddedServer(two) as second:
        for server, file in ((first, files[0]), (second, files[1])):
            part = server._status.part("embedded")
            said = f"cluster secret {file}", "give every node of the cluster the same file with -cluster-secret-file"
            await eventually(lambda p=part, s=said: all(each in p.reason for each in s), "the reason")  # type: ignore[misc]
    for file in files:
        assert secret_in(file) not in caplog.text
    loud = [
        r for r in caplog.records if "rid:" in r.getMessage() and "uth" in r.getMessage() and r.levelname != "DEBUG"
    ]
    assert loud == []


def test_the_secret_is_in_no_repr_of_what_is_passed_on() -> None:
    assert "hush" not in repr(RouteLogin("u", "hush", "where"))
