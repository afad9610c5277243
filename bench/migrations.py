"""How soon a schema change of one node is in another node's file, over a one-row commit and over the plain statement.

Invariant: a change that alters no value sends no row, or the run fails.
"""

from __future__ import annotations

import sqlite3
import time
import urllib.request
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench.child import connect
from bench.latency import one_by_one
from bench.machine import Node, make_file, write
from bench.measure import POLL, Sizes, cluster
from bench.report import Budget, Row

SCHEMA = '\n[schema]\napply = "all"\n'
STEPS = 15
"""Tables that are made for the row without a rebuild."""
PATIENCE = 300.0


def rebuilt(status: str) -> tuple[str, ...]:
    """Return how migration tools alter a column: a new table, its rows, and the old one's name. It alters no value."""
    return (
        f"CREATE TABLE new_measured (id TEXT PRIMARY KEY NOT NULL, customer INTEGER NOT NULL, status {status},"
        " amount REAL NOT NULL, currency TEXT NOT NULL, note TEXT, created_at TEXT NOT NULL, updated_at TEXT NOT NULL,"
        " added TEXT)",
        "INSERT INTO new_measured SELECT id, customer, status, amount, currency, note, created_at, updated_at, added"
        " FROM measured",
        "DROP TABLE measured",
        "ALTER TABLE new_measured RENAME TO measured",
        "CREATE INDEX measured_customer ON measured (customer)",
    )


CHANGES = (
    ("ADD COLUMN", "added", ("ALTER TABLE measured ADD COLUMN added TEXT",)),
    ("rebuild with another length", "VARCHAR(20)", rebuilt("VARCHAR(20) NOT NULL")),
    ("rebuild with another default", "DEFAULT 'new'", rebuilt("VARCHAR(20) NOT NULL DEFAULT 'new'")),
)
"""What is altered, the text by which the other node's schema shows it, and the statements."""


@dataclass(frozen=True, slots=True)
class Step:
    """What a migration took: seconds of its own statements, and from its begin until it was in the other file."""

    alone: float
    whole: float


def migrations(folder: Path, sizes: Sizes) -> list[Row]:
    """Measure new tables over one-row commits; ADD COLUMN and a rebuild of ``sizes.backlog`` rows over a plain file."""
    rows = sizes.backlog
    plain = make_file(folder / "plain.db")
    with cluster(folder, 2, metrics="true", more=SCHEMA) as nodes:
        one_row = median(one_by_one(nodes, sizes.latency // 4, already=0, synchronous="full"))
        made = [_until_there(nodes, f"made{n}", (f"CREATE TABLE made{n} (id PRIMARY KEY)",)) for n in range(STEPS)]
        alone = sorted(1000 * (step.whole - step.alone) for step in made)
        measured = [
            Row(
                "CREATE TABLE until there elsewhere, p50",
                median(alone) / one_row,
                "x one-row commit",
                Budget("at most", 1.5),
                f"{median(alone):.1f} ms, a one-row commit {one_row:.1f} ms; {STEPS} tables",
            )
        ]
        first = sizes.latency // 4 + 1
        for file in (plain, nodes[0].db):
            write(file, count=rows, per_commit=10_000, first=first)
        for node in nodes:
            node.until_quiet()
        for what, name, statements in CHANGES:
            taken = _run(plain, statements)
            sent = _sent(nodes[0])
            step = _until_there(nodes, name, statements)
            for node in nodes:
                node.until_quiet()
            if _sent(nodes[0]) != sent:
                raise RuntimeError(f"the {what} sent {_sent(nodes[0]) - sent} rows")
            after = step.whole - step.alone
            detail = f"plain {taken:.3f} s, here {step.alone:.3f} s, then {after:.3f} s until there; no row was sent"
            # What an addition takes is no ratio of its own statement, which rewrites no row.
            if what == "ADD COLUMN":
                ratio, unit = 1000 * after / one_row, "x one-row commit"
            else:
                ratio, unit = step.whole / taken, "x plain"
            measured.append(Row(f"{what}, {rows:,} rows, until there elsewhere", ratio, unit, None, detail))
    return measured


def _until_there(nodes: list[Node], text: str, statements: tuple[str, ...]) -> Step:
    """Migrate the first node; wait until the second one's schema has ``text``, and both are quiet."""
    with closing(connect(str(nodes[1].db))) as onlooker:
        begun = time.monotonic()
        alone = _run(nodes[0].db, statements)
        deadline = begun + PATIENCE
        while not _there(onlooker, text):
            if time.monotonic() > deadline:
                raise RuntimeError(f"{text!r} is not in the second node's schema")
            time.sleep(POLL)
        return Step(alone, time.monotonic() - begun)


def _there(onlooker: sqlite3.Connection, text: str) -> bool:
    return bool(onlooker.execute("SELECT count(*) FROM sqlite_schema WHERE instr(sql, ?)", (text,)).fetchone()[0])


def _run(file: Path, statements: tuple[str, ...]) -> float:
    """Run one transaction; return its seconds."""
    with closing(connect(str(file))) as connection:
        begun = time.monotonic()
        connection.execute("BEGIN IMMEDIATE")
        for sql in statements:
            connection.execute(sql)
        connection.execute("COMMIT")
        return time.monotonic() - begun


def _sent(node: Node) -> int:
    """Return how many rows the node has published."""
    with urllib.request.urlopen(f"http://127.0.0.1:{node.http}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return sum(int(float(line.split()[-1])) for line in lines if line.startswith("harmonylite_published_rows"))
