"""A trigger makes SQLite keep a journal for each statement, which memory keeps unwritten (docs/benchmarks.md)."""

from __future__ import annotations

import sqlite3
import sys
from pathlib import Path

import pytest

from bench.child import INDEX, TABLE, written
from bench.child import rows as some_rows

TRIGGER = "CREATE TRIGGER none AFTER INSERT ON measured WHEN 0 BEGIN SELECT 1; END"


def bulk(file: Path, *before: str) -> int:
    """Return the bytes that one transaction of many new rows writes, with a page cache as SQLite has it."""
    connection = sqlite3.connect(file, isolation_level=None)
    for sql in ("PRAGMA journal_mode = wal", "PRAGMA cache_size = -2000", TABLE, INDEX, *before, "BEGIN"):
        connection.execute(sql)
    was = written()
    connection.executemany("INSERT INTO measured VALUES (?, ?, ?, ?, ?, ?, ?, ?)", some_rows(1, 100_000))
    connection.execute("COMMIT")
    done = written() - was
    connection.close()
    return done


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what a process has written")
def test_a_trigger_that_does_nothing_costs_writes_that_memory_spares(tmp_path: Path) -> None:
    plain = bulk(tmp_path / "plain.db")
    assert bulk(tmp_path / "trigger.db", TRIGGER) > 2 * plain
    assert bulk(tmp_path / "memory.db", TRIGGER, "PRAGMA temp_store = memory") < 1.2 * plain
