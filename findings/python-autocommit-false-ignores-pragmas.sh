#!/usr/bin/env bash
# Python's sqlite3: with autocommit=False, PRAGMA foreign_keys = ON does nothing, without an error; and a lone
# SELECT freezes what is seen.
#
# Versions:  CPython 3.12 and 3.13 (sqlite3.connect(autocommit=False) exists since 3.12; its page recommends it).
#            PYTHON=... names another.
# Guess:     The recommended mode is the old one made right: transactions begin when needed and end with commit().
# Behaviour: A transaction is open from connect() on, and a new one from each commit() on. PRAGMA foreign_keys
#            inside of one is a no-op, so constraints stay off; journal_mode and VACUUM at least raise an error.
#            After one SELECT the connection reads that state until commit() or rollback(): it misses all later
#            commits, its first write fails at once with SQLITE_BUSY_SNAPSHOT whatever the timeout, and no
#            checkpoint can empty the write-ahead log meanwhile.
# For users: Set pragmas with autocommit=True, then switch: connection.autocommit = False. Commit after reading,
#            too: a transaction that a SELECT left open lets the write-ahead log grow.
#
# Output:
#   Python 3.12.1 with SQLite 3.40.1
#   foreign_keys after PRAGMA foreign_keys = ON: 0
#   rows seen, before and after another's commit: (1, 1)
#   checkpoint (busy, pages, copied): 1
#   the first write: SQLITE_BUSY_SNAPSHOT
#   in a transaction right after rollback(): True
#   foreign_keys set with autocommit=True first: 1
#   as stated
source "$(dirname "$0")/lib/lab.bash"
for found in ${PYTHON:-python3.14 python3.13 python3.12 python3 "$HOME"/.pyenv/versions/3.1[2-9]*/bin/python}; do
    "$found" -c 'import sys; sys.exit(sys.version_info < (3, 12))' 2>/dev/null && break || found=
done
[ -n "$found" ] || { echo "needs Python 3.12 or later: PYTHON=python3.12 $0"; exit 2; }
"$found" - <<'PY'
import sqlite3, sys
from lab import WORK, expect, finish

print("Python", sys.version.split()[0], "with SQLite", sqlite3.sqlite_version)
path = WORK / "a.db"
other = sqlite3.connect(path, autocommit=True)
other.executescript("PRAGMA journal_mode = wal; CREATE TABLE t(x); INSERT INTO t VALUES (1)")

db = sqlite3.connect(path, autocommit=False, timeout=30)
db.execute("PRAGMA foreign_keys = ON")
expect("foreign_keys after PRAGMA foreign_keys = ON", db.execute("PRAGMA foreign_keys").fetchone()[0], 0)
count = "SELECT count(*) FROM t"
first = db.execute(count).fetchone()[0]
other.execute("INSERT INTO t VALUES (2)")
expect("rows seen, before and after another's commit", (first, db.execute(count).fetchone()[0]), (1, 1))
expect("checkpoint (busy, pages, copied)", other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0], 1)
name = "none"
try:
    db.execute("INSERT INTO t VALUES (3)")
except sqlite3.OperationalError as error:
    name = error.sqlite_errorname
expect("the first write", name, "SQLITE_BUSY_SNAPSHOT")
db.rollback()
expect("in a transaction right after rollback()", db.in_transaction, True)
db.autocommit = True
db.execute("PRAGMA foreign_keys = ON")
db.autocommit = False
expect("foreign_keys set with autocommit=True first", db.execute("PRAGMA foreign_keys").fetchone()[0], 1)
finish()
PY
