"""Another process that has a transaction open on a database.

Invariant: it ends with the block that started it.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HOLD = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("SELECT count(*) FROM t").fetchall()
for sql in sys.argv[2:]:
    connection.execute(sql).fetchall()
print("ready", flush=True)
sys.stdin.readline()
"""
"""Reads table ``t``, then keeps its transaction open."""


@contextmanager
def process(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run Python with ``arguments`` until the block ends; it has said that it is ready."""
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, *arguments], stdin=pipe, stdout=pipe, text=True) as started:
        assert started.stdout is not None
        try:
            assert started.stdout.readline() == "ready\n"
            yield started
        finally:
            started.kill()


@contextmanager
def holding(file: Path, *sqls: str) -> Iterator[subprocess.Popen[str]]:
    """Let another process run statements, and keep its transaction open while the block runs."""
    with process("-c", HOLD, str(file), *sqls) as started:
        yield started
