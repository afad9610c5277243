"""Show the progress of long work: a bar in a terminal, a line now and then elsewhere.

Invariant: output goes to standard error, and a failed progress query never disturbs the work.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from harmonylite.cli.output import plain, remark
from harmonylite.errors import HarmonyLiteError

POLL_SECONDS = 0.25
"""Seconds between two progress queries."""
LINE_SECONDS = 5.0
"""Pause between two lines on it, where there is no terminal."""


@dataclass(frozen=True)
class WorkProgress:
    """``do``: the work itself. ``progress``: what is done, how far and of how much, None when there is nothing to show;
    it may be asked from another thread.
    """

    do: Callable[[], dict[str, Any]]
    progress: Callable[[], Sequence[Any] | None]


def followed(work: WorkProgress, *, silent: bool) -> dict[str, Any]:
    """Do ``work``, show meanwhile how far it is unless ``silent``, and return what it returns."""
    if silent:
        return work.do()
    return _with_bar(work) if sys.stderr.isatty() else _with_lines(work)


def _with_bar(work: WorkProgress) -> dict[str, Any]:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, SpinnerColumn, TextColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("copying the mirror", total=None)
        return _polling(
            work, lambda found: bar.update(task, description=plain(found[0]), completed=found[1], total=found[2])
        )


def _with_lines(work: WorkProgress) -> dict[str, Any]:
    last = time.monotonic()

    def show(found: Sequence[Any]) -> None:
        nonlocal last
        if time.monotonic() - last >= LINE_SECONDS:
            last = time.monotonic()
            remark(f"{plain(found[0])}: {int(found[1]):,} of {int(found[2]):,} bytes")

    return _polling(work, show)


def _polling(work: WorkProgress, show: Callable[[Sequence[Any]], None]) -> dict[str, Any]:
    done = threading.Event()

    def poll() -> None:
        while not done.wait(POLL_SECONDS):
            with suppress(HarmonyLiteError):
                if found := work.progress():
                    show(found)

    polling = threading.Thread(target=poll, daemon=True, name="progress")
    polling.start()
    try:
        return work.do()
    finally:
        done.set()
        polling.join()
