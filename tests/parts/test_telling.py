"""Waits stand in the log: once when they last, once when they are over."""

from __future__ import annotations

import logging
import time

import pytest

from harmonylite.node.telling import Telling
from harmonylite.status import TOLD_AFTER, NodeStatus


def test_a_wait_is_told_once_when_it_lasts_and_once_when_it_is_over(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "harmonylite.node.telling")
    status = NodeStatus()
    telling, now = Telling(status), time.monotonic()
    join, nats = status.part("join"), status.part("nats")
    nats.ok()
    join.waiting("another connection holds the lock")
    telling.look(now)
    assert caplog.messages == [], "a moment's wait is nothing to write down"
    for _ in range(3):
        telling.look(now + TOLD_AFTER + 1)
    (line,) = caplog.messages
    assert line.startswith("join: another connection holds the lock")
    join.waiting("the same wait, in other words")
    telling.look(now + TOLD_AFTER + 2)
    join.ok()
    telling.look(now + 60)
    telling.look(now + 90)
    assert caplog.messages[1:] == ["join: goes on after 60 s"]


def test_a_wait_that_ends_and_begins_again_is_told_again(caplog: pytest.LogCaptureFixture) -> None:
    status = NodeStatus()
    telling, part = Telling(status), status.part("publish")
    for state in ("waiting", "failed", "waiting"):
        part.set("ok")
        part.set(state, state)
        telling.look(time.monotonic() + TOLD_AFTER + 1)
    assert [line.partition(" (")[0] for line in caplog.messages if "goes on" not in line] == [
        "publish: waiting", "publish: failed", "publish: waiting",
    ]  # fmt: skip
