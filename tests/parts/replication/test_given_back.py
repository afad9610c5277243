"""Where blocks wait is given back by its owner, whichever way the owner ends; nothing is left to the collector."""

from __future__ import annotations

import asyncio
import errno
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import suppress
from tempfile import SpooledTemporaryFile
from typing import IO, Any

import apsw
import msgspec
import pytest

from harmonylite.changes.reassembler import Reassembler
from harmonylite.db.capture import capture
from harmonylite.db.replica import Replica
from harmonylite.db.sqlite.thread import SqliteThread
from harmonylite.db.sqlite.watch import Watch
from harmonylite.errors import DatabaseError, HarmonyLiteError, StreamError, StreamGapError, leaves
from harmonylite.model import ChangeSetId, Position, StreamInfo, StreamMessage
from harmonylite.replication import receiver, row_history
from harmonylite.replication.engine import Engine, EngineHooks
from harmonylite.replication.sender import SenderSettings
from harmonylite.snapshots import roll_forward
from harmonylite.snapshots.replay import bring_forward
from harmonylite.status import NodeStatus
from harmonylite.wire import VERSION, TableBlock, encode_block, encode_tables
from tests.parts.db.fix_replicas import Group, Member
from tests.rules.changes.fix_streams import envelope
from tests.simulation.tails import Tape
from tests.simulation.world import World

FAR = 1_000_000
MOMENTS = (0.0, 0.05)
"""Seconds after which a run is cancelled: any moment is right."""


@pytest.fixture
def places(monkeypatch: pytest.MonkeyPatch) -> list[SpooledTemporaryFile[bytes]]:
    """All places that were made: who drops one that is open leaves it to the collector, at whatever moment that is."""
    made: list[SpooledTemporaryFile[bytes]] = []

    def make(*, max_size: int, dir: str | None = None) -> SpooledTemporaryFile[bytes]:
        made.append(SpooledTemporaryFile(max_size=max_size, dir=dir))  # noqa: SIM115 -- the code under test closes it
        return made[-1]

    for module in (capture, receiver, roll_forward, row_history):
        monkeypatch.setattr(module, "SpooledTemporaryFile", make)
    return made


def left_open(places: list[SpooledTemporaryFile[bytes]]) -> int:
    """Return how many were not given back, and close them."""
    left = [each for each in places if not each.closed]
    for each in left:
        each.close()
    return len(left)


def block(table: str = "t", width: int = 2) -> bytes:
    """Return the block of a change set that inserts one row."""
    row = [1, "x", "y"][:width]
    encoded, _ = encode_block([encode_tables(TableBlock(table, ["id", "v", "w"][:width], 1, [row]))], compress=False)
    return encoded


def said(number: int, body: bytes, *, shards: Sequence[int] = (0,), last: bool = True) -> bytes:
    """Return one message of node ``x``, on shard 0."""
    return envelope(ChangeSetId("x", "s", number), 0, last=last, more=not last, shards=shards, body=body)


WAITING = [said(1, block()), said(2, block(), shards=(0, 1)), said(3, block(), last=False)]
"""What waits in a reassembler: one is whole, one waits for its part on another shard, one for its next message."""
LAST = {
    "nothing": [],
    "whole": [said(4, block())],
    "unreadable": [said(4, b"\xff\xff")],
    "a newer version's": [msgspec.msgpack.encode([VERSION + 1, "x"])],
    "no table for it": [said(4, block("other"))],
    "more columns": [said(4, block(width=3))],
}


class Line(Tape):
    """A stream that ends as it is asked to: ``error`` comes behind the messages; ``deaf``: no publish is answered."""

    def __init__(self, world: World, shard: int, error: StreamError | None, *, deaf: bool, beyond: int) -> None:
        super().__init__(world, shard, 0, node="a")
        self._error = error
        self._deaf = deaf
        self._beyond = beyond

    async def info(self) -> StreamInfo:
        return StreamInfo(self.shard, 1, self.now.last + self._beyond, "now")

    async def last_own(self) -> StreamMessage | None:
        return None

    async def read(self, start: int) -> AsyncIterator[list[StreamMessage]]:
        if batch := self._world.after(self.shard, start - 1, 1 << 30):
            yield batch
        if self._error is not None:
            raise self._error
        await asyncio.Event().wait()

    async def publish(
        self, payload: bytes, *, message_id: str, expected_last: int | None = None, expected_end: int | None = None
    ) -> int:
        if self._deaf:
            await asyncio.Event().wait()
        return await super().publish(payload, message_id=message_id)


