"""``python -m bench.snapshots``: saving and restoring, beside what the disk and zstd do alone; catching up; starting.

Every figure is measured in one run on one file, in a fresh process where that matters. The file holds rows of text and
numbers that compress about as well as a real database's.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sqlite3
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from bench.machine import Node, describe, nats_server
from bench.report import make_console
from harmonylite.db.replica import Replica
from harmonylite.db.replica_options import ReplicaOptions
from harmonylite.db.snapshot import begin_hidden, fill, offer, save_copy, seal
from harmonylite.db.sqlite.deadline import Deadline
from harmonylite.snapshots.archive import CHUNK, LEVEL, pack, unpack

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

MB = 1_000_000
WORDS = 4_000
ROW_BYTES = 210
READY_SECONDS = 900.0


def make(path: Path, size: int) -> int:
    """Make a database of about ``size`` bytes; return its number of rows."""
    rng = random.Random(7)
    words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(3, 11))) for _ in range(WORDS)]
    rows = max(1, size // ROW_BYTES)
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = wal")
    connection.execute("CREATE TABLE items(id INTEGER PRIMARY KEY, name TEXT, price REAL, at INTEGER, note TEXT)")
    connection.execute("BEGIN")
    connection.executemany(
        "INSERT INTO items VALUES (?, ?, ?, ?, ?)",
        (
            (
                i,
                " ".join(rng.choices(words, k=3)),
                rng.random() * 100,
                1_700_000_000 + i,
                " ".join(rng.choices(words, k=19)),
            )
            for i in range(rows)
        ),
    )
    connection.execute("COMMIT")
    connection.close()
    return rows


def timed(work: Callable[[], object]) -> float:
    """Return the seconds that ``work`` takes."""
    started = time.monotonic()
    work()
    return time.monotonic() - started


def compress_alone(source: Path, target: Path) -> None:
    """Compress as a snapshot is, and do nothing else."""
    with source.open("rb") as plain, zstd.open(target, "wb", level=LEVEL) as packed:
        shutil.copyfileobj(plain, packed, CHUNK)


def measure_files(folder: Path, size: int) -> dict[str, float]:
    """Return MB/s of the uncompressed file for each way of copying, saving and restoring it."""
    source = folder / "source.db"
    make(source, size)
    options = ReplicaOptions(source, folder / "mirror", "bench", "bench")
    replica = Replica(options)
    replica.open()
    replica.join_first()
    replica.close()
    plain, packed, back = folder / "copy.db", folder / "copy.zst", folder / "back.db"
    seconds: dict[str, float] = {}

    def vacuum() -> None:
        connection = sqlite3.connect(source)
        connection.execute("VACUUM INTO ?", (str(folder / "vacuum.db"),))
        connection.close()

    digest = ""

    def compress() -> None:
        nonlocal digest
        digest = pack(plain, packed)

    seconds["cp"] = timed(lambda: shutil.copyfile(source, folder / "cp.db"))
    seconds["VACUUM INTO"] = timed(vacuum)
    seconds["copy of the mirror"] = timed(lambda: save_copy(options.mirror, plain))
    seconds["zstd alone"] = timed(lambda: compress_alone(plain, folder / "alone.zst"))
    seconds["zstd with SHA-256"] = timed(compress)
    seconds["save: both together"] = seconds["copy of the mirror"] + seconds["zstd with SHA-256"]
    seconds["unzstd with SHA-256"] = timed(lambda: unpack(packed, back, digest))
    fresh = ReplicaOptions(folder / "new.db", folder / "new", "bench", "bench")

    def restore() -> None:
        replica = begin_hidden(fresh, back, Deadline())
        fill(replica, Deadline())
        seal(replica)
        offer(replica.options.database, fresh.database)

    seconds["database from the mirror"] = timed(restore)
    seconds["restore: both together"] = seconds["unzstd with SHA-256"] + seconds["database from the mirror"]
    bytes_ = plain.stat().st_size
    found = {name: bytes_ / MB / each for name, each in seconds.items()}
    found["compressed to, share"] = packed.stat().st_size / bytes_
    return found


def nothing_to_ready(folder: Path, sizes: list[int]) -> dict[str, float]:
    """Return the seconds from starting a node without a file until it is ready, for databases of ``sizes`` bytes."""
    found = {}
    for size in sizes:
        place = folder / f"{size}"
        with ExitStack() as stack:
            (place / "first").mkdir(parents=True)
            port = stack.enter_context(nats_server(place / "nats"))
            make(place / "first" / "bench.db", size)
            first = Node(1, place / "first" / "bench.db", port)
            stack.enter_context(first.running(READY_SECONDS))
            (place / "second").mkdir()
            second = Node(2, place / "second" / "bench.db", port)
            started = time.monotonic()
            stack.enter_context(second.running(READY_SECONDS))
            found[f"{size // MB} MB"] = time.monotonic() - started
        shutil.rmtree(place)
    return found


def catching_up(folder: Path, rows: int) -> float:
    """Return the seconds that a node needs for ``rows`` rows that were written while it was away."""
    with ExitStack() as stack:
        for name in ("first", "second"):
            (folder / name).mkdir(parents=True)
        port = stack.enter_context(nats_server(folder / "nats"))
        make(folder / "first" / "bench.db", MB)
        first = Node(1, folder / "first" / "bench.db", port)
        stack.enter_context(first.running(READY_SECONDS))
        second = Node(2, folder / "second" / "bench.db", port)
        with second.running(READY_SECONDS):
            pass
        connection = sqlite3.connect(first.db, isolation_level=None, timeout=60)
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(
            "INSERT INTO items VALUES (?, 'late', 1.5, 1, 'a note of middling length')",
            ((10_000_000 + i,) for i in range(rows)),
        )
        connection.execute("COMMIT")
        connection.close()
        # by the stream and not by pending rows: those are counted only once they are captured
        deadline = time.monotonic() + READY_SECONDS
        while not first.ask("/health")[1].get("last_published_event_timestamp"):
            if time.monotonic() > deadline:
                raise RuntimeError(f"the rows were not published: {first.ask('/health')[1]}")
            time.sleep(0.1)
        first.until_quiet(READY_SECONDS)
        started = time.monotonic()
        stack.enter_context(second.running(READY_SECONDS))
        reader = sqlite3.connect(f"file:{second.db}?mode=ro", uri=True, timeout=60)
        while reader.execute("SELECT count(*) FROM items WHERE name = 'late'").fetchone()[0] < rows:
            if time.monotonic() > deadline:
                raise RuntimeError("the rows did not arrive")
            time.sleep(0.1)
        reader.close()
        return time.monotonic() - started


def main() -> int:
    """Measure what the command line asks for, print it, and write it down."""
    parser = argparse.ArgumentParser(prog="python -m bench.snapshots", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="100 MB instead of 1 GB, 100,000 rows instead of 1,000,000"
    )
    parser.add_argument("--data", type=Path, default=Path(__file__).parent / "data", help="where the files are made")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results", help="where the result goes")
    options = parser.parse_args()
    data = options.data / "harmonylite-snapshots"
    shutil.rmtree(data, ignore_errors=True)
    (data / "files").mkdir(parents=True)
    large = 100 * MB if options.quick else 1000 * MB
    console = make_console()
    result: dict[str, object] = {"machine": describe(data), "bytes": large}
    speeds = measure_files(data / "files", large)
    shutil.rmtree(data / "files")
    result["MB/s"] = speeds
    for name, value in speeds.items():
        console.print(f"{name:28} {value:10.2f}" + ("" if "share" in name else " MB/s"))
    ready = nothing_to_ready(data / "ready", [10 * MB, 100 * MB] if options.quick else [10 * MB, 100 * MB, large])
    result["seconds from nothing to ready"] = ready
    for name, value in ready.items():
        console.print(f"from nothing to ready, {name:6} {value:8.2f} s")
    rows = 100_000 if options.quick else 1_000_000
    result["seconds to catch up"] = caught = catching_up(data / "late", rows)
    console.print(f"catching up with {rows:,} rows {caught:8.2f} s")
    options.output.mkdir(parents=True, exist_ok=True)
    file = options.output / "snapshots.json"
    file.write_text(json.dumps(result, indent=2, default=str) + "\n")
    console.print(f"written: {file}")
    shutil.rmtree(data)
    return 0


if __name__ == "__main__":
    sys.exit(main())
