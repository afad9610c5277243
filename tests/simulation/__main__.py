"""Run schedules from the command line: ``python -m tests.simulation 17``, ``1..1000``, or ``--seeds COUNT``."""

from __future__ import annotations

import argparse
import faulthandler
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from functools import partial

from tests.seeds import seeds
from tests.simulation.run import run

HANGS = 120
"""Seconds after which a schedule hangs: the stack is printed and the run ends."""


def main() -> int:
    """Run the wanted schedules; print each failing seed; return 1 when one failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("which", nargs="*", type=seeds, help="a seed, or a range like 1..1000")
    parser.add_argument("--seeds", help="how many schedules to run from seed 1 on, or a range like 1..1000")
    parser.add_argument("--small-blocks", action="store_true", help="close blocks after two rows")
    parser.add_argument("--changers", type=int, default=0, help="how many nodes change their schema in every way")
    parser.add_argument("--steps", type=int, default=0, help="how many steps each has")
    parser.add_argument("--keep-going", action="store_true", help="run on after a failure")
    parser.add_argument("--brief", action="store_true", help="one line for each failure")
    parser.add_argument("--still", action="store_true", help="let nodes stand still, and publish, for a while")
    given = parser.parse_args()
    ranges: list[range] = given.which
    if given.seeds:
        ranges.append(seeds(given.seeds) if ".." in given.seeds else range(1, int(given.seeds) + 1))
    if not ranges and os.environ.get("SEEDS"):
        ranges.append(seeds(os.environ["SEEDS"]))
    how = partial(run, small_blocks=given.small_blocks, changers=given.changers, steps=given.steps, still=given.still)
    return _run(ranges or [range(1, 1001)], how, keep_going=given.keep_going, brief=given.brief)


def _each(ranges: list[range]) -> Iterator[int]:
    for some in ranges:
        yield from some


def _run(ranges: list[range], how: Callable[[int], None], *, keep_going: bool, brief: bool) -> int:
    failed, count, started = 0, 0, time.monotonic()
    for seed in _each(ranges):
        count += 1
        faulthandler.dump_traceback_later(HANGS, exit=True)
        try:
            how(seed)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is reported with its seed
            failed += 1
            print(f"seed {seed}: {type(error).__name__}: {error}", flush=True)
            if not brief:
                traceback.print_exc()
            if not keep_going:
                break
        if sys.stderr.isatty():
            print(f"\r{count} schedules, {failed} failed", end="", file=sys.stderr, flush=True)
    faulthandler.cancel_dump_traceback_later()
    print(f"{count} schedules, {failed} failed, {time.monotonic() - started:.1f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
