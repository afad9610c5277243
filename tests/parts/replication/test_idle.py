"""A node that has nothing to do wakes rarely, and notices a commit as soon as ever, however long it was idle."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from harmonylite.db.replica import Replica
from harmonylite.db.sqlite.thread import SqliteThread
from harmonylite.db.sqlite.watch import Watch
from harmonylite.errors import DatabaseReplacedError
from harmonylite.node import services
from harmonylite.node.services import FileCheck
from harmonylite.node.wait_log import WaitLog
from harmonylite.replication.engine import Engine, EngineHooks
from harmonylite.replication.sender import SenderSettings
from harmonylite.status import NodeStatus
from harmonylite.ticks import tick
from tests.fix_clock import Clock, run
from tests.parts.db.fix_replicas import Group, Member
from tests.parts.replication.test_given_back import Line, Untroubled
from tests.simulation.tails import R

POLLING = 0.5
MINUTE = 60.0


class InTurn(SqliteThread):
    """Runs calls at once, and what is checked by the clock in the loop's own time. ``crossings``: the calls."""

    def __init__(self) -> None:
        super().__init__()
        self.crossings = 0

    async def _run(self, function: Callable[[], R], *, always: bool) -> R:
        self.crossings += 1
        await asyncio.sleep(0)
        return function()

    async def until(self, found: Callable[[], bool], every: float) -> None:
        await tick(every)
        while not found():
            await tick(every)

    def pause(self, seconds: float) -> bool:
        return False


class Idle:
    """What a node runs beside its connection to NATS, over the files of ``member``, its folder not watched."""

    def __init__(self, member: Member) -> None:
        self.member = member
        self.status = NodeStatus(db_connected=True, cdc_installed=True)
        self.status.nats_connected = True
        self.thread = InTurn()
        self.watch = Watch(member.options.database)

    async def __aenter__(self) -> Idle:
        member, lines = self.member, [Line(self.member.world, 0, None, deaf=False, beyond=0)]
        settings = SenderSettings(publish=True, polling_interval=POLLING, cleanup_interval=60.0)
        hooks = EngineHooks(lambda: 900_000, lambda name, at: None, Untroubled(), covering=None)
        engine = Engine(member.replica, self.thread, self.watch, lines, self.status, settings, hooks)
        file = FileCheck(member.replica)
        file.open()
        self._tasks = [
            asyncio.create_task(engine.run()),
            asyncio.create_task(WaitLog(self.status).run()),
            asyncio.create_task(self.thread.until(file.check, services.FILE_EVERY)),
        ]
        await asyncio.sleep(5.0)
        assert self.status.caught_up
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)
        assert all(task.cancelled() for task in self._tasks), self._tasks


@pytest.fixture
def member(make_group: Callable[[int], Group]) -> Member:
    (made,) = make_group(1).several(1, "CREATE TABLE t(id INTEGER PRIMARY KEY, v)")
    return made


def test_an_idle_node_wakes_with_its_poll_and_asks_nothing_of_the_thread(clock: Clock, member: Member) -> None:
    async def idle() -> None:
        async with Idle(member) as node:
            clock.wakes = node.thread.crossings = 0
            await asyncio.sleep(MINUTE)
            assert clock.wakes <= MINUTE / POLLING + 1
            assert node.thread.crossings == 0
            assert node.status.counters.looks >= MINUTE / POLLING

    run(clock, idle())


@pytest.mark.parametrize("event", [True, False], ids=["with an event", "without one"])
def test_a_commit_is_sent_within_a_polling_interval_after_long_idleness(
    clock: Clock, member: Member, event: bool
) -> None:
    async def idle() -> None:
        async with Idle(member) as node:
            await asyncio.sleep(10 * MINUTE)
            member.run("INSERT INTO t VALUES (1, 'x')")
            committed = clock.now
            if event:
                node.watch._event = True
                node.watch.wake()
            await asyncio.sleep(0.05 if event else POLLING + 0.05)
            assert node.member.world.last(0), clock.now - committed

    run(clock, idle())


def test_whether_the_file_went_back_is_read_only_after_others_wrote_and_once_in_a_while(
    member: Member, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Replica] = []

    def state(replica: Replica, joined: bool) -> bool:
        read.append(replica)
        return joined

    monkeypatch.setattr(services, "_check_state", state)
    file = FileCheck(member.replica)

    def reads(checks: int) -> int:
        before = len(read)
        for _ in range(checks):
            assert not file.check()
        return len(read) - before

    file.open()
    assert reads(services.STATE_EVERY + 1) == 1
    assert reads(services.STATE_RARELY - services.STATE_EVERY) == 0
    member.run("INSERT INTO t VALUES (1, 'x')")
    assert reads(services.STATE_EVERY) == 1
    assert reads(services.STATE_RARELY) == 1
    member.options.database.rename(member.options.database.with_suffix(".gone"))
    with pytest.raises(DatabaseReplacedError):
        file.check()
