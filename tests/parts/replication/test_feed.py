"""The change feed of real nodes over HTTP: whole transactions in order, from any position, once, and after the fold."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from nats import connect as nats_client

from harmonylite.identity import folder_for
from harmonylite.web.control_file import read_control_file
from tests.parts.fix_nats import PATIENCE, RealNats, eventually
from tests.parts.replication.fix_nodes import Running, items, write
from tests.parts.web.fix_http import Reply, fetch

SHARDS = "[replication_log]\nshards = 3\n"
DDL = "CREATE TABLE note(id INTEGER PRIMARY KEY, text TEXT, n INT)"


Pair = tuple[Running, Running]


class Reader:
    """One reader of a node's feed."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader

    async def line(self) -> bytes:
        """Return the next line of the answer's body, "" at its end; its chunks are lines of their own."""
        size = int(await self._reader.readline() or b"0", 16)
        found = await self._reader.readexactly(size)
        await self._reader.readline()
        return found

    async def entry(self) -> dict[str, Any]:
        """Return the next entry that says more than where the feed is."""
        async with asyncio.timeout(PATIENCE):
            while True:
                found: dict[str, Any] = json.loads(await self.line())
                if found.get("changes") or "error" in found or "skipped" in found:
                    return found

    async def entries(self, count: int) -> list[dict[str, Any]]:
        return [await self.entry() for _ in range(count)]


@asynccontextmanager
async def reading(node: Running, accept: str = "*/*", last: str = "", **query: str) -> AsyncIterator[Reader]:
    found = read_control_file(folder_for(node.database))
    reader, writer = await asyncio.open_connection("127.0.0.1", found.port)
    again = f"Last-Event-ID: {last}\r\n" if last else ""
    head = f"GET /v1/changes?{urlencode(query)} HTTP/1.1\r\nHost: 127.0.0.1:{found.port}\r\nAccept: {accept}\r\n{again}"
    writer.write(f"{head}Authorization: Bearer {found.token}\r\n\r\n".encode())
    status = await reader.readuntil(b"\r\n\r\n")
    assert b" 200 " in status, status
    opened = Reader(reader)
    await opened.line()  # where it begins: from here on nothing is missed
    try:
        yield opened
    finally:
        writer.close()


async def ask(node: Running, path: str, **query: object) -> Reply:
    found = read_control_file(folder_for(node.database))
    headers = {"authorization": f"Bearer {found.token}"}
    return await fetch(found.port, f"{path}?{urlencode(query)}", headers=headers)


def by_id(entries: list[dict[str, Any]]) -> dict[str, list[Any]]:
    found = {entry["id"]: sorted(entry["changes"], key=lambda change: str(change["key"])) for entry in entries}
    assert len(found) == len(entries)
    return found


def kinds(entries: list[dict[str, Any]]) -> list[tuple[str, str, Any]]:
    return [(c["table"], c["kind"], c["key"]) for entry in entries for c in entry["changes"]]


@pytest.fixture(params=["", SHARDS], ids=["one shard", "three shards"])
async def pair(nats: RealNats, tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Pair]:
    here, there = (Running(tmp_path, name, nats.url, DDL, more=request.param) for name in ("here", "there"))
    await here.start()
    await there.start()
    yield here, there
    await there.stop()
    await here.stop()


async def test_a_reader_gets_each_transaction_whole_with_both_values(pair: Pair) -> None:
    here, there = pair
    async with reading(there) as reader:
        write(
            here.database, "BEGIN", "INSERT INTO note VALUES(1, 'a', 1)", "INSERT INTO note VALUES(2, 'b', 2)", "COMMIT"
        )
        (both,) = await reader.entries(1)
        assert sorted(change["key"]["id"] for change in both["changes"]) == [1, 2]
        assert both["origin"] == "here"
        write(here.database, "UPDATE note SET text = 'z' WHERE id = 2")
        (update,) = (await reader.entry())["changes"]
        assert update == {
            "table": "note",
            "kind": "update",
            "key": {"id": 2},
            "before": {"text": "b"},
            "after": {"text": "z"},
        }
        write(there.database, "DELETE FROM note WHERE id = 1", "INSERT INTO item VALUES('x')")
        own = kinds(await reader.entries(1))
        own += kinds(await reader.entries(1)) if len(own) < 2 else []
        assert sorted(own) == [("item", "insert", {"id": "x"}), ("note", "delete", {"id": 1})], "its own come, too"
    told = (await ask(there, "/v1/history", table="item", key='["x"]')).json["events"]
    assert [event["after"] for event in told] == [{"id": "x"}], "no rowid beside a whole key"


