"""A fault that lasts ends a run of the engine again and again: each pause is longer, and the log has one line."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from harmonylite.errors import DatabaseError, MirrorDeviatesError
from harmonylite.recovery.recover import Recovery
from harmonylite.recovery.schema_resync import SchemaResync
from harmonylite.replication.receiver import Receiver
from tests.parts.fix_nats import RealNats, eventually
from tests.parts.replication.fix_nodes import Running, write

TRIES = 9
WHAT = "no such function: unknown_here"


def _refused(patch: pytest.MonkeyPatch, times: list[float]) -> None:
    """The file refuses rows of others, and what looks at it then: an index that calls a function of the application."""

    def refuse(*_: object) -> None:
        times.append(time.monotonic())
        raise DatabaseError(WHAT)

    patch.setattr(Receiver, "_on_thread", refuse)
    patch.setattr(Receiver, "_recheck", lambda _: refuse())


def _deviates(patch: pytest.MonkeyPatch, times: list[float]) -> None:
    """A recovery that ends well, and after which the mirror deviates again."""

    async def watch(*_: object) -> None:
        times.append(time.monotonic())
        raise MirrorDeviatesError(WHAT)

    async def recover(*_: object) -> None:
        await asyncio.sleep(0)

    patch.setattr(SchemaResync, "check", watch)  # what the watch that runs now calls
    patch.setattr(Recovery, "watch", watch)
    patch.setattr(Recovery, "recover", recover)


@pytest.mark.parametrize("fault", [_refused, _deviates])
async def test_a_run_that_fails_at_once_each_time_is_tried_at_growing_intervals_and_logged_once(
    fault: Callable[[pytest.MonkeyPatch, list[float]], None],
    tmp_path: Path,
    nats: RealNats,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    one = Running(tmp_path, "one", nats.url)
    two = Running(tmp_path, "two", nats.url)
    await one.start()
    await two.start()
    await one.stop()  # what is patched is in the other one's way only
    times: list[float] = []
    with monkeypatch.context() as patch, caplog.at_level(logging.INFO):
        caplog.clear()
        fault(patch, times)
        write(two.database, "INSERT INTO item VALUES ('a')")
        two.engine._recovery.turn()
        await eventually(lambda: len(times) >= TRIES, "tries")
        lines = [line for line in caplog.messages if WHAT in line]
    gaps = [after - before for before, after in pairwise(times)]
    assert max(gaps[-4:]) > 5 * min(gaps[:3]), gaps  # a machine that stops for a while only makes gaps longer
    assert len(lines) <= 2, lines
    await eventually(lambda: two.node.status_object.pending_rows == 0 and not two.node.status_object.waits, "over")
    await two.stop()
