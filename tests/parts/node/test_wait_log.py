"""Waits are in the log: once when they last, once when they are over, and one cause once whatever waits for it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harmonylite.errors import NotAcknowledgedError, SnapshotError, StreamError
from harmonylite.node.wait_log import WaitLog
from harmonylite.status import SHOWN_AFTER, NodeStatus

LATER = SHOWN_AFTER + 1


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    with caplog.at_level(logging.INFO, "harmonylite.node.wait_log"):
        yield caplog


def test_a_wait_is_told_once_when_it_lasts_and_once_when_it_is_over(told: pytest.LogCaptureFixture) -> None:
    status = NodeStatus()
    telling, now = WaitLog(status), time.monotonic()
    join, nats = status.part("join"), status.part("nats")
    nats.ok()
    join.waiting("another connection holds the lock")
    telling.poll(now)
    assert told.messages == [], "a moment's wait is nothing to write down"
    for _ in range(3):
        telling.poll(now + LATER)
    (line,) = told.messages
    assert line.startswith("join: another connection holds the lock")
    join.waiting("the same wait, in other words")
    telling.poll(now + SHOWN_AFTER + 2)
    join.ok()
    telling.poll(now + 60)
    telling.poll(now + 90)
    assert told.messages[1:] == ["join: resumed after 60 s"]


def test_a_long_wait_is_one_line_a_minute_however_its_words_change(told: pytest.LogCaptureFixture) -> None:
    status = NodeStatus()
    telling, now = WaitLog(status), time.monotonic()
    for second in range(300):
        status.part("nats").waiting(f"try {second}")
        telling.poll(now + second)
    assert len(told.messages) == 5


def test_a_wait_that_ends_and_begins_again_is_told_again(told: pytest.LogCaptureFixture) -> None:
    status = NodeStatus()
    telling, part = WaitLog(status), status.part("publish")
    for state in ("waiting", "failed", "waiting"):
        part.set("ok")
        part.set(state, state)
        telling.poll(time.monotonic() + LATER)
    assert [line.partition(" (")[0] for line in told.messages if "continues" not in line] == [
        "publish: waiting",
        "publish: failed",
        "publish: waiting",
    ]


def test_a_failure_is_told_at_once(told: pytest.LogCaptureFixture) -> None:
    status = NodeStatus()
    telling = WaitLog(status)
    status.part("merge").failed("message 3 can't be applied")
    telling.poll(time.monotonic())
    assert [(record.levelname, record.getMessage()) for record in told.records] == [
        ("ERROR", "merge: message 3 can't be applied")
    ]


def test_an_event_is_logged_once_and_a_wait_that_was_one_is_not_logged_again(told: pytest.LogCaptureFixture) -> None:
    status = NodeStatus()
    telling, part, now = WaitLog(status), status.part("nats"), time.monotonic()
    part.event("connected")
    part.waiting("the connection was lost")
    part.event("the connection was lost", warning=True)
    for seconds in (0, 1, LATER):
        telling.poll(now + seconds)
    part.ok()
    telling.poll(now + LATER)
    assert [(record.levelname, record.getMessage().partition(" after")[0]) for record in told.records] == [
        ("INFO", "nats: connected"),
        ("WARNING", "nats: the connection was lost"),
        ("INFO", "nats: resumed"),
    ]


async def test_an_event_at_the_end_is_logged_too(told: pytest.LogCaptureFixture) -> None:
    status = NodeStatus()
    log = asyncio.create_task(WaitLog(status).run())
    await asyncio.sleep(0)
    status.part("verify").event("repaired the database", warning=True)
    log.cancel()
    await asyncio.wait({log})
    assert told.messages == ["verify: repaired the database"]


def of_nats(status: NodeStatus) -> None:
    """Let three parts wait as they do while NATS is away: each met an error of its own."""
    status.part("publish").waiting("changes queue: not connected", StreamError("not connected"))
    status.part("stream").waiting("no answer", NotAcknowledgedError("no answer"))
    store = SnapshotError("object x can't be read")
    store.__cause__ = StreamError("not connected")
    status.part("snapshots").waiting(f"the newest snapshot can't be looked up: {store}", store)


def test_one_cause_is_one_line_that_names_what_waits_for_it(told: pytest.LogCaptureFixture) -> None:
    status = NodeStatus()
    telling, now = WaitLog(status), time.monotonic()
    status.part("nats").waiting("connection refused")
    of_nats(status)
    status.part("merge").waiting("another connection holds the lock")
    waits = [
        "merge: another connection holds the lock",
        "nats: connection refused; waiting for it: publish, snapshots, stream",
    ]
    assert status.waits == waits
    for seconds in range(30):
        telling.poll(now + seconds)
    assert [line.partition(" (")[0] for line in told.messages] == waits
    status.part("nats").ok()
    telling.poll(now + 31)
    for name in ("publish", "snapshots", "stream", "merge"):
        status.part(name).ok()
        telling.poll(now + 32)
    assert told.messages[2:] == ["nats: resumed after 31 s", "merge: resumed after 32 s"]


def test_what_still_waits_when_the_cause_is_over_speaks_for_itself(told: pytest.LogCaptureFixture) -> None:
    status = NodeStatus()
    telling, now = WaitLog(status), time.monotonic()
    status.part("nats").waiting("connection refused")
    of_nats(status)
    telling.poll(now + LATER)
    status.part("nats").ok()
    status.part("snapshots").ok()
    status.part("stream").ok()
    telling.poll(now + LATER + 1)
    assert not any(line.startswith("publish") for line in told.messages), "it has its time to continue"
    telling.poll(now + 3 * LATER)
    assert told.messages[-1].startswith("publish: changes queue: not connected")


def test_an_embedded_server_that_is_away_explains_the_connection_and_what_needs_it() -> None:
    status = NodeStatus()
    status.behind["nats"] = "embedded"
    status.part("embedded").waiting("no quorum: 1 of 3 servers of the cluster are here, 2 are needed")
    status.part("nats").ok()
    of_nats(status)
    (line,) = status.waits
    assert line.startswith("embedded: no quorum")
    status.part("nats").waiting("connection refused")
    assert status.waits[0].endswith("waiting for it: nats, publish, snapshots, stream")
    status.part("embedded").ok()
    assert status.waits[0].endswith("waiting for it: publish, snapshots, stream")


PARTS = ("embedded", "nats", "publish", "stream", "merge")


@given(
    st.lists(st.tuples(st.sampled_from(PARTS), st.sampled_from(["ok", "waiting", "through", "failed"])), max_size=30)
)
def test_whatever_waits_is_named_exactly_once(steps: list[tuple[str, str]]) -> None:
    status = NodeStatus()
    status.behind["nats"] = "embedded"
    for name, what in steps:
        part = status.part(name)
        if what == "through" and name not in ("embedded", "nats"):
            part.waiting(what, StreamError("x"))
        else:
            part.set("waiting" if what == "through" else what, what)  # type: ignore[arg-type] # a state
        named = [word for wait in status.waits for word in wait.replace(",", "").replace(":", "").split()]
        for other in status.parts.values():
            assert named.count(other.name) == (1 if other.stuck else 0), status.waits


async def test_a_node_that_is_ready_is_said_to_be_once_with_what_it_has(told: pytest.LogCaptureFixture) -> None:
    status = NodeStatus(db_path="/data/app.db", tables=("a", "b"))
    log = asyncio.create_task(WaitLog(status, "http://127.0.0.1:8090").run())
    await asyncio.sleep(0)
    assert told.messages == []
    status.db_connected = status.cdc_installed = status.nats_connected = status.caught_up = True
    async with asyncio.timeout(30):
        while not told.messages:
            status.moved.notify()
            await asyncio.sleep(0)
    log.cancel()
    telling = WaitLog(status)
    telling.poll(status.started + 1.5)
    telling.poll(status.started + 9)
    first, second = told.messages
    assert first.startswith("ready: database /data/app.db, tables 2, page http://127.0.0.1:8090, after ")
    assert second == "ready: database /data/app.db, tables 2, after 1.5 s"