async def test_what_a_reader_hears_of_is_in_the_database_beside_it(pair: Pair) -> None:
    here, there = pair
    async with reading(there, table="ITEM") as reader:
        for number in range(30):
            write(
                here.database, f"INSERT INTO item VALUES('{number}')", "REPLACE INTO note VALUES(1, 'other table', 0)"
            )
        seen: list[str] = []
        while len(seen) < 30:
            entry = await reader.entry()
            assert {change["table"] for change in entry["changes"]} == {"item"}
            seen += [change["key"]["id"] for change in entry["changes"]]
            assert set(seen) <= set(items(there.database))
    assert sorted(map(int, seen)) == list(range(30))


async def test_from_each_position_exactly_the_rest_comes(pair: Pair) -> None:
    here, there = pair
    async with reading(there, **{"from": "start"}) as reader:
        for number in range(6):
            rows = range(3) if number % 3 == 0 else [number]  # some touch all shards, some only one
            statements = [f"REPLACE INTO note VALUES({row}, 'x', {number})" for row in rows]
            write(here.database, "BEGIN", *statements, "COMMIT")
            assert (await ask(here, "/v1/position")).code == 200, "else the next write joins it"
        whole = await reader.entries(6)
    for number, entry in enumerate(whole[:-1]):
        async with reading(there, **{"from": entry["position"]}) as again:
            found = await again.entries(5 - number)
        assert by_id(found) == by_id(whole[number + 1 :]), "in the same order where they share a shard"
        assert len(here.engine.streams) > 1 or found == whole[number + 1 :]
    async with reading(here, **{"from": whole[2]["position"]}) as elsewhere:
        found = await elsewhere.entries(3)
    assert by_id(found) == by_id(whole[3:]), "a position of one node is one of every node"
    async with reading(there, accept="text/event-stream", last=whole[4]["position"]) as events:
        lines = (await events.line()).decode().splitlines()
    assert lines[0] == f"id: {whole[5]['position']}"
    assert lines[1] == "event: changes"
    assert by_id([json.loads(lines[2].removeprefix("data: "))]) == by_id(whole[5:])


async def test_a_large_transaction_comes_in_parts_and_has_one_position(pair: Pair) -> None:
    here, there = pair
    async with reading(there) as reader:
        rows = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < 2500)"
        write(here.database, f"INSERT INTO note SELECT x, 'x', x FROM ({rows} SELECT x FROM c)")
        parts = [await reader.entry()]
        while parts[-1]["position"] is None:
            parts.append(await reader.entry())
    assert len(parts) >= 3
    assert len({part["id"] for part in parts}) == 1
    assert sorted(change["key"]["id"] for part in parts for change in part["changes"]) == list(range(1, 2501))


async def test_what_was_written_here_can_be_read_there_after_waiting_for_its_position(
    pair: Pair,
) -> None:
    here, there = pair
    for number in range(10):
        write(here.database, f"INSERT INTO item VALUES('{number}')")
        position = (await ask(here, "/v1/position")).json["position"]
        answer = await ask(there, "/v1/wait", position=position, seconds=PATIENCE)
        assert answer.code == 200, answer.text
        assert str(number) in items(there.database)
    assert (await ask(there, "/v1/wait")).code == 200, "until it has all that is in the streams now"
    ahead = ",".join(f"{shard.shard}:1000000" for shard in here.engine.streams)
    late = await ask(there, "/v1/wait", position=ahead, seconds=0.2)
    assert (late.code, late.json["exit_code"]) == (503, 13)
    assert "of 1000000" in late.json["error"]


@pytest.mark.parametrize(
    ("query", "code", "exit_code", "said"),
    [
        ({"from": "yesterday"}, 409, 2, "'yesterday' is not a position"),
        ({"from": "0:99999"}, 409, 14, "the stream ends at"),
        ({"from": "0:0@00000000"}, 409, 14, "belongs to a stream that is gone"),
        ({"table": "nots"}, 409, 15, "did you mean note?"),
        ({"tabel": "note"}, 400, 2, "unknown argument 'tabel'"),
    ],
)
async def test_what_can_not_be_read_is_refused_with_the_reason(
    nats: RealNats, tmp_path: Path, query: dict[str, str], code: int, exit_code: int, said: str
) -> None:
    node = Running(tmp_path, "here", nats.url, DDL)
    await node.start()
    refused = await ask(node, "/v1/changes", **query)
    await node.stop()
    assert (refused.code, refused.json["exit_code"]) == (code, exit_code), refused.text
    assert said in refused.json["error"]


