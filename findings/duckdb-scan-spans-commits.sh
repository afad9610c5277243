#!/usr/bin/env bash
# DuckDB: one SELECT over a SQLite table sees several states of it, inside of BEGIN TRANSACTION, too.
#
# Versions:  duckdb 1.5.5 with its sqlite_scanner of the same number (PyPI package duckdb-extension-sqlite-scanner)
# Guess:     The scanner reads through SQLite, where a statement sees one state of the file, and a transaction, too.
# Behaviour: A table of more than some 100,000 rows is read in ranges of rowids, by several connections. Each range begins a
#            read of its own, so what commits meanwhile is in some ranges and not in others: half a transaction is
#            counted. With one thread an attached file is read in one state; by sqlite_scan() it isn't.
# For users: Nodes merge whole transactions, and DuckDB shows halves of them: sums that never were. SET threads = 1 and
#            ATTACH, or let DuckDB read a copy (VACUUM INTO, a snapshot).
#
# Output:
#   a wrong total, ATTACH: True
#   a wrong total, ATTACH and BEGIN TRANSACTION: True
#   a wrong total, ATTACH, one thread: False
#   a wrong total, sqlite_scan(), one thread: True
#   SQLite's own total: 3000000
#   as stated
source "$(dirname "$0")/lib/lab.bash"
packages duckdb==1.5.5 duckdb-extension-sqlite-scanner==1.5.5
cat > "$work/writer.py" <<'PY'
import sqlite3
import sys

db = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=60)
while True:  # takes from the first row what it adds to the last one
    db.execute("BEGIN IMMEDIATE")
    db.execute("UPDATE t SET n = n - 1 WHERE id = 1")
    db.execute("UPDATE t SET n = n + 1 WHERE id = 300000")
    db.execute("COMMIT")
PY
"$python" - <<'PY'
import sqlite3
import subprocess
import sys
from pathlib import Path

import duckdb
import duckdb_extension_sqlite_scanner
from lab import WORK, expect, finish

(EXTENSION,) = Path(duckdb_extension_sqlite_scanner.__file__).parent.glob("extensions/*/*.duckdb_extension")
TOTAL, TRIES = 3_000_000, 30
file = WORK / "a.db"
db = sqlite3.connect(file)
db.execute("PRAGMA journal_mode = WAL")
db.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, n INTEGER NOT NULL)")
db.executemany("INSERT INTO t VALUES (?, 10)", ((number,) for number in range(1, 300_001)))
db.commit()


def wrong_total(*, attach=True, threads=2, before=(), after=()):
    duck = duckdb.connect()
    duck.execute(f"LOAD '{EXTENSION}'")
    duck.execute(f"SET threads = {threads}")
    duck.execute(f"ATTACH '{file}' AS s (TYPE sqlite)")
    table = "s.t" if attach else f"sqlite_scan('{file}', 't')"
    try:
        for _ in range(TRIES):
            for statement in before:
                duck.execute(statement)
            (total,) = duck.execute(f"SELECT sum(n) FROM {table}").fetchone()
            for statement in after:
                duck.execute(statement)
            if total != TOTAL:
                return True
        return False
    finally:
        duck.close()


writer = subprocess.Popen([sys.executable, WORK / "writer.py", file])
try:
    whole = {"before": ["BEGIN TRANSACTION"], "after": ["COMMIT"]}
    expect("a wrong total, ATTACH", wrong_total(), True)
    expect("a wrong total, ATTACH and BEGIN TRANSACTION", wrong_total(**whole), True)
    expect("a wrong total, ATTACH, one thread", wrong_total(threads=1), False)
    expect("a wrong total, sqlite_scan(), one thread", wrong_total(attach=False, threads=1), True)
finally:
    writer.kill()
    writer.wait()
expect("SQLite's own total", db.execute("SELECT sum(n) FROM t").fetchone()[0], TOTAL)
finish()
PY
