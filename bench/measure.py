"""The measurements: each takes a folder and sizes, and gives rows of the result.

Invariant: the plain file and the replicated one are written in turn, by the same program, in the same run; the
figures are ratios of the two wherever the machine's own speed would decide otherwise.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench.child import CACHE, STATEMENTS, connect
from bench.machine import START_SECONDS, Node, child, make_file, nats_server, result, write
from bench.report import Budget, Row

ROUNDS = 5
"""How often plain and replicated writes take turns; the median ratio counts."""

SMALL_CACHE = 2_000
"""KiB; SQLite's default. Any trigger makes SQLite keep a journal for each statement; with a small cache that journal
goes to a file once a transaction is large (https://www.sqlite.org/tempfiles.html#statement_journal_files)."""

POLL = 0.0001
"""Seconds between two polls of an onlooker: its share of a latency is about this much."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is written: rows; one-row commits (``commits`` with `NORMAL`, ``synced`` with `FULL`, where each waits
    for the disk, and ``latency``); ``idle`` is in seconds, ``large`` in bytes; the rest is for `bench.level`.
    """

    commits: int = 20_000
    synced: int = 600
    bulk: int = 200_000
    transaction: int = 200_000
    latency: int = 1000
    backlog: int = 1_000_000
    cost: tuple[int, ...] = (10_000, 100_000, 1_000_000)
    idle: float = 20.0
    nodes: tuple[int, ...] = (2, 20)
    tables: tuple[int, ...] = (1, 500)
    large: int = 100_000_000


QUICK = Sizes(5_000, 200, 50_000, 40_000, 200, 100_000, (10_000, 100_000), 5.0, (2, 4), (1, 50), 5_000_000)


@contextmanager
def cluster(
    folder: Path, count: int, *, shards: int = 1, copied: Path | None = None, metrics: str = "false", more: str = ""
) -> Iterator[list[Node]]:
    """Run ``count`` nodes over empty files, or copies of one, and one nats-server that syncs before it acknowledges.

    ``more``: see `Node`, `metrics` and `more`.
    """
    with ExitStack() as stack:
        port = stack.enter_context(nats_server(folder / "nats"))
        nodes = []
        for number in range(1, count + 1):
            (folder / f"node{number}").mkdir()
            file = make_file(folder / f"node{number}" / "bench.db")
            if copied is not None:
                shutil.copyfile(copied, file)
            node = Node(number, file, port, shards=shards, metrics=metrics, more=more)
            stack.enter_context(node.running(3 * START_SECONDS))
            nodes.append(node)
        yield nodes


def writes(folder: Path, sizes: Sizes) -> list[Row]:
    """Measure the application's speed with a running node over that of a plain file."""
    with cluster(folder, 1) as (node,):
        plain = make_file(folder / "plain.db")
        # An application keeps its connection; without one here every turn of the plain file would start a new WAL.
        with closing(connect(str(plain))):
            turns = Turns(plain, node)
            return [
                *(
                    turns.measure(statement, count, 1, synchronous)
                    for synchronous, count in (("normal", sizes.commits), ("full", sizes.synced))
                    for statement in STATEMENTS
                ),
                turns.measure("insert", sizes.bulk, sizes.bulk, "normal"),
                turns.measure("insert", sizes.bulk, sizes.bulk, "full"),
                turns.measure("insert", sizes.bulk, sizes.bulk, "normal", cache=SMALL_CACHE),
            ]


@dataclass
class Turns:
    """A plain and a replicated file that are written in turn, and grow alike.

    ``first``: the next new row's number; ``oldest``: the number of the oldest row that was not deleted; ``values``: how
    many values updates have written.
    """

    plain: Path
    node: Node
    first: int = 1
    oldest: int = 1
    values: int = 1

    def measure(self, statement: str, count: int, per_commit: int, synchronous: str, *, cache: int = CACHE) -> Row:
        """Let both take `ROUNDS` turns; the median of the ratios counts. With another ``cache`` there is no budget."""
        turns = [self._turn(statement, count, per_commit, synchronous, cache) for _ in range(ROUNDS + 1)]
        pairs = turns[1:]  # the first one warms up
        ratios = [plain / replicated for plain, replicated in pairs]
        speeds = [count / median(pair[side] for pair in pairs) for side in (0, 1)]
        detail = f"{speeds[0]:,.0f} rows/s plain, {speeds[1]:,.0f} replicated; {min(ratios):.2f} to {max(ratios):.2f}"
        what = "bulk" if per_commit > 1 else f"one-row {statement}s"
        name = f"write speed kept, {what}, {synchronous.upper()}"
        if cache != CACHE:
            return Row(f"{name}, cache {cache // 1000} MB", median(ratios), "", None, detail)
        return Row(name, median(ratios), "", Budget("at least", 0.75, 0.85), detail)

    def _turn(self, statement: str, count: int, per_commit: int, synchronous: str, cache: int) -> tuple[float, float]:
        fresh = statement == "insert"
        options = {
            "statement": statement,
            "count": count,
            "per_commit": per_commit,
            "synchronous": synchronous,
            "cache": cache,
            "values": self.values,
            "first": self.first if fresh else self.oldest,
            "among": self.first - self.oldest if statement == "update" else count,
        }
        seconds = [float(write(file, **options)["seconds"]) for file in (self.plain, self.node.db)]
        self.first += count if fresh else 0
        self.oldest += count if statement == "delete" else 0
        self.values += count
        self.node.until_quiet()
        return seconds[0], seconds[1]


def transaction(folder: Path, sizes: Sizes) -> list[Row]:
    """Measure large transactions from their begin until they are whole on another node, over a plain file's time.

    First one that inserts rows, then one that updates them all, then one that deletes them.
    """
    count = sizes.transaction
    plain = {statement: median(times) for statement, times in _alone(folder / "plain.db", count).items()}
    rows = []
    with cluster(folder, 2) as nodes:
        for statement in STATEMENTS:
            taken, after = _until_whole(nodes, count, first=1, statement=statement)
            detail = f"plain {plain[statement]:.2f} s; whole {taken:.2f} s after begin, {after:.2f} s after commit;"
            what = f"{count:,} rows {statement}{'ed' if statement == 'insert' else 'd'} in one, until whole elsewhere"
            budget = Budget("at most", 4, 2.5) if statement == "insert" else None
            rows.append(Row(what, taken / plain[statement], "x plain", budget, f"{detail} never in parts"))
            for node in nodes:
                node.until_quiet()
    return rows


def _alone(plain: Path, count: int) -> dict[str, list[float]]:
    """Return what each of the large transactions takes in a plain file, three times."""
    times: dict[str, list[float]] = {statement: [] for statement in STATEMENTS}
    for _ in range(3):
        make_file(plain)
        for statement in STATEMENTS:
            times[statement].append(float(write(plain, statement=statement, count=count, per_commit=count)["seconds"]))
    return times


def _until_whole(
    nodes: list[Node], count: int, *, first: int, already: int = 0, statement: str = "insert"
) -> tuple[float, float]:
    """Write one transaction at the first node; return seconds from begin and from commit until whole at the second.

    ``already``: rows that are there before an insert.
    """
    before, target = (-count, 0) if statement == "delete" else (already, already + count)
    onlooker = child("watch", nodes[1].db, count=target, pause=POLL, progress=statement)
    written = write(nodes[0].db, count=count, per_commit=count, first=first, statement=statement)
    seen = result(onlooker)["seen"]
    if not seen or seen[-1][0] != target:
        raise RuntimeError(f"the second node has come to {seen[-1:] or 'nothing'}, not to {target}")
    if parts := [number for number, _ in seen if number not in (before, target)]:
        raise RuntimeError(f"the transaction was seen in parts: {parts}")
    whole = float(seen[-1][1])
    return whole - float(written["begun"]), whole - float(written["commits"][-1])


def backlog(folder: Path, sizes: Sizes) -> list[Row]:
    """Measure a node that was away: from its start until it holds everything that was written meanwhile."""
    batch = max(1, sizes.backlog // 100)
    with ExitStack() as stack:
        port = stack.enter_context(nats_server(folder / "nats"))
        nodes = []
        for number in (1, 2):
            (folder / f"node{number}").mkdir()
            nodes.append(Node(number, make_file(folder / f"node{number}" / "bench.db"), port))
        stack.enter_context(nodes[0].running())
        with nodes[1].running():
            pass  # it has met the cluster, and leaves
        write(nodes[0].db, count=sizes.backlog, per_commit=batch)
        nodes[0].until_quiet()
        onlooker = child("watch", nodes[1].db, count=sizes.backlog, pause=0.02)
        started = stack.enter_context(nodes[1].running())
        seen = result(onlooker)["seen"]
        peak = nodes[1].memory_mb("VmHWM")
    if seen[-1][0] != sizes.backlog:
        raise RuntimeError(f"the second node has {seen[-1][0]} of {sizes.backlog} rows")
    seconds = seen[-1][1] - started
    detail = f"from the start of its process; {sizes.backlog / seconds:,.0f} rows/s; peak memory {peak:.0f} MB"
    # Half the rows may take half the time: a smaller run has a smaller budget, its process's start aside.
    limit = max(2.0, 10 * sizes.backlog / 1_000_000)
    return [Row(f"backlog of {sizes.backlog:,} rows", seconds, "s", Budget("at most", limit), detail)]


def idle(folder: Path, sizes: Sizes) -> list[Row]:
    """Measure a node that has nothing to do, its nats-server not counted."""
    with cluster(folder, 2) as nodes:
        write(nodes[0].db, count=1000, per_commit=100)
        nodes[0].until_quiet()
        time.sleep(3)  # not a wait for something: idleness itself is what is measured
        before, started = nodes[1].cpu_seconds(), time.monotonic()
        time.sleep(sizes.idle)
        share = 100 * (nodes[1].cpu_seconds() - before) / (time.monotonic() - started)
        memory = nodes[1].memory_mb()
    return [
        Row("idle node, processor", share, "% of a core", Budget("at most", 0.5, 0.2), f"over {sizes.idle:.0f} s"),
        Row(
            "idle node, memory",
            memory,
            "MB",
            Budget("at most", 60),
            "resident; asked for health, without nats-server",
        ),
    ]


def start(folder: Path, sizes: Sizes) -> list[Row]:
    """Measure a node that starts with its file unchanged, nobody asking it anything."""
    taken, used, memory = [], [], []
    with nats_server(folder / "nats") as port:
        node = Node(1, make_file(folder / "bench.db"), port)
        with node.running():
            write(node.db, count=1000, per_commit=100)
            node.until_quiet()
        for _ in range(ROUNDS):
            with node.unasked() as seconds:
                taken.append(seconds)
                used.append(node.cpu_seconds())
                time.sleep(sizes.idle / 4)  # not a wait for something: what it holds once it rests is measured
                memory.append(node.memory_mb())
    detail = f"{median(used):.2f} s of processor; {min(taken):.2f} to {max(taken):.2f} s"
    return [
        Row("process start until ready, file unchanged", median(taken), "s", Budget("at most", 1, 0.5), detail),
        Row("idle node that nobody asks, memory", median(memory), "MB", Budget("at most", 50, 45), "resident"),
    ]


def cost(folder: Path, sizes: Sizes) -> list[Row]:
    """Measure what a row costs in transactions of growing size: it must not grow with them."""
    each, already = [], 0
    with cluster(folder, 2) as nodes:
        for count in sizes.cost:
            taken, _ = _until_whole(nodes, count, first=already + 1, already=already)
            each.append(1e6 * taken / count)
            already += count
            for node in nodes:
                node.until_quiet()
        peak = max(node.memory_mb("VmHWM") for node in nodes)
    steps = ", ".join(f"{count:,}: {one:.1f} us" for count, one in zip(sizes.cost, each, strict=True))
    series = {"rows": [float(count) for count in sizes.cost], "microseconds": each}
    return [
        Row(
            "cost per row, largest over smallest",
            each[-1] / each[0],
            "x",
            Budget("at most", 1.5, 1.1),
            f"{steps}; peak memory {peak:.0f} MB",
            series,
        )
    ]


MEASUREMENTS = {
    "writes": writes,
    "transaction": transaction,
    "backlog": backlog,
    "idle": idle,
    "start": start,
    "cost": cost,
}
