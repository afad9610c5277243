"""A merge that waits for an application's transaction holds up nothing else that the node does with the database."""

from __future__ import annotations

import asyncio

from harmonylite.db.sqlite.thread import SqliteThread
from harmonylite.status import NodeStatus
from tests.parts.db.fix_holding import holding
from tests.parts.db.fix_replicas import PAIRED, Group
from tests.parts.fix_nats import eventually
from tests.parts.replication.fix_receiver import receiver_of

PATIENCE = 600.0


async def test_a_local_commit_is_captured_while_a_merge_waits_for_a_transaction(group: Group) -> None:
    writer, waiting = group.several(2, PAIRED, patience=PATIENCE)
    writer.run("INSERT INTO t VALUES (1, 'x', 10), (2, 'y', 20)")
    group.settle()
    writer.run("UPDATE t SET b = 99 WHERE id = 2")
    writer.send()
    status, thread = NodeStatus(), SqliteThread()
    waiting.replica.others.pause = thread.pause
    receiver = receiver_of(group, waiting, thread, status)
    await thread.run(receiver.open, {}, [])
    for message in group.world.after(0, receiver.reassembler.read_up_to(0), 10):
        receiver.reassembler.add(message)
    applying = asyncio.create_task(receiver.apply())
    try:
        with holding(waiting.options.database, "BEGIN", "SELECT * FROM t"):
            receiver._arrived.set()
            await eventually(lambda: thread._calls.empty() and receiver._applying is not None)
            for number in range(3):
                waiting.run("UPDATE t SET b = ? WHERE id = 1", (number,))
                async with asyncio.timeout(60):
                    assert await thread.run(waiting.capture) == 1
                waiting.drop()
            assert waiting.run("SELECT b FROM t ORDER BY id") == [(2,), (20,)], "the merge waits"
        await eventually(lambda: status.counters.folded_change_sets == 1)
        assert waiting.run("SELECT b FROM t ORDER BY id") == [(2,), (99,)]
    finally:
        applying.cancel()
        await asyncio.wait({applying})
        await thread.aclose()
