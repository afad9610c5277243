"""Applications in processes of their own, with their own SQLite library, beside a replica of this one.

``python fix_neighbours.py FILE COUNT MILLISECONDS``: that many transactions as most libraries make them, deferred; each
reads, thinks for a while, and writes. The failures are printed, and "ready" before the first one.
"""

from __future__ import annotations

import sqlite3
import sys
import time
from contextlib import closing


def read_then_write(file: str, count: int, milliseconds: float) -> int:
    """Return how many of ``count`` transactions fail."""
    failures = 0
    with closing(sqlite3.connect(file, timeout=5.0, isolation_level=None)) as connection:
        print("ready", flush=True)
        for number in range(count):
            connection.execute("BEGIN")
            connection.execute("SELECT b FROM t WHERE id = 1").fetchall()
            time.sleep(milliseconds / 1000)
            try:
                connection.execute("UPDATE t SET b = ? WHERE id = 1", (number,))
                connection.execute("COMMIT")
            except sqlite3.OperationalError:
                failures += 1
                connection.execute("ROLLBACK")
            time.sleep(0.002)
    return failures


if __name__ == "__main__":
    print(read_then_write(sys.argv[1], int(sys.argv[2]), float(sys.argv[3])), flush=True)
