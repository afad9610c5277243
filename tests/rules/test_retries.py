"""What every loop that tries again has in common: a pause that grows, and one log line for each reason.

The loops are found in the source, so that a new one can't be forgotten.
"""

from __future__ import annotations

import ast
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import harmonylite
from harmonylite.backoff import Backoff, Retry

ROOT = Path(harmonylite.__file__).parent

PAUSES = {"failed", "met", "_pause", "_again"}
"""Methods that return or wait a growing pause: of `Backoff` and `Retry`, of `FileErrors`, and two that wrap one."""

NO_RETRIES = {
    ("cli/progress_bar.py", "poll"): "a picture each moment, while a person waits",
    ("cli/status_command.py", "_watch_screen"): "a picture each second, until a person ends it",
    ("db/replica_capture.py", "capture"): "each round answers one change of the schema or one row",
    ("db/replica_capture.py", "_in_step"): "each round answers one change of the schema",
    ("db/sqlite/other_transactions.py", "politely"): "until its deadline; then the work is done whoever has begun",
    ("db/sqlite/thread.py", "_work"): "takes jobs from a queue; the error is the caller's",
    ("db/sqlite/untrusted_ddl.py", "run"): "each round defines one more name, and each name once",
    ("nats_server/child_process.py", "_read"): "each round is one line of the server's",
    ("nats_server/server.py", "open"): "waits until the disk has room, with the growing pauses of `DiskSpace`",
    ("node/feed_tail.py", "follow"): "each round is a line that says that the connection lives",
    ("node/feeds.py", "_from_own_feed"): "each round is a line that says that the connection lives",
    ("node/node.py", "_watch_statistics"): "a check at long intervals",
    ("node/presence.py", "_heartbeat"): "a heartbeat at its interval",
    ("node/schemas.py", "run"): "a check each second",
    ("recovery/recover.py", "watch"): "a check at its interval; what can't be asked is shown by other parts",
    ("replication/engine.py", "_recovered"): "counts at its interval while a task recovers",
    ("replication/receiver.py", "_take_in"): "waits for a person, see _poisoned",
    ("replication/sender.py", "_count"): "a check each 2 s",
    ("snapshots/replay.py", "_apply"): "each round leaves one more change set out",
    ("snapshots/roll_forward.py", "_apply"): "the second round has one change set, and is the last",
    ("stores/webdav.py", "_take_back"): "two tries, whose pauses grow",
}
"""Loops that catch an error and continue, and aren't retries of what failed: file, function, why."""

TOLERATED_LINES = {("nats/link.py", "_round")}
"""Functions whose loops log each error: they end then, or name one server each."""


@dataclass(frozen=True)
class Loop:
    """A loop that catches an error and continues. ``pauses``: waits longer each time. ``lines``: calls of a logger."""

    file: str
    function: str
    line: int
    pauses: bool
    lines: int

    @property
    def place(self) -> tuple[str, str]:
        """File and function."""
        return self.file, self.function


def _leaves(body: list[ast.stmt]) -> bool:
    match body[-1]:
        case ast.Raise() | ast.Return() | ast.Break():
            return True
        case ast.If(body=then, orelse=otherwise):
            return bool(otherwise) and _leaves(then) and _leaves(otherwise)
    return False


