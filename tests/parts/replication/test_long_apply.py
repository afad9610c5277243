"""What takes long to apply is told in health while it runs, and no longer."""

from __future__ import annotations

import asyncio
import threading

import pytest

from harmonylite.db.sqlite.thread import SqliteThread
from harmonylite.replication import lag
from harmonylite.status import NodeStatus
from tests.parts.db.fix_replicas import Group
from tests.parts.fix_nats import eventually
from tests.parts.replication.fix_receiver import receiver_of


async def test_a_change_set_that_takes_long_is_told_while_it_is_applied(
    group: Group, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lag, "LONG_SECONDS", 0.01)
    writer, reader = group.several(2, "CREATE TABLE t(id INTEGER PRIMARY KEY, v)")
    writer.run("INSERT INTO t VALUES (1, hex(randomblob(400000)))")
    writer.send()
    writer.drop()
    status, thread, over = NodeStatus(), SqliteThread(), threading.Event()
    receiver = receiver_of(group, reader, thread, status)
    try:
        await thread.run(receiver.open, {}, [])
        for message in group.world.after(0, 0, 10):
            receiver.reassembler.add(message)
        busy = asyncio.create_task(thread.run(over.wait))
        applying = asyncio.create_task(receiver.apply())
        receiver._arrived.set()
        await eventually(lambda: bool(status.waits))
        assert "applying 1 change sets takes its time; the largest has " in status.waits[0]
        assert "comes from node a and ends at message 1 of shard 0" in status.waits[0]
        over.set()
        await eventually(lambda: not status.waits and status.counters.folded_change_sets == 1)
        applying.cancel()
        await asyncio.wait({busy, applying})
    finally:
        over.set()
        await thread.aclose()
