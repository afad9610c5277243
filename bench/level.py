"""What must not grow: the cost of a commit beside idle tables, in large clusters, with shards, replicas, large values.

Invariant: each row is a ratio within one run, of the larger to the smaller, or to the plain file; processor time and
bytes are those of the nodes' processes, so other programs on the machine bend them little.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median

from bench.fleet import servers
from bench.latency import PAUSE, one_by_one, publishes, write_counted
from bench.machine import Node, child, make_file, result, write
from bench.measure import Sizes, cluster
from bench.report import Row

SHARDS = (1, 4)
LARGE = (("rows of 64 KB", 64 * 1024, 20), ("blobs of 10 MB", 10 * 1024 * 1024, 1))
"""Name, bytes of each value, rows in a commit."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one commit: milliseconds of processor and kB written, on the writer's node and on each other one."""

    writer_ms: float
    other_ms: float
    writer_kb: float
    other_kb: float

    def __str__(self) -> str:
        here, there = f"{self.writer_ms:.2f} ms and {self.writer_kb:.1f} kB", f"{self.other_ms:.2f} ms"
        return f"{here} on the writer's node, {there} and {self.other_kb:.1f} kB elsewhere"


def cost_of_a_commit(nodes: Sequence[Node], count: int) -> Cost:
    """Return what a commit of one row costs, 50 a second at the first node, seen at all others."""
    write_counted(nodes, count // 10, 0)
    before = [(node.cpu_seconds(), node.written()) for node in nodes]
    write_counted(nodes, count, count // 10)
    used = [
        (1000 * (node.cpu_seconds() - cpu) / count, (node.written() - bytes_) / count / 1000)
        for node, (cpu, bytes_) in zip(nodes, before, strict=True)
    ]
    return Cost(used[0][0], mean(ms for ms, _ in used[1:]), used[0][1], mean(kb for _, kb in used[1:]))


def compared(what: str, costs: Sequence[tuple[int, Cost]]) -> list[Row]:
    """Return the costs of the last one over those of the first; ``what`` names what there is more of."""
    (least, small), (most, large) = costs[0], costs[-1]
    detail = "; ".join(f"{number}: {cost}" for number, cost in costs)
    ms = [cost.writer_ms + cost.other_ms for cost in (small, large)]
    kb = [cost.writer_kb + cost.other_kb for cost in (small, large)]
    name = f"one-row commit with {most} {what} over {least}"
    return [
        Row(f"{name}, processor", ms[1] / ms[0], "x", None, detail),
        Row(f"{name}, written", kb[1] / kb[0], "x", None, detail),
    ]


def tables(folder: Path, sizes: Sizes) -> list[Row]:
    """Measure a commit beside tables that nobody writes."""

    def make(number: int) -> None:
        make_file(folder / f"made{number}.db")
        with closing(sqlite3.connect(folder / f"made{number}.db")) as connection:
            for table in range(number):
                connection.execute(f"CREATE TABLE idle{table} (id INTEGER PRIMARY KEY, a TEXT, b TEXT UNIQUE)")
            connection.commit()

    costs = []
    for number in sizes.tables:
        make(number)
        with cluster(folder / f"tables{number}", 2, copied=folder / f"made{number}.db") as nodes:
            costs.append((number, cost_of_a_commit(nodes, sizes.latency // 2)))
    return compared("idle tables", costs)


def nodes(folder: Path, sizes: Sizes) -> list[Row]:
    """Measure what a commit costs each node, in a small cluster and in a large one, on one nats-server."""
    costs = []
    for number in sizes.nodes:
        with cluster(folder / f"nodes{number}", number) as running:
            costs.append((number, cost_of_a_commit(running, sizes.latency // 2)))
    return compared("nodes", costs)


def shards(folder: Path, sizes: Sizes) -> list[Row]:
    """Measure a commit with one shard and with four."""
    costs = []
    for number in SHARDS:
        with cluster(folder / f"shards{number}", 2, shards=number) as running:
            costs.append((number, cost_of_a_commit(running, sizes.latency // 2)))
    return compared("shards", costs)


def large(folder: Path, sizes: Sizes) -> list[Row]:
    """Measure large values: from their begin until they are whole elsewhere, over what the plain file takes."""
    rows, first = [], 1
    with cluster(folder, 2) as running:
        plain = make_file(folder / "plain.db")
        for name, size, per_commit in LARGE:
            count = max(2 * per_commit, sizes.large // size)
            options = {"statement": "blob", "count": count, "per_commit": per_commit, "first": first, "among": size}
            alone = float(write(plain, **options)["seconds"])
            onlooker = child("watch", running[1].db, count=first - 1 + count, pause=PAUSE / 10, progress="count")
            begun = float(write(running[0].db, **options)["begun"])
            taken = float(result(onlooker)["seen"][-1][1]) - begun
            detail = f"{count} of them, {count * size / taken / 1e6:.0f} MB/s; the plain file takes {alone:.2f} s"
            rows.append(Row(f"{name} until whole elsewhere", taken / alone, "x plain", None, detail))
            first += count
            for node in running:
                node.until_quiet()
    return rows


def replicas(folder: Path, sizes: Sizes) -> list[Row]:
    """Measure latency on three nats-servers, with one replica and with three, beside publishes to such a stream."""
    rows = []
    for number in (1, 3):
        place = folder / f"replicas{number}"
        place.mkdir(parents=True)
        with servers(place) as (ports, _), ExitStack() as stack:
            running = []
            for which in (1, 2):
                (place / f"node{which}").mkdir()
                file = make_file(place / f"node{which}" / "bench.db")
                running.append(Node(which, file, ports[which], replicas=number))
                stack.enter_context(running[-1].running())
            count = sizes.latency // 5
            alone = median(asyncio.run(publishes(ports[1], count, replicas=number)))
            times = median(one_by_one(running, count, already=0, synchronous="full"))
            detail = f"{times:.2f} ms, NATS alone {alone:.2f} ms"
            what = f"one-row commit until seen elsewhere, replicas = {number}, FULL, p50"
            rows.append(Row(what, times / alone, "x NATS", None, detail))
    return rows


def writers(folder: Path, sizes: Sizes) -> list[Row]:
    """Measure five writers at once, each at its own node, over one that writes as many rows alone."""
    count = sizes.commits // 10
    with cluster(folder, 5) as running:
        taken = []
        for turn, writing in enumerate((running[:1], running)):
            each = 5 * count // len(writing)
            onlookers = [
                child("watch", node.db, count=5 * count * (turn + 1), pause=PAUSE / 10, progress="count")
                for node in running
            ]
            started = time.monotonic()
            at_once = [
                child("write", node.db, statement="count", count=each, first=10**8 * (5 * turn + node.number))
                for node in writing
            ]
            for one in at_once:
                result(one)
            taken.append(max(float(result(onlooker)["seen"][-1][1]) for onlooker in onlookers) - started)
            for node in running:
                node.until_quiet()
    detail = f"{5 * count} commits: {taken[1]:.2f} s, {taken[0]:.2f} s from one; until all five nodes have all"
    return [Row("five writers at once over one alone, as many commits", taken[1] / taken[0], "x", None, detail)]


MEASUREMENTS = {
    "tables": tables,
    "large": large,
    "nodes": nodes,
    "shards": shards,
    "replicas": replicas,
    "writers": writers,
}