def _within(node: ast.AST) -> Iterator[ast.AST]:
    """Yield what is in ``node``, without functions that are defined there."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield child
            yield from _within(child)


def _called(node: ast.AST) -> set[str]:
    calls = (each.func for each in _within(node) if isinstance(each, ast.Call))
    return {each.attr if isinstance(each, ast.Attribute) else getattr(each, "id", "") for each in calls}


def _logs(handlers: list[ast.ExceptHandler]) -> int:
    calls = (each.func for handler in handlers for each in _within(handler) if isinstance(each, ast.Call))
    return sum(isinstance(each, ast.Attribute) and ast.unparse(each.value) in ("log", "_log") for each in calls)


def _own(loop: ast.AST) -> Iterator[ast.AST]:
    """Yield what is in ``loop`` and in no loop within it."""
    for child in ast.iter_child_nodes(loop):
        if not isinstance(
            child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.While | ast.For | ast.AsyncFor
        ):
            yield child
            yield from _own(child)


def loops_in(source: str, file: str) -> Iterator[Loop]:
    """Yield the loops of ``source`` that try again what failed: each `while`, and each `for` that sleeps."""
    for function in ast.walk(ast.parse(source)):
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        for loop in _within(function):
            if not isinstance(loop, ast.While | ast.For | ast.AsyncFor):
                continue
            if not isinstance(loop, ast.While) and "sleep" not in _called(loop):
                continue
            handlers = [each for each in _own(loop) if isinstance(each, ast.ExceptHandler) and not _leaves(each.body)]
            guards = [ast.unparse(each.items[0]) for each in _own(loop) if isinstance(each, ast.With)]
            if handlers or any("suppress(" in guard and "TimeoutError" not in guard for guard in guards):
                yield Loop(file, function.name, loop.lineno, bool(_called(loop) & PAUSES), _logs(handlers))


def test_every_loop_that_tries_again_has_a_growing_pause_and_leaves_the_line_to_one_place() -> None:
    texts = {path.relative_to(ROOT).as_posix(): path.read_text() for path in sorted(ROOT.rglob("*.py"))}
    loops = [loop for file, text in texts.items() for loop in loops_in(text, file)]
    hasty = {loop.place: loop.line for loop in loops if not loop.pauses and loop.place not in NO_RETRIES}
    assert not hasty, f"{hasty} try again without the growing pause of Backoff"
    loud = {loop.place: loop.line for loop in loops if loop.lines and loop.place not in TOLERATED_LINES}
    assert not loud, f"{loud} log each failure: use Retry, or a Part"
    assert {loop.place for loop in loops if not loop.pauses} == set(NO_RETRIES), "an exception is no longer there"


@pytest.mark.parametrize(
    ("body", "pauses", "lines"),
    [
        ("await ask()\n except E as e:\n  await sleep(1)", False, 0),
        ("await ask()\n except E as e:\n  log.info('x', e)\n  await sleep(backoff.failed(now))", True, 1),
        ("await ask()\n except E as e:\n  await sleep(retry.failed(e, now))", True, 0),
    ],
)
def test_the_search_sees_a_loop_without_either(body: str, pauses: bool, lines: int) -> None:
    text = "async def f():\n while True:\n  try:\n   " + body.replace("\n", "\n ").replace("\n  except", "\n  except")
    (loop,) = loops_in(text, "x.py")
    assert (loop.pauses, loop.lines) == (pauses, lines)


def test_a_fault_that_lasts_gets_one_line_and_pauses_that_grow_to_their_bound(caplog: pytest.LogCaptureFixture) -> None:
    retry = Retry(logging.getLogger("harmonylite.x"), "asking", Backoff(first=0.5, most=8.0, jitter=0.0))
    pauses, now = [], 0.0
    with caplog.at_level(logging.DEBUG):
        for number in range(1000):
            pauses.append(retry.failed(f"no answer after {number}.5 s", now))
            now += pauses[-1]
    assert pauses[:6] == [0.5, 1.0, 2.0, 4.0, 8.0, 8.0]
    assert caplog.messages == ["asking failed, will be tried again: no answer after 0.5 s"]


def test_another_reason_is_logged_and_so_is_the_same_one_after_it_worked(caplog: pytest.LogCaptureFixture) -> None:
    retry = Retry(logging.getLogger("harmonylite.x"), "asking", Backoff(calm=30.0))
    with caplog.at_level(logging.DEBUG):
        for reason, now in (("a", 0), ("a", 1), ("b", 2), ("b", 3), ("b", 100)):
            retry.failed(reason, now)
        retry.worked()
        retry.failed("b", 101)
    assert [line[-1] for line in caplog.messages] == ["a", "b", "b", "b"]
