"""A clock that passes over idleness: an event loop's waits take no time, and each is counted."""

from __future__ import annotations

import asyncio
import selectors
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest

T = TypeVar("T")

TURN = 0.0003
"""Seconds that each turn of the loop takes: loops that pause alike drift apart, as they do on a machine."""


class Clock:
    """What `time.monotonic` says. ``wakes``: waits of the event loop that ended since the count was set to 0."""

    def __init__(self) -> None:
        self.now = 1000.25
        self.wakes = 0

    def __call__(self) -> float:
        return self.now

    async def passes(self, seconds: float) -> None:
        """Wait until ``seconds`` are over."""
        await asyncio.sleep(seconds)


class _Passing(selectors.DefaultSelector):
    """Waits for nothing that is not there already."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        found = super().select(0)
        self._clock.now += TURN
        if not found and (timeout is None or timeout > 0):
            assert timeout is not None, "everybody waits for an event that nobody makes"
            self._clock.wakes += 1
            self._clock.now += timeout
        return found


def run(clock: Clock, main: Coroutine[Any, Any, T]) -> T:
    """Run ``main`` on an event loop whose time is ``clock``'s."""
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(_Passing(clock))) as runner:
        return runner.run(main)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(time, "monotonic", made)
    return made
