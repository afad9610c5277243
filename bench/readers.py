"""Fifty readers of one node's change feed under steady writes: what one of them that stops taking costs the others.

Invariant: turns with and without a stopped reader alternate in one run, over the same file, so the ratio is of one
machine in one state.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from statistics import mean, median, quantiles
from typing import TYPE_CHECKING

from bench.machine import Node, child, result
from bench.measure import Sizes, cluster
from bench.report import Budget, Row

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

READERS = 50
A_SECOND, PER_COMMIT = 5_000, 50
"""Rows that are written a second, and in one commit."""
TURNS = (False, True, True, False, True, False, False, True)
"""Whether a reader is stopped in each turn: what grows from turn to turn falls on both alike."""
MOST = Budget("at most", 1.1)
_AT = re.compile(rb'"at":([0-9.]+)')
SECONDS = 600.0


def readers(folder: Path, sizes: Sizes) -> list[Row]:
    """Measure the time from the stream to each reader that takes, and of a `wait` meanwhile."""
    count = max(10_000, sizes.bulk // 4)
    delays: dict[bool, list[float]] = {False: [], True: []}
    slowest: dict[bool, list[float]] = {False: [], True: []}
    waits: dict[bool, list[float]] = {False: [], True: []}
    spans: dict[bool, float] = {False: 0.0, True: 0.0}
    with cluster(folder, 1) as (node,):
        before = node.memory_mb()
        for turn, stopped in enumerate(TURNS):
            found = asyncio.run(_turn(node, count, first=1 + turn * count, stopped=stopped))
            delays[stopped] += [delay for each in found[0] for delay in each]
            slowest[stopped].append(max(median(each) for each in found[0]))
            waits[stopped] += found[1]
            spans[stopped] += found[2] / TURNS.count(stopped)
            node.until_quiet()
        grown = node.memory_mb() - before
    rate = f"{count:,} rows at up to {A_SECOND:,} a second, {READERS} readers"
    rows = []
    for what, times in (("received", delays), ("a wait", waits)):
        cuts = {stopped: quantiles(values, n=100)[49] for stopped, values in times.items()}
        detail = f"{cuts[True]:.0f} ms, {cuts[False]:.0f} ms without; {rate}"
        rows.append(Row(f"beside a stopped reader: {what}, p50", cuts[True] / cuts[False], "x without", MOST, detail))
    cost = {stopped: mean(values) for stopped, values in slowest.items()}
    detail = f"{cost[True]:.0f} ms, {cost[False]:.0f} ms without, mean of {len(TURNS) // 2} turns each; {rate}"
    rows.append(
        Row("beside a stopped reader: the slowest other, p50", cost[True] / cost[False], "x without", MOST, detail)
    )
    detail = f"{spans[True]:.1f} s, {spans[False]:.1f} s without; memory of the node grew by {grown:.0f} MB"
    rows.append(Row("beside a stopped reader: all received", spans[True] / spans[False], "x without", MOST, detail))
    return rows


async def _turn(node: Node, count: int, *, first: int, stopped: bool) -> tuple[list[list[float]], list[float], float]:
    """Write ``count`` rows; return the milliseconds of each reader's entries and of each wait, and the seconds until
    all had them.
    """
    async with AsyncExitStack() as stack:
        live = [await stack.enter_async_context(_reading(node)) for _ in range(READERS - stopped)]
        if stopped:
            await stack.enter_async_context(_reading(node))  # takes nothing
        pause = PER_COMMIT / A_SECOND
        writer = child("write", node.db, count=count, per_commit=PER_COMMIT, first=first, pause=pause)
        began, waiting = time.monotonic(), asyncio.create_task(_wait_again_and_again(node))
        async with asyncio.timeout(SECONDS):
            found = await asyncio.gather(*(_take(reader, count) for reader in live))
        seconds = time.monotonic() - began
        waiting.cancel()
        await asyncio.wait({waiting})
        await asyncio.to_thread(result, writer)
        return found, waiting.result(), seconds


async def _wait_again_and_again(node: Node) -> list[float]:
    """Wait for what is in the streams, again and again; return each one's milliseconds once cancelled."""
    taken: list[float] = []
    try:
        while True:
            began = time.monotonic()
            reader, writer = await _asked(node, "/v1/wait?seconds=60")
            await reader.read()
            writer.close()
            taken.append((time.monotonic() - began) * 1000)
            await asyncio.sleep(0.02)
    except asyncio.CancelledError:
        return taken


async def _take(reader: asyncio.StreamReader, count: int) -> list[float]:
    """Take until ``count`` rows came; return the milliseconds of each entry since the stream stored it."""
    delays, rows = [], 0
    while rows < count:
        line = await reader.readuntil(b"\r\n")
        if (at := _AT.search(line)) is not None:
            delays.append((time.time() - float(at[1])) * 1000)
            rows += line.count(b'"kind":')
    return delays


@asynccontextmanager
async def _reading(node: Node) -> AsyncIterator[asyncio.StreamReader]:
    reader, writer = await _asked(node, "/v1/changes?from=now")
    await reader.readuntil(b"\r\n\r\n")
    await reader.readuntil(b'"changes":[]')  # from here on nothing is missed
    try:
        yield reader
    finally:
        writer.close()


async def _asked(node: Node, path: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    control = json.loads((node.db.parent / "mirror" / node.db.name / "control.json").read_text())
    reader, writer = await asyncio.open_connection("127.0.0.1", control["port"], limit=16 * 1024 * 1024)
    head = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{control['port']}\r\nConnection: close\r\n"
    writer.write(f"{head}Authorization: Bearer {control['token']}\r\n\r\n".encode())
    return reader, writer
