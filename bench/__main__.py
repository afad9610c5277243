"""``python -m bench``: measure, print, save; exit code 0 only when every budget is met."""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from dataclasses import replace
from pathlib import Path

from bench import level
from bench.latency import latency, written
from bench.litestream import litestream
from bench.machine import describe
from bench.measure import MEASUREMENTS as ALONE
from bench.measure import QUICK, Sizes
from bench.migrations import migrations
from bench.neighbours import neighbours
from bench.readers import readers
from bench.report import Row, last_values, make_console, save, show

HERE = Path(__file__).parent
USUAL = ALONE | {"latency": latency, "written": written, "neighbours": neighbours, "migrations": migrations}
MEASUREMENTS = USUAL | level.MEASUREMENTS | {"readers": readers, "litestream": litestream}


def main() -> int:
    """Run what the command line asks for."""
    options = parse()
    console = make_console()
    data = options.data / "harmonylite-bench"
    shutil.rmtree(data, ignore_errors=True)
    data.mkdir(parents=True)
    machine = describe(data)
    rows: list[Row] = []
    for name in options.only or (MEASUREMENTS if options.level else USUAL):
        started = time.monotonic()
        folder = data / name
        folder.mkdir()
        rows += MEASUREMENTS[name](folder, options.sizes)
        console.print(f"{name}: {time.monotonic() - started:.0f} s")
        if not options.keep:
            shutil.rmtree(folder)
    show(rows, console, last_values(options.output))
    for path in save(rows, machine, options.output):
        console.print(f"written: {path}")
    return 0 if all(row.ok for row in rows) else 1


def parse() -> argparse.Namespace:
    """Read the command line; ``sizes`` in the answer is a `Sizes`."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="measure the budgets on this machine")
    parser.add_argument("--quick", action="store_true", help="small sizes: a minute instead of several")
    parser.add_argument("--only", action="append", choices=list(MEASUREMENTS), help="one measurement; repeatable")
    parser.add_argument(
        "--level", action="store_true", help="also what must not grow: " + ", ".join(level.MEASUREMENTS)
    )
    parser.add_argument("--transaction", type=int, help="rows of the large transaction")
    parser.add_argument("--backlog", type=int, help="rows of the backlog")
    parser.add_argument("--latency", type=int, help="one-row commits whose latency is measured")
    parser.add_argument("--cost", help="sizes of the growing transactions, with commas: 10000,1000000,10000000")
    parser.add_argument("--data", type=Path, default=HERE / "data", help="folder in which the files are made")
    parser.add_argument("--output", type=Path, default=HERE / "results", help="folder for JSON and plot")
    parser.add_argument("--keep", action="store_true", help="keep files and logs")
    options = parser.parse_args()
    sizes = QUICK if options.quick else Sizes()
    for name in ("transaction", "backlog", "latency"):
        if getattr(options, name):
            sizes = replace(sizes, **{name: getattr(options, name)})
    if options.cost:
        sizes = replace(sizes, cost=tuple(int(size) for size in options.cost.split(",")))
    options.sizes = sizes
    return options


if __name__ == "__main__":
    sys.exit(main())
