#!/usr/bin/env bash
# SQLite: integrity_check and FTS5's own integrity-check call a stale external-content index healthy.
#
# Versions:  apsw 3.54.1.0 (the SQLite of the same number)
# Guess:     PRAGMA integrity_check, which asks virtual tables too since 3.44, or FTS5's 'integrity-check' compares
#            the index with the table that it indexes.
# Behaviour: Both look at the index alone, and both say that all is well while a search misses a row and finds one
#            that is gone. Only INSERT INTO f(f, rank) VALUES ('integrity-check', 1) compares, and then the error is
#            "database disk image is malformed".
# For users: After a restore or a migration that dropped the triggers of an index, check with rank 1. "malformed"
#            means stale there: INSERT INTO f(f) VALUES ('rebuild') is the cure; the file isn't damaged.
#
# Output:
#   search for plum: []
#   search for apple: [(1,)]
#   PRAGMA integrity_check: ok
#   'integrity-check': none
#   'integrity-check', rank 1: database disk image is malformed
#   the same after 'rebuild': none
#   as stated
source "$(dirname "$0")/lib/lab.bash"
packages apsw==3.54.1.0
"$python" - <<'PY'
import apsw
from lab import error_of, expect, finish

db = apsw.Connection(":memory:")
db.execute("""
CREATE TABLE t(id INTEGER PRIMARY KEY, x);
CREATE VIRTUAL TABLE f USING fts5(x, content = t, content_rowid = id);
INSERT INTO t VALUES (1, 'apple'), (2, 'pear');
INSERT INTO f(f) VALUES ('rebuild');
DELETE FROM t WHERE id = 1;
INSERT INTO t VALUES (3, 'plum');
""")
expect("search for plum", list(db.execute("SELECT rowid FROM f('plum')")), [])
expect("search for apple", list(db.execute("SELECT rowid FROM f('apple')")), [(1,)])
expect("PRAGMA integrity_check", db.execute("PRAGMA integrity_check").get, "ok")
check = "INSERT INTO f(f) VALUES ('integrity-check')"
expect("'integrity-check'", error_of(lambda: db.execute(check)), "none")
check = "INSERT INTO f(f, rank) VALUES ('integrity-check', 1)"
expect("'integrity-check', rank 1", error_of(lambda: db.execute(check)), "database disk image is malformed")
db.execute("INSERT INTO f(f) VALUES ('rebuild')")
expect("the same after 'rebuild'", error_of(lambda: db.execute(check)), "none")
finish()
PY
