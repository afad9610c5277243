"""How soon one row is seen elsewhere, over what the stream alone takes, and what is written to files for it.

Invariant: the yardsticks are of the same run: publishes to a synced stream of the same server between the commits'
turns, and the bytes that the application itself writes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median, quantiles

import nats

from bench.machine import Node, child, result, write
from bench.measure import POLL, Sizes, cluster
from bench.report import Budget, Row

PAUSE = 0.02
"""Seconds between commits, and between publishes."""
TURNS = 3
"""How often commits and publishes take turns."""
P50, P99 = Budget("at most", 1.8), Budget("at most", 5)


def latency(folder: Path, sizes: Sizes) -> list[Row]:
    """Measure one-row commits, from the commit's return until another process sees the row in the other node's file."""
    count = sizes.latency // TURNS
    inserts: dict[str, list[float]] = {"full": [], "normal": []}
    alone: list[float] = []
    with cluster(folder, 2) as nodes:
        done = sizes.latency // 10
        one_by_one(nodes, done, already=0)
        for _ in range(TURNS):
            alone += asyncio.run(publishes(nodes[0].nats, count // 2))
            for synchronous, times in inserts.items():
                times += one_by_one(nodes, count, already=done, synchronous=synchronous)
                done += count
        alone += asyncio.run(publishes(nodes[0].nats, count // 2))
        bulk = child("watch", nodes[1].db, count=done + sizes.bulk, pause=PAUSE)
        write(nodes[0].db, count=sizes.bulk, per_commit=sizes.bulk, first=done + 1)
        result(bulk)  # a node that is still reading them has nothing pending to say
        for node in nodes:
            node.until_quiet()
        updates = one_by_one(
            nodes, count, already=done + sizes.bulk, statement="update", progress="value", synchronous="full"
        )
    return _rows(inserts, updates, alone)


def _rows(inserts: dict[str, list[float]], updates: list[float], alone: list[float]) -> list[Row]:
    """Put times in milliseconds beside those of NATS ``alone``."""
    stream = quantiles(alone, n=100)
    p50, p99 = stream[49], stream[98]
    rows = []
    for synchronous, times in inserts.items():
        cuts = quantiles(times, n=100)
        what = f"one-row commit until seen elsewhere, {synchronous.upper()}"
        detail = f"{len(times)} commits, 50 a second; fastest {min(times):.2f} ms, slowest {max(times):.1f} ms"
        series = {"latency_ms": [round(value, 3) for value in times]}
        half, most = f"{cuts[49]:.2f} ms; {detail}", f"{cuts[98]:.2f} ms, NATS alone {p99:.2f} ms"
        rows += [
            Row(f"{what}, p50", cuts[49] / p50, "x NATS", P50, half, series),
            Row(f"{what}, p99", cuts[98] / p99, "x NATS", P99, most),
        ]
    update = median(updates)
    detail = f"{update:.2f} ms; {len(updates)} commits; slowest {max(updates):.1f} ms"
    alone_detail = f"{len(alone)} publishes, as often; p99 {p99:.2f} ms"
    return [
        *rows,
        Row("one-row update until seen elsewhere, FULL, p50", update / p50, "x NATS", P50, detail),
        Row("yardstick: NATS alone, publish, synced, p50", p50, "ms", None, alone_detail),
    ]


async def publishes(port: int, count: int, *, replicas: int = 1) -> list[float]:
    """Publish messages of a change set's size to a stream of their own; return each one's milliseconds until acked."""
    client = await nats.connect(f"nats://127.0.0.1:{port}")
    stream = client.jetstream()
    await stream.add_stream(name="alone", subjects=["alone"], num_replicas=replicas)
    taken = []
    for _ in range(count):
        begun = time.monotonic()
        await stream.publish("alone", bytes(270))
        taken.append((time.monotonic() - begun) * 1000)
        await asyncio.sleep(PAUSE)
    await client.close()
    return taken


def one_by_one(
    nodes: Sequence[Node],
    count: int,
    *,
    already: int,
    statement: str = "insert",
    progress: str = "insert",
    synchronous: str = "normal",
) -> list[float]:
    """Commit one row every 20 ms; return each one's milliseconds until seen at the second node.

    ``already``: the progress before; updates write the first row of all, again and again.
    """
    seconds = count * PAUSE + 60
    onlooker = child("watch", nodes[1].db, count=already + count, pause=POLL, seconds=seconds, progress=progress)
    first = already + 1 if statement == "insert" else 1
    written = write(
        nodes[0].db,
        statement=statement,
        count=count,
        first=first,
        among=1,
        values=already + 1,
        pause=PAUSE,
        synchronous=synchronous,
    )["commits"]
    seen = result(onlooker)["seen"]
    times = []
    for number, committed in enumerate(written, start=already + 1):
        times.append((next(when for total, when in seen if total >= number) - committed) * 1000)
    return times


def written(folder: Path, sizes: Sizes) -> list[Row]:
    """Measure what each process writes to files for a commit of one row, which fits one page."""
    count = sizes.latency // 2
    rows = []
    with cluster(folder, 2) as nodes:
        done = count // 10
        write_counted(nodes, done, 0)
        before = [node.written() for node in nodes]
        application = write_counted(nodes, count, done)
        writer, other = ((node.written() - was) / count / 1000 for node, was in zip(nodes, before, strict=True))
    detail = f"{count} commits, 50 a second; the application itself {application / count / 1000:.1f} kB"
    for what, value, limit in (("the writer's node", writer, 10), ("another node", other, 13)):
        rows.append(Row(f"written for a one-row commit, {what}", value, "kB", Budget("at most", limit), detail))
    return rows


def write_counted(nodes: Sequence[Node], count: int, already: int) -> int:
    """Commit rows at the first node and wait until the others have them; return the bytes of the application."""
    onlookers = [child("watch", node.db, count=already + count, pause=PAUSE, progress="count") for node in nodes[1:]]
    done = write(nodes[0].db, statement="count", count=count, first=already + 1, pause=PAUSE)
    for onlooker in onlookers:
        result(onlooker)
    for node in nodes:
        node.until_quiet()
    return int(done["bytes"])
