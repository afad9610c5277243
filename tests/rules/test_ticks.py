"""Loops that check something at an interval wake together, and none of them later than its interval."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from harmonylite.ticks import next_tick, tick
from tests.fix_clock import Clock, run


@given(st.floats(0.001, 3600.0), st.floats(0.0, 1e8))
def test_the_next_tick_is_later_than_now_and_no_further_away_than_the_interval(seconds: float, now: float) -> None:
    assert now < next_tick(seconds, now) <= now + seconds * (1 + 1e-9) + 1e-6


def test_loops_share_their_wake_ups_whatever_their_work_takes(clock: Clock) -> None:
    turns = dict.fromkeys(("a", "b", "c", "d"), 0)

    async def check(name: str, every: float, work: int) -> None:
        while True:
            await tick(every)
            for _ in range(work):
                await asyncio.sleep(0)  # each turn of the loop takes time
            turns[name] += 1

    async def idle() -> None:
        intervals = {"a": 1.0, "b": 1.0, "c": 2.0, "d": 5.0}
        tasks = [asyncio.create_task(check(name, every, n)) for n, (name, every) in enumerate(intervals.items())]
        await clock.passes(100.0)
        for task in tasks:
            task.cancel()

    run(clock, idle())
    assert turns == {"a": 100, "b": 100, "c": 50, "d": 20}
    assert clock.wakes <= 102, "one each second, and those of the test"


def test_a_pause_that_is_cancelled_leaves_no_timer(clock: Clock) -> None:
    async def cancelled() -> None:
        pausing = asyncio.create_task(tick(10.0))
        await asyncio.sleep(0)
        pausing.cancel()
        await asyncio.wait({pausing})
        await clock.passes(100.0)

    run(clock, cancelled())
    assert clock.wakes == 1, "the test's own"
