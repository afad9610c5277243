#!/usr/bin/env bash
# SQLite: PRAGMA data_version moves when another connection truncates the write-ahead log, also one that is empty already.
#
# Versions:  SQLite 3.54.1 (apsw 3.54.1.0)
# Guess:     data_version tells whether another connection has committed a change. A checkpoint copies pages and changes no
#            content, so no kind of it counts.
# Behaviour: PASSIVE, FULL and RESTART don't move it, TRUNCATE does, each time, though nothing is left to truncate. An empty
#            transaction and an UPDATE of no row don't move it.
# For users: A loop that reloads its cache when the number moves does so after each TRUNCATE, which backup tools run by
#            the clock. Two programs that truncate whenever they see it move wake each other for good. A node reads its
#            log of changes then, finds nothing and publishes nothing.
#
# Output:
#   INSERT INTO t VALUES (1): True
#   PRAGMA wal_checkpoint(PASSIVE): False
#   PRAGMA wal_checkpoint(FULL): False
#   PRAGMA wal_checkpoint(RESTART): False
#   PRAGMA wal_checkpoint(TRUNCATE): True
#   PRAGMA wal_checkpoint(TRUNCATE): True
#   BEGIN IMMEDIATE; COMMIT: False
#   UPDATE t SET x = 2 WHERE false: False
#   bytes of the log before the second TRUNCATE: 0
#   as stated
source "$(dirname "$0")/lib/lab.bash"
packages apsw==3.54.1.0
"$python" - <<'PY'
import apsw
from lab import WORK, expect, finish

path = WORK / "a.db"
writer = apsw.Connection(str(path))
writer.execute("PRAGMA journal_mode = wal").get
writer.execute("CREATE TABLE t(x)")
poller = apsw.Connection(str(path))


def version():
    return poller.execute("PRAGMA data_version").get


def moves(sql, stated):
    before = version()
    list(writer.execute(sql))
    expect(sql, version() != before, stated)


moves("INSERT INTO t VALUES (1)", True)
for kind in ("PASSIVE", "FULL", "RESTART"):
    moves(f"PRAGMA wal_checkpoint({kind})", False)
moves("PRAGMA wal_checkpoint(TRUNCATE)", True)
size = (WORK / "a.db-wal").stat().st_size
moves("PRAGMA wal_checkpoint(TRUNCATE)", True)
moves("BEGIN IMMEDIATE; COMMIT", False)
moves("UPDATE t SET x = 2 WHERE false", False)
expect("bytes of the log before the second TRUNCATE", size, 0)
finish()
PY