async def test_readers_end_with_the_node_and_cost_its_stop_no_wait(nats: RealNats, tmp_path: Path) -> None:
    node = Running(tmp_path, "here", nats.url, DDL)
    await node.start()
    async with reading(node) as reader:
        await node.stop()
        last = b"x"
        while last:
            last = await reader.line()
    await node.restart()
    feeds = node.node._feeds
    async with reading(node):
        await eventually(lambda: len(feeds._readers) == 1, "a reader")
    await eventually(lambda: not feeds._readers, "a reader that is gone is forgotten")
    await node.stop()


async def test_a_reader_that_takes_nothing_holds_up_nobody(pair: Pair) -> None:
    here, there = pair
    async with reading(there), reading(there) as live:
        for number in range(20):
            write(here.database, f"INSERT INTO note VALUES({number}, hex(randomblob(200000)), 1)")
        seen: set[int] = set()
        while len(seen) < 20:
            seen |= {change["key"]["id"] for change in (await live.entry())["changes"]}
        await eventually(lambda: there.node.status_object.left == 0, "folded")


async def test_readers_that_keep_up_share_one_reading(nats: RealNats, tmp_path: Path) -> None:
    """However many there are, the stream is read and each entry written down once more than for the node itself."""
    node = Running(tmp_path, "here", nats.url, DDL)
    await node.start()
    async with AsyncExitStack() as stack:
        readers = [await stack.enter_async_context(reading(node)) for _ in range(20)]
        for number in range(5):
            write(node.database, f"INSERT INTO note VALUES({number}, 'x', 1)")
            found = [await reader.entry() for reader in readers]
            assert all(entry == found[0] for entry in found)
        client = await nats_client(nats.url)
        info = await client.jetstream().stream_info("harmonylite-changes-0")
        await client.close()
        assert info.state.consumer_count <= 3, "the node's, the shared one, and one that a reader lets go of"
        late = await stack.enter_async_context(reading(node, **{"from": "start"}))
        assert len(await late.entries(5)) == 5
    await eventually(lambda: not node.node._feeds._tail.running, "its end after the last reader")
    await node.stop()


async def test_a_reader_that_falls_behind_gets_the_rest_once_and_in_order(
    nats: RealNats, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harmonylite.node.feed_tail.KEPT_BYTES", 200_000)
    node = Running(tmp_path, "here", nats.url, DDL)
    await node.start()
    feeds = node.node._feeds
    async with reading(node) as quick, reading(node) as slow:
        for number in range(24):
            write(node.database, f"INSERT INTO note VALUES({number}, hex(randomblob(300000)), 1)")
            seen = 0
            while seen < 1:
                seen += len((await quick.entry())["changes"])
        assert feeds._tail._bytes <= 1_000_000, "what is kept for slower readers is bounded"
        found: list[int] = []
        while len(found) < 24:
            found += [change["key"]["id"] for change in (await slow.entry())["changes"]]
        assert found == list(range(24))
        write(node.database, "INSERT INTO note VALUES(24, 'x', 1)")
        assert [change["key"]["id"] for change in (await slow.entry())["changes"]] == [24]
        assert [change["key"]["id"] for change in (await quick.entry())["changes"]] == [24]
    await node.stop()


async def test_a_transaction_is_not_torn_when_its_reader_falls_behind_within_it(
    nats: RealNats, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harmonylite.node.feed_tail.KEPT_BYTES", 50_000)
    node = Running(tmp_path, "here", nats.url, DDL)
    await node.start()
    rows = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < 5500)"
    async with reading(node) as slow:
        write(node.database, f"INSERT INTO note SELECT x, hex(randomblob(1000)), x FROM ({rows} SELECT x FROM c)")
        await eventually(lambda: node.node.status_object.left == 0, "folded")
        parts = [await slow.entry()]
        while parts[-1]["position"] is None:
            await asyncio.sleep(0.05)
            parts.append(await slow.entry())
    assert sorted(change["key"]["id"] for part in parts for change in part["changes"]) == list(range(1, 5501))
    await node.stop()
