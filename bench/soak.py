"""``python -m bench.soak``: three nodes under steady writes for hours; nothing but their number may grow.

Invariant: the applications keep as many rows as in the beginning, so whatever grows is the node's, or NATS's. The run
ends with an error where the nodes differ in the end, or where something grew.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from statistics import median

from bench.child import connect
from bench.machine import Node, child, describe, make_file, nats_server, result

HERE = Path(__file__).parent
NODES = 3
KEPT = 2_000
"""Rows that each application keeps."""
STREAM_ENTRIES = 20_000
"""Messages that the stream keeps: old ones go once there are so many."""
FULL = 0.95
"""The share of these from which on the stream has its size; before, it may grow."""
SETTLED = 0.4
"""The share of the run after which everything has its size; what comes later is compared with what came before."""
GROWTH = {"memory_mb": 1.15, "files": 1.1, "database_mb": 1.3, "mirror_mb": 1.3, "stream_mb": 1.5}
"""What the median of the last tenth may be over that of the tenth after `SETTLED`. Files change in steps of a
checkpoint, and a stream by the snapshot that allows it to forget."""

GREW = "it grew"

Sample = dict[str, float]


def main() -> int:
    """Run what the command line asks for; print, save and plot it; exit code 0 only when nothing grew."""
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description="steady writes; nothing may grow")
    parser.add_argument("--seconds", type=float, default=7200.0, help="how long to write")
    parser.add_argument("--rate", type=float, default=500.0, help="commits a second on all nodes together")
    parser.add_argument("--every", type=float, default=10.0, help="seconds between samples")
    parser.add_argument("--data", type=Path, default=HERE / "data", help="folder in which the files are made")
    parser.add_argument("--output", type=Path, default=HERE / "results", help="folder for JSON and plot")
    options = parser.parse_args()
    folder = options.data / "harmonylite-soak"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    machine = describe(folder)
    samples, commits = run(folder, options.seconds, options.rate, options.every)
    growth = {name: grown(samples, name) for name in GROWTH}
    print(f"{commits:,} commits in {options.seconds:,.0f} s, {commits / options.seconds:,.0f} a second")
    for name, most in GROWTH.items():
        print(f"{name}: {samples[-1][name]:,.1f} at the end, {growth[name]:.2f} x ({judged(samples, name, most)})")
    options.output.mkdir(parents=True, exist_ok=True)
    told = {"machine": machine, "seconds": options.seconds, "commits": commits, "growth": growth, "samples": samples}
    (options.output / "soak.json").write_text(json.dumps(told) + "\n")
    plot(
        samples,
        f"{commits:,} commits in {options.seconds / 60:,.0f} minutes on three nodes",
        options.output / "soak.png",
    )
    shutil.rmtree(folder)
    return 0 if all(judged(samples, name, most) != GREW for name, most in GROWTH.items()) else 1


def run(folder: Path, seconds: float, rate: float, every: float) -> tuple[list[Sample], int]:
    """Write for ``seconds``; return what was measured meanwhile, and how many commits there were."""
    with ExitStack() as stack:
        port = stack.enter_context(nats_server(folder / "nats"))
        nodes = []
        for number in range(1, NODES + 1):
            (folder / f"node{number}").mkdir()
            file = make_file(folder / f"node{number}" / "bench.db")
            nodes.append(replace(Node(number, file, port), entries=STREAM_ENTRIES))
            stack.enter_context(nodes[-1].running())
        writers = [
            child("mix", node.db, count=KEPT, first=node.number * 10**9, pause=NODES / rate, seconds=seconds)
            for node in nodes
        ]
        begun, samples = time.monotonic(), list[Sample]()
        while any(writer.poll() is None for writer in writers):
            time.sleep(every)
            samples.append(sample(nodes, folder / "nats", time.monotonic() - begun))
        commits = sum(int(result(writer)["commits"]) for writer in writers)
        for node in nodes:
            node.until_quiet()
        contents = {content(node) for node in nodes}
    if len(contents) > 1:
        raise RuntimeError("the nodes differ in the end")
    return samples, commits


def sample(nodes: Sequence[Node], streams: Path, at: float) -> Sample:
    """Return the figures of now; of the nodes, the largest one's."""
    return {
        "seconds": round(at, 1),
        "memory_mb": max(node.memory_mb() for node in nodes),
        "files": max(len(list(Path(f"/proc/{node.process.pid}/fd").iterdir())) for node in nodes if node.process),
        "database_mb": max(size(node.db.parent, "bench.db*") for node in nodes),
        "mirror_mb": max(size(node.db.parent, "mirror/**/*") for node in nodes),
        "stream_mb": size(streams, "**/*"),
        "published": published(nodes[0]),
        "pending": max(float(node.ask("/health")[1].get("pending_rows", 0)) for node in nodes),
        "cpu_seconds": sum(node.cpu_seconds() for node in nodes),
    }


def published(node: Node) -> float:
    """Return how many messages were published so far."""
    return float(sum(shard["last"] for shard in node.ask("/health")[1].get("shards", [])))


def size(folder: Path, pattern: str) -> float:
    """Return the megabytes of the files in ``folder`` that ``pattern`` names; one that goes meanwhile is none."""
    total = 0
    for file in folder.glob(pattern):
        try:
            total += file.stat().st_size if file.is_file() else 0
        except FileNotFoundError:
            continue
    return total / 1e6


def content(node: Node) -> int:
    """Return a number that is the same for nodes with the same rows, within this process."""
    connection = connect(str(node.db))
    try:
        return hash(tuple(connection.execute("SELECT * FROM measured ORDER BY id").fetchall()))
    finally:
        connection.close()


def judged(samples: Sequence[Sample], name: str, most: float) -> str:
    """Return what is to be said of a series: that it grew, or why it did not. A stream that never was full may grow."""
    if grown(samples, name) <= most:
        return f"at most {most}"
    start = int(len(samples) * SETTLED)
    if name == "stream_mb" and samples[start]["published"] < FULL * STREAM_ENTRIES:
        return f"it had {samples[start]['published']:,.0f} of its {STREAM_ENTRIES:,} messages by then, and may grow"
    return GREW


def grown(samples: Sequence[Sample], name: str) -> float:
    """Return what the last tenth of a series is over the tenth after `SETTLED`."""
    tenth = max(1, len(samples) // 10)
    start = int(len(samples) * SETTLED)
    before = median(each[name] for each in samples[start : start + tenth])
    return median(each[name] for each in samples[-tenth:]) / before


def plot(samples: Sequence[Sample], title: str, target: Path) -> None:
    """Draw each series over the minutes."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    minutes = [each["seconds"] / 60 for each in samples]
    figure, axes = pyplot.subplots(2, 3, figsize=(15, 7), layout="constrained", sharex=True)
    for axis, name in zip(axes.flat, [*GROWTH, "pending"], strict=True):
        axis.plot(minutes, [each[name] for each in samples], color="tab:blue")
        axis.set_title(name.replace("_mb", ", MB").replace("_", " "))
        axis.set_ylim(bottom=0)
        axis.grid(visible=True, alpha=0.3)
    for axis in axes[1]:
        axis.set_xlabel("minutes")
    figure.suptitle(title)
    figure.savefig(target, dpi=90)
    pyplot.close(figure)


if __name__ == "__main__":
    sys.exit(main())
