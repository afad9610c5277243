"""A crash in the middle of a transaction, in a file with a rollback journal: it is no damage, and is rolled back."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import apsw

from harmonylite.db.repair import damage
from harmonylite.db.snapshot import has_tables

CRASH = """
import os, signal, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("PRAGMA cache_size = 5")
connection.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, v)")
connection.execute("INSERT INTO t VALUES (1, 'committed')")
connection.execute("BEGIN")
connection.executemany("INSERT INTO t VALUES (?, zeroblob(4000))", ((i,) for i in range(2, 200)))
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_crash_left_half_written_is_rolled_back_and_no_damage(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    crashed = subprocess.run([sys.executable, "-c", CRASH, str(path)], check=False, timeout=60)
    assert crashed.returncode == -signal.SIGKILL
    assert Path(f"{path}-journal").stat().st_size > 0, "or nothing is tested"
    assert damage(path) == ""
    assert has_tables(path)
    connection = apsw.Connection(str(path))
    assert connection.execute("SELECT id, v FROM t").fetchall() == [(1, "committed")]
    connection.close()
