"""The applications and onlookers of the benchmark, as processes: ``python -m bench.child write|watch FILE OPTIONS``.

Invariant: nothing of the package is imported, and SQLite is the one that an application brings: Python's own
``sqlite3``. Times are of the monotonic clock, which all processes here share.

The table is one as applications have: a text key that sorts by time (as ULIDs do), eight columns, one index. The
connection is set up as guides to SQLite in production recommend: WAL, `synchronous = NORMAL`, a page cache of 64 MB.
"""

from __future__ import annotations

import argparse
import json
import sqlite3
import sys
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from random import Random

TABLE = (
    "CREATE TABLE measured (id TEXT PRIMARY KEY NOT NULL, customer INTEGER NOT NULL, status TEXT NOT NULL,"
    " amount REAL NOT NULL, currency TEXT NOT NULL, note TEXT, created_at TEXT NOT NULL, updated_at TEXT NOT NULL)"
)
INDEX = "CREATE INDEX measured_customer ON measured (customer)"
COUNTED = "CREATE TABLE counted (id INTEGER PRIMARY KEY, body TEXT NOT NULL)"
"""A table of which a new row changes one page, mostly."""
COUNT = {"count": "INSERT INTO counted VALUES (?, ?)", "blob": "INSERT INTO counted VALUES (?, ?)"}
STATEMENTS = {
    "insert": "INSERT INTO measured VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
    "update": "UPDATE measured SET status = ?, amount = ?, updated_at = ? WHERE id = ?",
    "delete": "DELETE FROM measured WHERE id = ?",
}
PROGRESS = {
    "insert": "SELECT count(*) FROM measured",
    "update": "SELECT count(*) FROM measured WHERE status = 'closed'",
    "delete": "SELECT -count(*) FROM measured",
    "count": "SELECT count(*) FROM counted",
    "value": "SELECT CAST(amount * 4 AS INTEGER) FROM measured ORDER BY id LIMIT 1",
}
"""What an onlooker reads, which grows with each statement; ``value``: the number of the first row's last update."""
STRIDE = 7919
"""Updates and deletes take every row in this distance, round and round; a prime number, so none comes twice."""

Row = tuple[str, int, str, float, str, str, str, str]


def rows(first: int, count: int) -> Iterator[Row]:
    """Yield rows of about a hundred and fifty bytes each, all different."""
    for n in range(first, first + count):
        at = _at(n)
        yield (
            _key(n),
            _mixed(n) % 5_000,
            ("new", "paid", "sent")[n % 3],
            n * 1.25,
            "EUR",
            f"a note of ordinary length about order number {n}",
            at,
            at,
        )


def bindings(statement: str, first: int, count: int, among: int, values: int) -> Iterator[tuple[object, ...]]:
    """Yield what ``count`` statements bind. Updates and deletes scatter over the ``among`` rows from ``first`` on;
    updates write values that are numbered from ``values`` on, for SQLite writes nothing where nothing changes.
    """
    if statement == "insert":
        yield from rows(first, count)
        return
    if statement == "blob":
        yield from ((n, _body(n, among)) for n in range(first, first + count))
        return
    if statement == "count":
        yield from (
            (n, f"a note of ordinary length about number {n}".ljust(100, ".")) for n in range(first, first + count)
        )
        return
    for n in range(count):
        key = _key(first + n * STRIDE % among)
        yield ("closed", (values + n) * 0.25, _at(values + n), key) if statement == "update" else (key,)


def _body(n: int, size: int) -> bytes:
    """Return ``size`` bytes that don't compress, as pictures don't, others for each row."""
    return Random(n).randbytes(size)


def _mixed(n: int) -> int:
    return n * 2_654_435_761 % 2**32


def _key(n: int) -> str:
    return f"01JD{n:012d}{_mixed(n):010X}"


def _at(n: int) -> str:
    return f"2026-11-{n // 86_400 % 28 + 1:02d}T{n // 3600 % 24:02d}:{n // 60 % 60:02d}:{n % 60:02d}Z"


CACHE = 64_000
"""Page cache of the application in KiB; SQLite's own default is 2,000."""


def connect(path: str, synchronous: str = "normal", cache: int = CACHE) -> sqlite3.Connection:
    """Open the file as an application does: WAL, a patient busy timeout, transactions by hand."""
    connection = sqlite3.connect(path, timeout=60.0, isolation_level=None)
    connection.execute("PRAGMA journal_mode = wal")
    connection.execute(f"PRAGMA synchronous = {synchronous}")
    connection.execute(f"PRAGMA cache_size = -{cache}")
    return connection


