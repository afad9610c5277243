"""Keys of nats-server files are found as nats-server would find them, whatever the style."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from harmonylite.nats_server.config_keys import conf_keys
from harmonylite.nats_server.routes import expand

STYLES = {
    "plain": 'port: 4222\njetstream {\n store_dir: "/a b"\n max_file = 1G }\n',
    "compact": 'port=4222,jetstream:{store_dir:"/a",max_file:1G}',
    "json": '{"port": 4222, "jetstream": {"store_dir": "/a", "max_file": 1}}',
    "comments": "# port2: 1\nport: 4222 // x: 1\njetstream { # y: 1\n store_dir: '/a' \n max_file 1GB\n}",
    "upper": "Port: 4222\nJETSTREAM { Store_Dir: /a\n max_file: 1G }",
    "urls": "port: 4222\njetstream { store_dir: /a; max_file: 1G }",
}


@pytest.mark.parametrize("style", STYLES)
def test_keys_are_found_in_every_style(tmp_path: Path, style: str) -> None:
    path = tmp_path / "x.conf"
    path.write_text(STYLES[style])
    found = conf_keys(path)
    assert found - {""} == {"port", "jetstream", "jetstream.store_dir", "jetstream.max_file"}


def test_what_stands_inside_lists_and_strings_is_no_key(tmp_path: Path) -> None:
    path = tmp_path / "x.conf"
    path.write_text(
        "cluster {\n routes = [\n  nats-route://u:p@a:1\n  { url: x }\n ]\n name: 'x: {'\n}\n"
        "leafnodes { remotes = [ { url: nats://host:7422, credentials: '/x' } ] }\n"
        "authorization: { users: [ {user: a} ] }"
    )
    assert conf_keys(path) == {
        *("cluster", "cluster.routes", "cluster.name", "leafnodes", "leafnodes.remotes"),
        *("authorization", "authorization.users"),
    }


def test_includes_are_followed_and_may_go_in_circles(tmp_path: Path) -> None:
    (tmp_path / "a.conf").write_text("include 'b.conf'\njetstream { include ./c.conf }\n")
    (tmp_path / "b.conf").write_text("port: 1\ninclude a.conf\n")
    (tmp_path / "c.conf").write_text("store_dir: /x\n")
    assert conf_keys(tmp_path / "a.conf") == {"port", "jetstream", "jetstream.store_dir"}


def test_a_file_that_can_not_be_read_has_no_keys(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    assert conf_keys(tmp_path / "binary") == conf_keys(tmp_path / "absent") == frozenset()


async def test_names_behind_dns_become_all_their_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    async def answers(host: str, port: object, **_: object) -> list[tuple[object, ...]]:
        if host != "peers.example":
            raise OSError("no such name")
        return [(0, 0, 0, "", ("10.0.0.2", 0)), (0, 0, 0, "", ("fd00::1", 0, 0, 0)), (0, 0, 0, "", ("10.0.0.2", 0))]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", answers)
    found = await expand(["dns://peers.example:4222/", "nats://b:4223/", "dns://gone:1/", "nats://u:p@c/"], 4248)
    assert found == ["10.0.0.2:4222", "[fd00::1]:4222", "b:4223", "u:p@c:4248"]
