"""A limit of NATS that is lowered while a change set is queued makes smaller messages, not a node that is stuck."""

from __future__ import annotations

from pathlib import Path

from tests.parts.fix_nats import RealNats, eventually
from tests.parts.replication.fix_nodes import Running, items, write


async def test_a_change_set_that_max_payload_no_longer_admits_is_captured_again(tmp_path: Path) -> None:
    server = RealNats(tmp_path / "nats")
    await server.start()
    nodes = [
        Running(tmp_path, name, server.url, more="[replication_log]\nshards = 2\ncompress = false\n")
        for name in ("here", "there")
    ]
    for node in nodes:
        await node.start()
    await server.stop()
    write(nodes[0].database, *(f"INSERT INTO item VALUES('{name}' || hex(randomblob(150000)))" for name in "abc"))
    await eventually(lambda: bool(nodes[0].engine.sender._in_flight), "it is captured")
    server.payload = "64KB"
    await server.start()
    await eventually(lambda: len(items(nodes[1].database)) == 3, "the rows are on the other node")
    assert items(nodes[1].database) == items(nodes[0].database)
    for node in nodes:
        await node.stop()
    await server.stop()
