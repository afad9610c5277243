#!/usr/bin/env bash
# DuckDB: a query that compares a table of two attached SQLite files can read the first file twice, and finds them equal.
#
# Versions:  duckdb 1.5.5 with its sqlite_scanner of the same number (duckdb/duckdb issue 24781; 1.4 has no such optimizer)
# Guess:     one.t and two.t are two tables.
# Behaviour: The optimizer common_subplan takes two subplans for one where only the file or the table's name differs, and reads
#            the first one for both: totals, checksums and EXCEPT of DISTINCT rows say "equal" for files that
#            differ. It needs the same columns, so it meets just those who compare copies, or tables of one shape in one
#            file. A scan without an aggregate or DISTINCT above it is right, as is sqlite_scan().
# For users: Don't compare two nodes' files by DuckDB 1.5 without SET disabled_optimizers = 'common_subplan'.
#            HarmonyLite's verify compares nodes at one position.
#
# Output:
#   totals of one and two: [(30, 30)]
#   rows of one that two lacks: []
#   totals, disabled_optimizers = 'common_subplan': [(30, 70)]
#   rows, disabled_optimizers = 'common_subplan': [(2, 20)]
#   totals by sqlite_scan(): [(30, 70)]
#   as stated
source "$(dirname "$0")/lib/lab.bash"
packages duckdb==1.5.5 duckdb-extension-sqlite-scanner==1.5.5
"$python" - <<'PY'
import sqlite3
from pathlib import Path

import duckdb
import duckdb_extension_sqlite_scanner
from lab import WORK, expect, finish

(EXTENSION,) = Path(duckdb_extension_sqlite_scanner.__file__).parent.glob("extensions/*/*.duckdb_extension")
duck = duckdb.connect()
duck.execute(f"LOAD '{EXTENSION}'")
for name, value in (("one", 20), ("two", 60)):
    db = sqlite3.connect(WORK / name)
    db.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, n INTEGER)")
    db.execute("INSERT INTO t VALUES (1, 10), (2, ?)", [value])
    db.commit()
    db.close()
    duck.execute(f"ATTACH '{WORK / name}' AS {name} (TYPE sqlite)")


def of(sql):
    return duck.execute(sql).fetchall()


TOTALS = "SELECT (SELECT sum(n) FROM {}), (SELECT sum(n) FROM {})"
LACKING = "SELECT DISTINCT * FROM one.t EXCEPT SELECT DISTINCT * FROM two.t"
expect("totals of one and two", of(TOTALS.format("one.t", "two.t")), [(30, 30)])
expect("rows of one that two lacks", of(LACKING), [])
duck.execute("SET disabled_optimizers = 'common_subplan'")
expect("totals, disabled_optimizers = 'common_subplan'", of(TOTALS.format("one.t", "two.t")), [(30, 70)])
expect("rows, disabled_optimizers = 'common_subplan'", of(LACKING), [(2, 20)])
duck.execute("RESET disabled_optimizers")
scans = [f"sqlite_scan('{WORK / name}', 't')" for name in ("one", "two")]
expect("totals by sqlite_scan()", of(TOTALS.format(*scans)), [(30, 70)])
finish()
PY
