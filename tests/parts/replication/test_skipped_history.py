"""What can't be applied and was left out holds up no look back: copy and history name it, and lack only it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import pytest
from msgspec import structs

from harmonylite.wire import VERSION, Envelope, TableBlock, Updates
from tests.parts.fix_nats import RealNats, eventually
from tests.parts.replication.fix_nodes import Running, change_set, items

COLUMNS = ["id", "rowid"]


def part(inserts: Sequence[Any] = (), updates: Sequence[Updates] = ()) -> TableBlock:
    return TableBlock("item", COLUMNS, 2, inserts=list(inserts), updates=list(updates))


STRANGE: dict[str, Callable[[int], Envelope]] = {
    "a block that is none": lambda n: change_set("x", n, body=b"\xc1"),
    "a newer version": lambda n: structs.replace(change_set("x", n, part()), version=VERSION + 1),
    "a row that is too short": lambda n: change_set("x", n, part(inserts=[["one"]])),
    "no old values": lambda n: change_set("x", n, part(updates=[Updates([1], [["one", None]], [])])),
    "a column out of range": lambda n: change_set("x", n, part(updates=[Updates([7], [["one", None]], [[1]])])),
    "a value that SQLite has not": lambda n: change_set("x", n, part(inserts=[["one", [1]]])),
    "a table that is not here": lambda n: change_set("x", n, TableBlock("extra", ["id"], 1, inserts=[["e"]])),
}


@pytest.fixture
async def node(nats: RealNats, tmp_path: Path) -> AsyncIterator[Running]:
    running = Running(tmp_path, "near", nats.url)
    await running.start()
    yield running
    await running.stop()


async def test_a_copy_and_the_history_name_what_they_lack(node: Running, tmp_path: Path) -> None:
    past, status = node.node._past, node.node.status_object
    await eventually(lambda: past.replaying is not None and status.counters.snapshots_saved > 0, "a snapshot is saved")
    await node.says(change_set("x", 1, part(inserts=[["one", None]])))
    left_out = []
    for number, strange in enumerate(STRANGE.values(), start=2):
        seq = await node.says(strange(number))
        await eventually(lambda: (0, seq) in node.engine.receiver.paused, "paused")  # noqa: B023
        await node.asked.skip(0, seq)
        left_out.append((0, seq))
    last = await node.says(change_set("x", 100, part(inserts=[["two", None]])))
    await eventually(lambda: items(node.database) == ["one", "two"], "it continues")
    await node.engine.receiver.skips.settle({0: last})
    assert await node.asked.left_out() == [], "a comparison that agrees forgets the skips"
    made = await past.restore(str(tmp_path / "copy.db"), None, None)
    with closing(apsw.Connection(str(tmp_path / "copy.db"))) as copy:
        assert copy.execute("SELECT id FROM item ORDER BY id").fetchall() == [("one",), ("two",)]
    assert sorted((entry["shard"], entry["seq"]) for entry in made["left_out"]) == left_out
    assert all(f"message {entry['seq']}" in entry["reason"] for entry in made["left_out"])
    told = await past.history("item", ["one"], 100)
    assert [event["kind"] for event in told["events"]] == ["insert"]
    unknown = left_out[[*STRANGE].index("a table that is not here")]
    assert sorted((entry["shard"], entry["seq"]) for entry in told["left_out"]) == [x for x in left_out if x != unknown]
