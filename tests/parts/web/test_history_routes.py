"""Questions about the past over real HTTP: what arrives at the node, and what is refused before it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from harmonylite.errors import SnapshotError
from harmonylite.web.control import ControlServer
from harmonylite.web.control_file import read_control_file
from tests.parts.web.fix_http import Reply, fetch
from tests.parts.web.test_control import FakeNode


class FakePast:
    """Remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[object, ...]] = []

    async def snapshots(self) -> Sequence[dict[str, Any]]:
        return [{"name": "snapshot-1"}]

    async def fetch_snapshot(self, name: str, target: str) -> dict[str, Any]:
        self.asked.append(("fetch", name, target))
        raise SnapshotError("there is no snapshot yet")

    async def restore(self, target: str, at: float | None, position: int | None) -> dict[str, Any]:
        self.asked.append(("restore", target, at, position))
        return {"file": target}

    async def history(self, table: str, key: Sequence[str], limit: int) -> dict[str, Any]:
        self.asked.append(("history", table, list(key), limit))
        return {"events": []}


async def ask(folder: Path, path: str, body: Any = None) -> Reply:
    found = read_control_file(folder)
    headers = {"authorization": f"Bearer {found.token}"}
    method, text = ("GET", None) if body is None else ("POST", json.dumps(body))
    return await fetch(found.port, path, method=method, headers=headers, body=text)


async def test_each_question_reaches_the_node_with_its_arguments(tmp_path: Path) -> None:
    past = FakePast()
    async with ControlServer(FakeNode(), tmp_path, past):
        assert (await ask(tmp_path, "/v1/snapshots")).json == {"snapshots": [{"name": "snapshot-1"}]}
        refused = await ask(tmp_path, "/v1/snapshot/fetch", {"target": "/x.db"})
        assert (refused.code, refused.json["exit_code"]) == (409, 9)
        assert (await ask(tmp_path, "/v1/snapshot/restore", {"target": "/x.db", "at": 1.5})).json == {"file": "/x.db"}
        await ask(tmp_path, "/v1/snapshot/restore", {"target": "/x.db", "position": 7})
        query = urlencode({"table": "order", "key": json.dumps(["1", "ä"]), "limit": 5})
        assert (await ask(tmp_path, f"/v1/history?{query}")).json == {"events": []}
    assert past.asked == [
        ("fetch", "", "/x.db"),
        ("restore", "/x.db", 1.5, None),
        ("restore", "/x.db", None, 7),
        ("history", "order", ["1", "ä"], 5),
    ]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/snapshot/fetch", {}),
        ("/v1/snapshot/fetch", {"target": 1}),
        ("/v1/snapshot/restore", {"target": "/x", "at": "monday"}),
        ("/v1/snapshot/restore", {"target": "/x", "at": True}),
        ("/v1/snapshot/restore", {"target": "/x", "position": -1}),
        ("/v1/snapshot/restore", {"target": ""}),
        ("/v1/history?key=[]", None),
        ("/v1/history?table=t&key=1", None),
        ("/v1/history?table=t&key=[1]", None),
        ("/v1/history?table=t&key=[]&limit=0", None),
    ],
)
async def test_what_can_not_be_meant_is_refused(tmp_path: Path, path: str, body: dict[str, Any] | None) -> None:
    past = FakePast()
    async with ControlServer(FakeNode(), tmp_path, past):
        answer = await ask(tmp_path, path, body)
    assert (answer.code, answer.json["exit_code"]) == (400, 2)
    assert past.asked == []
