"""The control API over real HTTP: who may enter, what arrives, how errors are told."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import tempfile
from typing import TYPE_CHECKING, Any

import pytest

from harmonylite.errors import (
    NO_ROOM,
    ConnectError,
    DatabaseBusyError,
    HarmonyLiteError,
    NotRunningError,
    SnapshotError,
)
from harmonylite.model import Conflict, RawText
from harmonylite.status import Part
from harmonylite.web.control import ControlServer
from harmonylite.web.control_file import ControlFile, read_control_file, write_control_file
from tests.parts.fix_nats import eventually
from tests.parts.web.fix_http import Reply, fetch, running_status

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

CONFLICT = Conflict(
    table="items",
    key={"id": 2**60, "part": b"\x00\xff"},
    column="price",
    kind="update",
    winning=RawText(b"\xff"),
    overruled=float("inf"),
    winner="8",
    loser="7",
    shard=0,
    seq=12,
    at=1742571045.5,
)


class FakeNode:
    """Remembers what it was asked; raises ``error`` when it is set."""

    def __init__(self) -> None:
        self.asked: list[tuple[object, ...]] = []
        self.error: Exception | None = None
        self.entered = asyncio.Event()
        self.hold = asyncio.Event()
        self.hold.set()

    async def _answer(self, *asked: object) -> dict[str, Any]:
        self.asked.append(asked)
        self.entered.set()
        await self.hold.wait()
        if self.error is not None:
            raise self.error
        return {"done": asked[0]}

    async def status(self) -> dict[str, Any]:
        await self._answer("status")
        return running_status().report()

    async def cluster(self) -> Sequence[dict[str, Any]]:
        return [await self._answer("cluster")]

    async def nodes(self) -> Sequence[dict[str, Any]]:
        return [await self._answer("nodes")]

    async def forget(self, node: str) -> dict[str, Any]:
        return await self._answer("forget", node)

    async def conflicts(self, table: str | None, limit: int) -> Sequence[Conflict]:
        await self._answer("conflicts", table, limit)
        return [CONFLICT]

    async def verify(self, repair: bool, seconds: float, without: frozenset[str]) -> dict[str, Any]:
        return await self._answer("verify", repair, seconds, *sorted(without))

    async def save_snapshot(self) -> dict[str, Any]:
        return await self._answer("save_snapshot")

    async def region(self, action: str, force: bool) -> dict[str, Any]:
        return await self._answer("region", action, force)

    async def skip(self, shard: int, seq: int) -> dict[str, Any]:
        return await self._answer("skip", shard, seq)

    async def left_out(self) -> list[dict[str, Any]]:
        return [await self._answer("left_out")]

    async def undo_skip(self, shard: int, seq: int) -> dict[str, Any]:
        return await self._answer("undo_skip", shard, seq)


class Control:
    """A control server over a fake node, and a client that has read its file."""

    def __init__(self, node: FakeNode, folder: Path) -> None:
        self.node = node
        self.folder = folder

    async def ask(self, path: str, body: Any = None, **headers: str | None) -> Reply:
        found = read_control_file(self.folder)
        sent = {"authorization": f"Bearer {found.token}"} | headers
        method = "GET" if body is None else "POST"
        text = body if isinstance(body, str | None) else json.dumps(body)
        kept = {name: value for name, value in sent.items() if value is not None}
        return await fetch(found.port, path, method=method, headers=kept, body=text)


@pytest.fixture
async def control(tmp_path: Path) -> AsyncIterator[Control]:
    node = FakeNode()
    async with ControlServer(node, tmp_path):
        yield Control(node, tmp_path)


async def test_the_file_is_the_owners_alone_and_lives_as_long_as_the_server(tmp_path: Path) -> None:
    async with ControlServer(FakeNode(), tmp_path) as server:
        path = tmp_path / "control.json"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        found = json.loads(path.read_text())
        assert set(found) == {"port", "token", "pid"}
        assert (found["port"], found["pid"]) == (server.port, os.getpid())
        assert len(found["token"]) >= 32
    assert not path.exists()


async def test_a_newer_nodes_file_is_left_alone_on_close(tmp_path: Path) -> None:
    newer = ControlFile(port=1, token="newer", pid=2)
    async with ControlServer(FakeNode(), tmp_path):
        write_control_file(tmp_path, newer)
    assert read_control_file(tmp_path) == newer


@pytest.mark.parametrize("number", NO_ROOM)
async def test_a_full_disk_keeps_no_node_from_starting_and_the_file_comes_with_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    make, part, full = tempfile.mkstemp, Part("control"), True

    def mkstemp(**how: Any) -> tuple[int, str]:
        if full:
            raise OSError(number, os.strerror(number))
        return make(**how)

    monkeypatch.setattr(tempfile, "mkstemp", mkstemp)
    monkeypatch.setattr("harmonylite.web.control.AGAIN", 0.01)
    async with ControlServer(FakeNode(), tmp_path, part=part):
        assert part.state == "waiting"
        assert os.strerror(number) in part.reason
    async with ControlServer(FakeNode(), tmp_path, part=part) as server:
        full = False
        await eventually(lambda: part.state == "ok")
        assert read_control_file(tmp_path).port == server.port
    assert not list(tmp_path.iterdir())


async def test_a_folder_that_is_not_there_is_an_error_and_leaves_nothing_open(tmp_path: Path) -> None:
    server = ControlServer(FakeNode(), tmp_path / "absent")
    with pytest.raises(HarmonyLiteError, match=r"control\.json"):
        await server.open()
    with pytest.raises(ConnectionRefusedError):
        await fetch(server.port, "/v1/status")


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"port": "x", "token": "t", "pid": 1}'])
def test_a_broken_file_reads_as_no_running_node(tmp_path: Path, text: str) -> None:
    with pytest.raises(NotRunningError):
        read_control_file(tmp_path)
    (tmp_path / "control.json").write_text(text)
    with pytest.raises(NotRunningError):
        read_control_file(tmp_path)


async def test_status_cluster_and_conflicts_answer(control: Control) -> None:
    assert (await control.ask("/v1/status")).json["node_id"] == "7"
    assert (await control.ask("/v1/cluster")).json == {"nodes": [{"done": "cluster"}]}
    reply = await control.ask("/v1/conflicts?table=items&limit=5")
    assert control.node.asked[-1] == ("conflicts", "items", 5)
    (found,) = reply.json["conflicts"]
    assert found["key"] == {"id": 2**60, "part": {"blob": "00ff"}}
    assert (found["winning"], found["overruled"]) == ({"raw_text": "ff"}, {"real": "inf"})
    assert (found["seq"], found["at"]) == (12, 1742571045.5)


async def test_verify_snapshot_and_skip_hand_their_arguments_on(control: Control) -> None:
    assert (await control.ask("/v1/verify", {"repair": True, "seconds": 5, "without": ["n3"]})).json == {
        "done": "verify"
    }
    assert (await control.ask("/v1/verify", "")).code == 200
    assert (await control.ask("/v1/snapshot", {})).json == {"done": "save_snapshot"}
    assert (await control.ask("/v1/skip", {"shard": 0, "seq": 9})).json == {"done": "skip"}
    assert (await control.ask("/v1/skip/list")).json == {"left_out": [{"done": "left_out"}]}
    assert (await control.ask("/v1/skip/undo", {"shard": 0, "seq": 9})).json == {"done": "undo_skip"}
    assert control.node.asked == [
        ("verify", True, 5.0, "n3"),
        ("verify", False, 30.0),
        ("save_snapshot",),
        ("skip", 0, 9),
        ("left_out",),
        ("undo_skip", 0, 9),
    ]


async def test_nodes_are_listed_and_forgotten_by_name(control: Control) -> None:
    assert (await control.ask("/v1/nodes")).json == {"nodes": [{"done": "nodes"}]}
    assert (await control.ask("/v1/forget", {"node": "n3"})).json == {"done": "forget"}
    assert control.node.asked == [("nodes",), ("forget", "n3")]


async def test_promoting_a_region_hands_its_arguments_on(control: Control) -> None:
    assert (await control.ask("/v1/region", {"action": "promote", "force": True})).json == {"done": "region"}
    assert (await control.ask("/v1/region", {"action": "rejoin"})).code == 200
    assert control.node.asked == [("region", "promote", True), ("region", "rejoin", False)]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/conflicts?limit=0", None),
        ("/v1/conflicts?limit=x", None),
        ("/v1/conflicts?limit=true", None),
        ("/v1/verify", "{"),
        ("/v1/verify", [1]),
        ("/v1/verify", {"repair": 1}),
        ("/v1/verify", {"seconds": 0}),
        ("/v1/verify", {"without": "n3"}),
        ("/v1/verify", {"without": [3]}),
        ("/v1/verify", {"seconds": "5"}),
        ("/v1/verify", '{"seconds": NaN}'),
        ("/v1/verify", {"repiar": True}),
        ("/v1/forget", {}),
        ("/v1/forget", {"node": ["n3"]}),
        ("/v1/forget", {"node": ""}),
        ("/v1/region", {}),
        ("/v1/region", {"action": "delete"}),
        ("/v1/region", {"action": "promote", "force": 1}),
        ("/v1/skip", {}),
        ("/v1/skip", {"shard": 0, "seq": 0}),
        ("/v1/skip", {"shard": True, "seq": 1}),
        ("/v1/skip", {"shard": -1, "seq": 1}),
        ("/v1/skip", {"shard": 0, "seq": 2**64}),
        ("/v1/skip/undo", {}),
        ("/v1/skip/undo", {"shard": 0, "seq": 0}),
        ("/v1/verify", "[" * 60_000),
        ("/v1/verify", " " * 70_000),
    ],
)
async def test_wrong_arguments_are_400_and_never_reach_the_node(control: Control, path: str, body: Any) -> None:
    reply = await control.ask(path, body)
    assert reply.code == 400
    assert reply.json["error"]
    assert control.node.asked == []


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": None},
        {"authorization": "Bearer wrong"},
        {"authorization": "Bearer "},
        {"authorization": "Basic dTpw"},
        {"authorization": "Bearer \xff"},
    ],
)
async def test_without_the_token_nothing_is_done(control: Control, headers: dict[str, str | None]) -> None:
    for path, body in (("/v1/status", None), ("/v1/snapshot", {}), ("/nowhere", None)):
        reply = await control.ask(path, body, **headers)
        assert (reply.code, "error" in reply.json) == (401, True)
    assert control.node.asked == []


@pytest.mark.parametrize(
    "headers",
    [{"host": "evil.example:80"}, {"host": "127.0.0.1"}, {"origin": "http://evil.example"}, {"origin": "null"}],
)
async def test_a_web_page_is_refused_even_with_the_token(control: Control, headers: dict[str, str]) -> None:
    reply = await control.ask("/v1/status", **headers)
    assert (reply.code, "error" in reply.json) == (403, True)
    assert control.node.asked == []


async def test_localhost_is_a_right_name_too(control: Control) -> None:
    port = read_control_file(control.folder).port
    assert (await control.ask("/v1/status", host=f"localhost:{port}")).code == 200


@pytest.mark.parametrize(
    ("error", "code", "exit_code"),
    [
        (SnapshotError("nothing to save", advice="write a row first"), 409, 9),
        (ConnectError("NATS at nats://a:4222 does not answer"), 503, 6),
        (DatabaseBusyError("the write lock of shop.db is held"), 503, 5),
    ],
)
async def test_an_error_of_ours_is_told_word_for_word(
    control: Control, error: HarmonyLiteError, code: int, exit_code: int
) -> None:
    control.node.error = error
    reply = await control.ask("/v1/snapshot", {})
    assert reply.code == code
    assert reply.json == {"error": str(error), "exit_code": exit_code}


async def test_any_other_error_is_logged_and_not_told(control: Control, caplog: pytest.LogCaptureFixture) -> None:
    control.node.error = RuntimeError("password hunter2")
    reply = await control.ask("/v1/status")
    assert reply.code == 500
    assert "hunter2" not in reply.text
    assert "Traceback" not in reply.text
    assert "hunter2" in caplog.text


async def test_unknown_paths_and_methods_are_json_errors(control: Control) -> None:
    unknown = await control.ask("/v2/status")
    assert (unknown.code, unknown.json) == (404, {"error": "no such path"})
    wrong = await control.ask("/v1/verify")
    assert (wrong.code, "error" in wrong.json) == (405, True)


async def test_a_command_that_runs_when_the_node_stops_still_gets_its_answer(tmp_path: Path) -> None:
    node = FakeNode()
    node.hold.clear()
    server = ControlServer(node, tmp_path)
    await server.open()
    asked = asyncio.create_task(Control(node, tmp_path).ask("/v1/snapshot", {}))
    await node.entered.wait()
    closing = asyncio.create_task(server.aclose())
    asyncio.get_running_loop().call_soon(node.hold.set)
    assert (await asked).json == {"done": "save_snapshot"}
    await closing


async def test_the_token_is_in_no_repr(tmp_path: Path) -> None:
    async with ControlServer(FakeNode(), tmp_path):
        found = read_control_file(tmp_path)
    assert found.token not in repr(found)
