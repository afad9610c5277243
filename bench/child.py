"""The applications and onlookers of the benchmark, as processes: ``python -m bench.child write|watch FILE OPTIONS``.

Invariant: nothing of the package is imported; times are of the monotonic clock, which all processes here share.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator

import apsw

TABLE = "CREATE TABLE measured (id INTEGER PRIMARY KEY, name TEXT NOT NULL, amount REAL NOT NULL, note TEXT)"
INSERT = "INSERT INTO measured VALUES (?, ?, ?, ?)"


def rows(first: int, count: int) -> Iterator[tuple[int, str, float, str]]:
    """Yield rows of about a hundred bytes each, all different."""
    for n in range(first, first + count):
        yield n, f"customer number {n}", n * 1.25, f"a note of ordinary length about number {n}, no more"


def connect(path: str, synchronous: str = "normal") -> apsw.Connection:
    """Open the file as an application does: WAL, a patient busy timeout."""
    connection = apsw.Connection(path)
    connection.set_busy_timeout(60_000)
    connection.pragma("journal_mode", "wal")
    connection.pragma("synchronous", synchronous)
    return connection


def write(options: argparse.Namespace) -> dict[str, object]:
    """Insert rows, ``per_commit`` at a time; tell when it began, when each commit returned, and what it took."""
    connection = connect(options.file, options.synchronous)
    batches = [
        list(rows(options.first + n, min(options.per_commit, options.count - n)))
        for n in range(0, options.count, options.per_commit)
    ]
    commits = []
    begun = time.monotonic()
    for batch in batches:
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(INSERT, batch)
        connection.execute("COMMIT")
        commits.append(time.monotonic())
        if options.pause:
            time.sleep(options.pause)
    connection.close()
    return {"begun": begun, "commits": commits if options.pause else commits[-1:], "seconds": commits[-1] - begun}


def watch(options: argparse.Namespace) -> dict[str, object]:
    """Look at the file again and again until it has ``count`` rows; tell each number of rows seen, and when."""
    connection = connect(options.file)
    version = connection.execute("PRAGMA data_version")
    seen: list[tuple[int, float]] = []
    before, last = None, -1
    print("watching", flush=True)
    deadline = time.monotonic() + options.seconds
    while last < options.count and time.monotonic() < deadline:
        version = connection.execute("PRAGMA data_version").get
        now = time.monotonic()
        if version != before:
            before = version
            found = connection.execute("SELECT count(*) FROM measured").get
            if found != last:
                last = int(str(found))
                seen.append((last, now))
        time.sleep(options.pause)
    connection.close()
    return {"seen": seen}


def main() -> None:
    """Run one child."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["write", "watch"])
    parser.add_argument("file")
    parser.add_argument("--count", type=int, required=True, help="rows to write, or to wait for")
    parser.add_argument("--first", type=int, default=1, help="key of the first row")
    parser.add_argument("--per-commit", type=int, default=1, help="rows in one transaction")
    parser.add_argument("--synchronous", default="normal")
    parser.add_argument("--pause", type=float, default=0.0, help="seconds between commits, or between looks")
    parser.add_argument("--seconds", type=float, default=600.0, help="how long to watch at most")
    options = parser.parse_args()
    answer = write(options) if options.what == "write" else watch(options)
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