class Untroubled:
    """The recovery of a node whose streams are unchanged."""

    one_by_one = False

    async def check(self, replica: Replica) -> None:
        """Say nothing against the streams."""

    async def watch(self, replica: Replica) -> None:
        await asyncio.Event().wait()

    async def recover(self, replica: Replica) -> None:
        await asyncio.Event().wait()

    def turn(self) -> None:
        """Look at once: there is nothing to see."""


Run = Callable[[Member, SqliteThread, Sequence[Line]], Coroutine[None, None, object]]


async def replicating(member: Member, thread: SqliteThread, lines: Sequence[Line]) -> None:
    """Receive and send, rows that the application wrote before among it."""
    engine = Engine(
        member.replica,
        thread,
        Watch(member.options.database),
        lines,
        NodeStatus(),
        SenderSettings(publish=True, polling_interval=0.01, cleanup_interval=0.0),
        EngineHooks(message_bytes=lambda: 1000, checkpoint=lambda name, at: None, recovery=Untroubled(), covering=None),
    )
    await engine.run()


async def catching_up(member: Member, thread: SqliteThread, lines: Sequence[Line]) -> None:
    targets = dict.fromkeys(range(2), FAR)
    await roll_forward.catch_up(member.replica, thread, lines, targets, merge=True, progress=lambda at: None)


async def replaying(member: Member, thread: SqliteThread, lines: Sequence[Line]) -> None:
    targets = dict.fromkeys(range(2), FAR)
    await bring_forward(member.replica, thread, lines, targets, merge=True)


async def asking(member: Member, thread: SqliteThread, lines: Sequence[Line]) -> object:
    return await row_history.history(lines, member.replica.tables["t"].shape, ["1"], most=10)


@pytest.mark.parametrize("last", LAST)
@pytest.mark.parametrize("run", [replicating, catching_up, replaying, asking])
async def test_whoever_reads_streams_gives_back_what_waits_however_the_reading_ends(
    make_group: Callable[[int], Group], run: Run, last: str, places: list[SpooledTemporaryFile[bytes]]
) -> None:
    ends: list[tuple[StreamError | None, float, bool, int]] = [(None, moment, True, 1) for moment in MOMENTS]
    ends += [
        (None, MOMENTS[-1], False, 0),
        (StreamError("cut"), 0.2, True, 1),
        (StreamGapError("forgot", shard=0, wanted=5, first=9), 0.2, True, 1),
    ]
    for error, moment, deaf, beyond in ends:
        group = make_group(2)
        (member,) = group.several(1, "CREATE TABLE t(id INTEGER PRIMARY KEY, v)")
        member.run("INSERT INTO t VALUES (7, 'of the application')")
        for payload in [*WAITING, *LAST[last]]:
            group.world.publish(0, "x", payload)
        thread = SqliteThread()
        lines = [Line(group.world, shard, error, deaf=deaf, beyond=beyond) for shard in range(2)]
        running = asyncio.create_task(run(member, thread, lines))
        await asyncio.wait({running}, timeout=moment)
        running.cancel()
        await asyncio.wait({running})
        await thread.aclose()
        failed = None if running.cancelled() else running.exception()
        assert failed is None or all(isinstance(each, HarmonyLiteError) for each in leaves(failed))
        assert left_open(places) == 0, (error, moment)


class Occupying(Line):
    """A stream whose messages come while a call occupies the thread, and then an error."""

    def __init__(self, world: World, thread: SqliteThread) -> None:
        super().__init__(world, 0, StreamError("cut"), deaf=True, beyond=1)
        self._thread = thread
        self.occupied, self.may_go = asyncio.Event(), threading.Event()
        self.occupying: asyncio.Task[bool] | None = None

    async def read(self, start: int) -> AsyncIterator[list[StreamMessage]]:
        async for batch in super().read(start):
            self.occupying = asyncio.create_task(self._thread.run(self.may_go.wait, 60))
            self.occupied.set()
            yield batch