def write(options: argparse.Namespace) -> dict[str, object]:
    """Write rows, ``per_commit`` at a time; tell when it began, when each commit returned, and what it took."""
    connection = connect(options.file, options.synchronous, options.cache)
    sql = (STATEMENTS | COUNT)[options.statement]
    every = bindings(options.statement, options.first, options.count, options.among or options.count, options.values)
    batches = [list(islice(every, options.per_commit)) for _ in range(0, options.count, options.per_commit)]
    commits = []
    before, begun = written(), time.monotonic()
    for number, batch in enumerate(batches, start=1):
        connection.execute("BEGIN IMMEDIATE")
        if connection.executemany(sql, batch).rowcount != len(batch):
            raise SystemExit(f"not every row that was to be written was there: {options.statement}")
        connection.execute("COMMIT")
        commits.append(time.monotonic())
        if options.pause:
            time.sleep(max(0.0, begun + number * options.pause - time.monotonic()))
    bytes_ = written() - before
    connection.close()
    kept = commits if options.pause else commits[-1:]
    return {"begun": begun, "commits": kept, "seconds": commits[-1] - begun, "bytes": bytes_}


def written(process: int | str = "self") -> int:
    """Return how many bytes a process has written to files so far (Linux: proc_pid_io, wchar)."""
    listed = dict(line.split(": ") for line in Path(f"/proc/{process}/io").read_text().splitlines())
    return int(listed["wchar"])


def watch(options: argparse.Namespace) -> dict[str, object]:
    """Look at the file again and again until its progress is ``count``; tell each number that was seen, and when."""
    connection = connect(options.file)
    seen: list[tuple[int, float]] = []
    before, last = None, float("-inf")
    print("watching", flush=True)
    deadline = time.monotonic() + options.seconds
    while last < options.count and time.monotonic() < deadline:
        version = connection.execute("PRAGMA data_version").fetchone()
        now = time.monotonic()
        if version != before:
            before = version
            found = int(connection.execute(PROGRESS[options.progress]).fetchone()[0])
            if found != last:
                last = found
                seen.append((last, now))
        time.sleep(options.pause)
    connection.close()
    return {"seen": seen}


def think(options: argparse.Namespace) -> dict[str, object]:
    """Read the first row, think for ``pause``, write it, in deferred transactions; tell how many of them failed."""
    connection = connect(options.file)
    print("watching", flush=True)
    failed = 0
    for number in range(options.count):
        connection.execute("BEGIN")
        key = connection.execute("SELECT min(id) FROM measured").fetchone()
        time.sleep(options.pause)
        try:
            connection.execute("UPDATE measured SET customer = ? WHERE id = ?", (number, *key))
            connection.execute("COMMIT")
        except sqlite3.OperationalError:
            failed += 1
            connection.execute("ROLLBACK")
        time.sleep(0.002)
    connection.close()
    return {"failed": failed}


def hold(options: argparse.Namespace) -> dict[str, object]:
    """Keep one transaction that has read open, as a backup tool does, until standard input ends."""
    connection = connect(options.file)
    connection.execute("BEGIN")
    connection.execute(PROGRESS["insert"]).fetchone()
    print("watching", flush=True)
    sys.stdin.read()
    connection.close()
    return {}


def mix(options: argparse.Namespace) -> dict[str, object]:
    """Insert, update and delete single rows for ``seconds``, ``pause`` apart; keep ``count`` rows from ``first`` on."""
    connection = connect(options.file, options.synchronous, options.cache)
    print("watching", flush=True)
    fresh = rows(options.first, 10**9)
    number, commits, begun = options.first, 0, time.monotonic()
    while time.monotonic() < begun + options.seconds:
        connection.execute(STATEMENTS["insert"], next(fresh))
        number += 1
        oldest = max(options.first, number - options.count)
        some = oldest + commits * STRIDE % (number - oldest)
        connection.execute(STATEMENTS["update"], ("closed", commits * 0.25, _at(commits), _key(some)))
        if oldest > options.first:
            connection.execute(STATEMENTS["delete"], (_key(oldest - 1),))
        commits += 3
        time.sleep(max(0.0, begun + commits * options.pause - time.monotonic()))
    connection.close()
    return {"commits": commits, "seconds": time.monotonic() - begun}


CHILDREN = {"write": write, "watch": watch, "think": think, "hold": hold, "mix": mix}


def main() -> None:
    """Run one child."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=list(CHILDREN))
    parser.add_argument("file")
    parser.add_argument("--count", type=int, required=True, help="rows to write, or the progress to wait for")
    parser.add_argument("--first", type=int, default=1, help="number of the first row")
    parser.add_argument("--statement", choices=[*STATEMENTS, *COUNT], default="insert")
    parser.add_argument("--progress", choices=list(PROGRESS), default="insert", help="what an onlooker reads")
    parser.add_argument(
        "--among", type=int, default=0, help="rows that updates scatter over; 0: as many as --count; bytes of a blob"
    )
    parser.add_argument("--values", type=int, default=0, help="number of the first value that an update writes")
    parser.add_argument("--per-commit", type=int, default=1, help="rows in one transaction")
    parser.add_argument("--synchronous", default="normal")
    parser.add_argument("--cache", type=int, default=CACHE, help="page cache in KiB")
    parser.add_argument("--pause", type=float, default=0.0, help="seconds between commits, or between polls")
    parser.add_argument("--seconds", type=float, default=600.0, help="how long to watch at most")
    options = parser.parse_args()
    json.dump(CHILDREN[options.what](options), sys.stdout)


if __name__ == "__main__":
    main()
