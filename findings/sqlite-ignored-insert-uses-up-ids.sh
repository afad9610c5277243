#!/usr/bin/env bash
# SQLite: an insert that OR IGNORE or DO NOTHING throws away still moves the counter of an AUTOINCREMENT table, also to
# the number that it named itself.
#
# Versions:  SQLite 3.54.1 (apsw 3.54.1.0)
# Guess:     A row that was never stored leaves sqlite_sequence alone.
# Behaviour: Each ignored insert uses up a number, and so does an upsert that ends as an update. One that names its id
#            sets the counter to it: an ignored row with the id 9223372036854775807 leaves the table unable to
#            take another row ("database or disk is full"), though it is empty but for one row. Without AUTOINCREMENT
#            nothing of this happens.
# For users: sqlite_sequence says which numbers were ever tried, not which were given out; two files with equal rows differ
#            in it. Look there first when an almost empty table is "full", and set seq back to max(id).
#
# Output:
#   counter after one row: 1
#   after INSERT OR IGNORE: 2
#   after ON CONFLICT DO NOTHING: 3
#   after an upsert that updates: 4
#   after an ignored row that names 77: 77
#   rows in the table: 1
#   after an ignored row that names the largest id: 9223372036854775807
#   the next insert: database or disk is full
#   without AUTOINCREMENT: none
#   as stated
source "$(dirname "$0")/lib/lab.bash"
packages apsw==3.54.1.0
"$python" - <<'PY'
import apsw
from lab import error_of, expect, finish

db = apsw.Connection(":memory:")
db.execute("""
CREATE TABLE t(id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT UNIQUE, n INTEGER);
CREATE TABLE plain(id INTEGER PRIMARY KEY, name TEXT UNIQUE);
INSERT INTO t(name) VALUES ('a');
INSERT INTO plain(name) VALUES ('a');
""")


def counter(sql=None):
    if sql:
        db.execute(sql)
    return db.execute("SELECT seq FROM sqlite_sequence WHERE name = 't'").fetchone()[0]


LARGEST = 2**63 - 1
expect("counter after one row", counter(), 1)
expect("after INSERT OR IGNORE", counter("INSERT OR IGNORE INTO t(name) VALUES ('a')"), 2)
expect("after ON CONFLICT DO NOTHING", counter("INSERT INTO t(name) VALUES ('a') ON CONFLICT DO NOTHING"), 3)
upsert = "INSERT INTO t(name, n) VALUES ('a', 5) ON CONFLICT(name) DO UPDATE SET n = excluded.n"
expect("after an upsert that updates", counter(upsert), 4)
expect("after an ignored row that names 77", counter("INSERT OR IGNORE INTO t(id, name) VALUES (77, 'a')"), 77)
expect("rows in the table", db.execute("SELECT count(*) FROM t").fetchone()[0], 1)
last = f"INSERT OR IGNORE INTO t(id, name) VALUES ({LARGEST}, 'a')"
expect("after an ignored row that names the largest id", counter(last), LARGEST)
full = error_of(lambda: db.execute("INSERT INTO t(name) VALUES ('b')"))
expect("the next insert", full, "database or disk is full")
db.execute(f"INSERT OR IGNORE INTO plain(id, name) VALUES ({LARGEST}, 'a')")
expect("without AUTOINCREMENT", error_of(lambda: db.execute("INSERT INTO plain(name) VALUES ('b')")), "none")
finish()
PY