@pytest.mark.parametrize("run", [replicating, catching_up, replaying])
async def test_whoever_is_cancelled_while_it_closes_has_given_back_what_waited(
    make_group: Callable[[int], Group], run: Run, places: list[SpooledTemporaryFile[bytes]]
) -> None:
    for turns in range(1, 40, 3):
        group, thread = make_group(2), SqliteThread()
        (member,) = group.several(1, "CREATE TABLE t(id INTEGER PRIMARY KEY, v)")
        for payload in WAITING:
            group.world.publish(0, "x", payload)
        line = Occupying(group.world, thread)
        running = asyncio.create_task(run(member, thread, [line, Line(group.world, 1, None, deaf=True, beyond=1)]))
        async with asyncio.timeout(60):
            await line.occupied.wait()
        await _turns(turns)
        running.cancel()
        closing = asyncio.create_task(_ended(running, thread))
        await _turns(10)
        line.may_go.set()
        await closing
        assert line.occupying is not None
        await asyncio.wait({line.occupying})  # dropped, where the thread ended before it began
        assert running.cancelled() or isinstance(running.exception(), BaseException | None)
        assert left_open(places) == 0, turns


async def _turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def _ended(running: asyncio.Task[object], thread: SqliteThread) -> None:
    await asyncio.wait({running})
    await thread.aclose()


async def test_what_was_captured_while_its_sender_was_cancelled_is_given_back(
    group: Group, places: list[SpooledTemporaryFile[bytes]]
) -> None:
    (member,) = group.several(1, "CREATE TABLE t(id INTEGER PRIMARY KEY, v)")
    member.run("INSERT INTO t VALUES (7, 'of the application')")
    thread, reached, cancelled = SqliteThread(), asyncio.Event(), asyncio.Event()
    loop, take = asyncio.get_running_loop(), member.replica.capture
    captured = []

    def slow(number: int, **how: Any) -> object:
        captured.append(take(number, **how))
        loop.call_soon_threadsafe(reached.set)
        asyncio.run_coroutine_threadsafe(cancelled.wait(), loop).result()
        return captured[-1]

    member.replica.capture = slow  # type: ignore[method-assign,assignment]
    lines = [Line(group.world, 0, None, deaf=True, beyond=0)]
    running = asyncio.create_task(replicating(member, thread, lines))
    await reached.wait()
    running.cancel()
    await _turns(10)  # until the sender hears of it
    cancelled.set()
    await asyncio.wait({running})
    await thread.aclose()
    assert captured[0] is not None
    assert left_open(places) == 0


def test_a_capture_that_is_interrupted_at_any_moment_leaves_nothing_open(
    group: Group, places: list[SpooledTemporaryFile[bytes]]
) -> None:
    (member,) = group.several(1, "CREATE TABLE t(id INTEGER PRIMARY KEY, v)")
    member.run("INSERT INTO t VALUES (7, 'of the application')")
    interrupted = steps = left = 0

    def interrupts() -> bool:
        nonlocal left
        left -= 1
        return left == 0

    while left <= 0:  # until a capture ended before its turn to be interrupted
        steps = left = steps + 1
        member.replica.connection.set_progress_handler(interrupts, 1)
        try:
            out = member.replica.capture(steps, message_bytes=1000)
        except (DatabaseError, apsw.Error):
            interrupted += len(places)
        else:
            assert out is not None
            out.close()
        finally:
            member.replica.connection.set_progress_handler(None)
        assert left_open(places) == 0, steps
        assert not member.replica.connection.in_transaction, steps
        places.clear()
    assert interrupted > 10, steps


@pytest.mark.parametrize("writes", [0, 1, 2])
@pytest.mark.parametrize("count", [1, 3])
def test_an_inbox_whose_disk_is_full_gives_all_back(writes: int, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[SpooledTemporaryFile[bytes]] = []
    left = iter([*range(writes)])

    def spool(most: int) -> IO[bytes]:
        place = SpooledTemporaryFile[bytes](max_size=most)
        write = place.write

        def full(data: bytes) -> int:
            if next(left, None) is None:
                raise OSError(errno.ENOSPC, "No space left on device")
            return write(data)

        monkeypatch.setattr(place, "write", full)
        made.append(place)
        return place

    reassembler, name = Reassembler({0: Position(0)}, spool=spool), ChangeSetId("x", "s", 1)
    with suppress(OSError):
        for seq in range(1, 4):
            payload = envelope(name, (seq - 1) % count, last=seq % count == 0, shards=[0], more=seq % count != 0)
            reassembler.add(StreamMessage(0, seq, "p.0.x", payload))
    reassembler.close()
    assert made
    assert left_open(made) == 0
