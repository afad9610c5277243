"""What an application feels that reads and then writes in one transaction, beside a node that merges.

Invariant: the application is a process of its own, and begins its transactions as most libraries do: deferred.
"""

from __future__ import annotations

from pathlib import Path
from statistics import quantiles

from bench.latency import one_by_one
from bench.machine import Node, child, result, write
from bench.measure import Sizes, cluster
from bench.report import Budget, Row

INCOMING = 0.05
"""Seconds between commits at the other node."""


def neighbours(folder: Path, sizes: Sizes) -> list[Row]:
    """Measure failures, alone and beside incoming commits, and latency beside transactions and readers."""
    count, rows = sizes.latency, []
    with cluster(folder, 2) as nodes:
        write(nodes[0].db, count=100, per_commit=100)
        for node in nodes:
            node.until_quiet()
        first = 101
        for milliseconds in (5, 30):
            for incoming in (False, True):
                failed, first = _failures(nodes, count, milliseconds, first, incoming=incoming)
                beside = f"beside {1 / INCOMING:.0f} incoming commits a second" if incoming else "alone"
                what = f"read-then-write transactions that fail, {milliseconds} ms, {beside}"
                budget = Budget("at most", 1 if incoming else 0.1)
                rows.append(Row(what, 100 * failed / count, "%", budget, f"{failed} of {count}"))
        for what, options in (
            ("transactions of 5 ms", {"count": 10 * count, "pause": 0.005}),
            ("a reader that stays", {}),
        ):
            kind = "think" if options else "hold"
            other = child(kind, nodes[1].db, **({"count": 1} | options))
            times = one_by_one(nodes, count // 4, already=first - 1)
            first += count // 4
            other.kill()
            other.communicate()
            cuts = quantiles(times, n=100)
            detail = f"p99 {cuts[98]:.1f} ms; {len(times)} commits"
            rows.append(Row(f"one-row commit until seen beside {what}, p50", cuts[49], "ms", None, detail))
    return rows


def _failures(nodes: list[Node], count: int, milliseconds: int, first: int, *, incoming: bool) -> tuple[int, int]:
    """Return how many transactions failed at the second node, and the number of the next row of the first one."""
    seconds = count * (milliseconds / 1000 + 0.002)
    many = int(seconds / INCOMING)
    application = child("think", nodes[1].db, count=count, pause=milliseconds / 1000)
    writer = child("write", nodes[0].db, count=many, first=first, pause=INCOMING) if incoming else None
    failed = int(result(application)["failed"])
    if writer is not None:
        result(writer)
    for node in nodes:
        node.until_quiet()
    return failed, first + (many if incoming else 0)
