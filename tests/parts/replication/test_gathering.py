"""The sender waits between change sets while an application writes a lot, and not at all after a lone write.

While it waits it listens to nobody, and misses nothing for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harmonylite.model import ChangeSetId
from harmonylite.replication.sender import GATHER, PATIENCE, POLLS, Sender, SenderSettings, pause_after
from harmonylite.status import NodeStatus


def test_a_lone_write_is_followed_at_once() -> None:
    assert pause_after(rows=1, logged=0) == 0, "a new row, which its rowid tells"
    assert pause_after(rows=1, logged=1) == 0


def test_many_writes_to_one_row_gather_as_writes_to_many_rows_do() -> None:
    assert pause_after(rows=1, logged=100) == pause_after(rows=100, logged=100) > 0


def test_the_pause_is_bounded() -> None:
    assert pause_after(rows=1_000_000, logged=0) == pause_after(rows=1, logged=1_000_000) == GATHER


class Commits:
    """Stands for replica, thread, publisher and watch of a sender; ``waiting``: rows of commits not captured yet.

    ``on_listening``: rows of a commit that is made just before the sender listens again, and causes no event;
    ``alarms``: events that nothing is behind; ``late``: rows of a commit that is heard, and shows ``after`` looks.
    """

    def __init__(
        self,
        waiting: list[int],
        *,
        on_listening: list[int] | None = None,
        alarms: int = 0,
        late: list[int] | None = None,
        after: int = 0,
    ) -> None:
        self.options = SimpleNamespace(database=Path("app.db"), mirror=Path("mirror.db"))
        self.suspicious = self.holding = False
        self.unnoted = 0
        self.waiting, self.on_listening = waiting, on_listening or []
        self.alarms = alarms
        self.late, self.after = late or [], after
        self.waits = 0
        self.wanted = False
        self.writing = True
        self.events: list[str] = []
        self.hears = True
        self.sender: Sender
        self.asleep = asyncio.Event()

    async def run(self, function: Callable[..., object], *args: object) -> object:
        return function(*args)

    def changed(self) -> bool:
        if self.late and self.alarms == 0:
            self.after -= 1
            if self.after < 0:
                self.waiting, self.late = self.waiting + self.late, []
        return bool(self.waiting)

    def may_change(self) -> bool:
        return self.writing

    def pause(self, _seconds: float) -> bool:
        return not self.wanted

    def pending_rows(self) -> int:
        return len(self.waiting)

    def schema_changed(self) -> bool:
        return False

    def find_unlogged(self) -> None:
        pass

    def capture(self, number: int, **_: object) -> object:
        if not self.waiting:
            return None
        rows = self.waiting.pop(0)
        name = ChangeSetId("n", "s", number)
        return SimpleNamespace(id=name, rows=rows, log_id=number, close=lambda: None)

    async def publish(self, out: Any) -> None:
        self.events.append(f"sent {out.rows}{'' if self.hears else ' deaf'}")
        self.sender.landed(out.id, True)

    def deaf(self) -> None:
        self.hears = False

    def listening(self) -> bool:
        was, self.hears = self.hears, True
        if not was:
            self.waiting, self.on_listening = self.waiting + self.on_listening, []
        return not was

    async def wait(self, _seconds: float) -> bool:
        assert self.hears, "nobody would be heard"
        self.waits += 1
        if self.alarms:
            self.alarms -= 1
            return True
        self.asleep.set()
        await asyncio.Event().wait()
        return False

    async def until_asleep(self) -> None:
        """Run a sender until it waits for an event."""
        everything: Any = self
        self.sender = Sender(
            everything,
            everything,
            everything,
            everything,
            NodeStatus(),
            settings=SenderSettings(publish=True, polling_interval=60.0, cleanup_interval=0.0),
            message_bytes=lambda: 1000,
            schema_moved=lambda: None,
        )
        allowed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        allowed.set_result(None)
        running = asyncio.create_task(self.sender.run(allowed))
        await asyncio.wait({running, asyncio.create_task(self.asleep.wait())}, return_when=asyncio.FIRST_COMPLETED)
        running.cancel()
        await asyncio.wait({running})
        assert running.cancelled(), running.exception()


async def test_nobody_listens_while_there_is_more_to_come_and_everybody_is_heard_before_the_sender_sleeps() -> None:
    commits = Commits([1000, 2000], on_listening=[3])
    await commits.until_asleep()
    assert commits.events == ["sent 1000", "sent 2000 deaf", "sent 3"], "3 was committed just before it listened again"


async def test_a_commit_is_found_that_ends_while_nobody_listens_to_its_many_writes() -> None:
    commits = Commits([], on_listening=[5], alarms=PATIENCE + 1)
    await commits.until_asleep()
    assert commits.events == ["sent 5"]


async def test_a_sender_listens_also_where_the_one_before_was_ended_while_it_did_not() -> None:
    commits = Commits([], on_listening=[7])
    commits.deaf()
    await commits.until_asleep()
    assert commits.events == ["sent 7"]


async def test_after_a_lone_write_it_never_stops_listening() -> None:
    commits = Commits([1, 1], on_listening=[1])
    await commits.until_asleep()
    assert commits.events == ["sent 1", "sent 1"]


async def test_a_commit_that_is_heard_before_it_can_be_seen_is_found_without_another_wait() -> None:
    commits = Commits([], alarms=1, late=[9], after=len(POLLS))
    await commits.until_asleep()
    assert (commits.events, commits.waits) == (["sent 9"], 2), "for the event, and for the next one"


@pytest.mark.parametrize("writing", [True, False], ids=["a call waits for the thread", "nobody writes"])
async def test_nobody_looks_on_for_longer_than_it_may_help(writing: bool) -> None:
    commits = Commits([], alarms=1, late=[9], after=2)
    commits.wanted, commits.writing = writing, writing
    await commits.until_asleep()
    assert commits.events == []
