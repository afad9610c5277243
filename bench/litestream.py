"""What a merging node feels of a real Litestream beside it: latency, merges, and an application's own TRUNCATE.

Invariant: the turns with and without it alternate, on the same cluster and in one run.
"""

from __future__ import annotations

import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from statistics import median, quantiles

from bench.latency import one_by_one
from bench.machine import Node, child, result, write
from bench.measure import POLL, Sizes, cluster
from bench.report import Row

PROGRAM = Path(__file__).parents[1] / ".venv" / "libraries" / "litestream" / "litestream"
"""What `make libraries WHICH=litestream` builds."""
TURNS = 3
BURST = 25
"""So many times the commits of the latency are written in a burst, without a pause."""


def litestream(folder: Path, sizes: Sizes) -> list[Row]:
    """Measure latency, merged commits a second and a TRUNCATE at a node with and without Litestream beside it."""
    if not PROGRAM.exists():
        return []
    times: dict[bool, list[float]] = {False: [], True: []}
    speeds: dict[bool, list[float]] = {False: [], True: []}
    cuts: dict[bool, list[float]] = {False: [], True: []}
    count, already = sizes.latency // 4, 0
    with cluster(folder, 2) as nodes:
        for turn in range(2 * TURNS):
            beside = bool(turn % 2)
            with _beside(nodes[1], folder / f"replica{turn}") if beside else nullcontext():
                times[beside] += one_by_one(nodes, count, already=already)
                already += count
                speeds[beside].append(_burst(nodes, BURST * count, already))
                already += BURST * count
                cuts[beside].append(_truncate(nodes[1].db))
            for node in nodes:
                node.until_quiet()
    rows = []
    for beside in (False, True):
        what = "beside Litestream" if beside else "without Litestream"
        percentiles = quantiles(times[beside], n=100)
        detail = f"p99 {percentiles[98]:.1f} ms; {len(times[beside])} commits"
        rows += [
            Row(f"one-row commit until seen, {what}, p50", percentiles[49], "ms", None, detail),
            Row(f"one-row commits merged, {what}", median(speeds[beside]), "/s", None, _list(speeds[beside])),
            Row(f"wal_checkpoint(TRUNCATE), {what}", median(cuts[beside]), "ms", None, _list(cuts[beside])),
        ]
    return rows


def _list(found: list[float]) -> str:
    return ", ".join(f"{each:.0f}" for each in found)


def _burst(nodes: list[Node], count: int, already: int) -> float:
    """Return how many commits of a burst the second node takes in each second."""
    onlooker = child("watch", nodes[1].db, count=already + count, pause=POLL, seconds=120)
    committed = write(nodes[0].db, count=count, first=already + 1)["commits"]
    seen = result(onlooker)["seen"]
    whole: float = next(when for total, when in seen if total >= already + count)
    begun: float = committed[0]
    return count / (whole - begun)


def _truncate(file: Path) -> float:
    """Return the milliseconds that an application's TRUNCATE takes, with a busy timeout of a second."""
    with closing(sqlite3.connect(file, timeout=1.0)) as application:
        begun = time.monotonic()
        application.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        return (time.monotonic() - begun) * 1000


@contextmanager
def _beside(node: Node, replica: Path) -> Iterator[None]:
    """Run Litestream beside a node while the block runs; it has its first copy."""
    config = replica.with_suffix(".yml")
    config.write_text(f"dbs:\n  - path: {node.db}\n    replica:\n      path: {replica}\n")
    with (
        replica.with_suffix(".log").open("wb") as log,
        subprocess.Popen([PROGRAM, "replicate", "-config", str(config)], stdout=log, stderr=log) as process,
    ):
        try:
            deadline = time.monotonic() + 60
            while not any(replica.rglob("*.ltx")):
                if time.monotonic() > deadline:
                    raise RuntimeError(f"Litestream made no copy: {replica.with_suffix('.log').read_text()[-500:]}")
                time.sleep(0.1)
            yield
        finally:
            process.terminate()
