"""A message of another history makes a node look at once whether the cluster has another beginning."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from harmonylite.db.sqlite.thread import SqliteThread
from harmonylite.model import StreamMessage
from harmonylite.replication.receiver import Receiver
from harmonylite.status import NodeStatus
from harmonylite.wire import KIND_CHANGES, KIND_CHECKPOINT, VERSION, Envelope, encode_envelope
from tests.parts.db.fix_replicas import Group
from tests.parts.fix_nats import eventually
from tests.simulation.tails import Tape


def message(seq: int, history: str, kind: int = KIND_CHANGES) -> StreamMessage:
    body = b"" if kind == KIND_CHECKPOINT else b"\x90"
    envelope = Envelope(VERSION, kind, "b", "s", seq, 0, False, True, [0], 1.0, {}, False, body, history)
    return StreamMessage(0, seq, "c.0.b", encode_envelope(envelope), 1.0)


class Arriving(Tape):
    """A stream whose messages come one by one, as the test gives them."""

    def __init__(self, group: Group) -> None:
        super().__init__(group.world, 0, 0)
        self.queue: asyncio.Queue[StreamMessage] = asyncio.Queue()

    async def read(self, start: int) -> AsyncIterator[list[StreamMessage]]:
        while True:
            yield [await self.queue.get()]


async def test_each_other_history_is_heard_of_once_in_change_sets_and_checkpoints_alike(group: Group) -> None:
    (reader,) = group.several(1, "CREATE TABLE t(id INTEGER PRIMARY KEY, v)")
    heard: list[int] = []
    stream, thread = Arriving(group), SqliteThread()
    receiver = Receiver(
        reader.replica,
        thread,
        [stream],
        NodeStatus(),
        landed=lambda name, whole: None,
        moved=lambda: None,
        checkpoint=lambda name, at: None,
        other_history=lambda: heard.append(receiver.reassembler.read_up_to(0)),
    )
    try:
        await thread.run(receiver.open, {}, [])
        own = reader.replica.lineage().history
        reading = asyncio.create_task(receiver.read(0))
        for seq, (history, kind) in enumerate(
            [
                (own, KIND_CHANGES),
                ("", KIND_CHANGES),
                ("x", KIND_CHANGES),
                ("x", KIND_CHECKPOINT),
                ("y", KIND_CHECKPOINT),
            ],
            start=1,
        ):
            stream.queue.put_nowait(message(seq, history, kind))
        await eventually(lambda: receiver.reassembler.read_up_to(0) == 5 and stream.queue.empty())
        await eventually(lambda: len(heard) == 2)
        assert heard == [3, 5]
        reading.cancel()
        await asyncio.wait({reading})
    finally:
        receiver.close()
        await thread.aclose()
