#!/usr/bin/env bash
# SQLite: INSERT ... RETURNING outside a transaction commits when its last row has been fetched, and not when it gave the id.
#
# Versions:  SQLite 3.54.1 (apsw 3.54.1.0); Python's own sqlite3, 3.11 to 3.13
# Guess:     In autocommit mode the row is committed when execute() returns, or when the id is there at the latest. A connection
#            that says in_transaction = False holds no lock.
# Behaviour: All rows are written before the first one is returned, and the commit is part of the step that finds no further
#            row. With apsw fetchone() of a single row isn't that step, with sqlite3 it is, of two rows not. Until then
#            nobody else sees the rows or can write, in_transaction is False, and commit() is an error. sqlite3's
#            close() leaves rows and lock to the cursor: they are committed when it is collected, and lost when the process ends
#            before.
# For users: Fetch to the end: fetchall(), apsw's .get, or an explicit transaction around it. A web handler that keeps
#            such a cursor holds up every writer, and a node that has changes to merge.
#
# Output:
#   apsw, 1 row, fetchone: id 1, others see 0, others write: database is locked
#   apsw, 1 row, .get: id 1, others see 1, others write: none
#   sqlite3, 1 row, fetchone: id 1, others see 1, others write: none
#   sqlite3, 2 rows, fetchone: id 1, others see 0, others write: database is locked
#   in_transaction: False
#   commit in sqlite3's own transaction: cannot commit transaction - SQL statements in progress
#   after close(), others write: database is locked
#   after the cursor is gone, others see, and write: (2, 'none')
#   as stated
source "$(dirname "$0")/lib/lab.bash"
packages apsw==3.54.1.0
"$python" - <<'PY'
import itertools
import sqlite3
import subprocess
import sys

import apsw
from lab import WORK, error_of, expect, finish

files = (str(WORK / f"{number}.db") for number in itertools.count())


LOOK = """
import sys, apsw
from lab import error_of
other = apsw.Connection(sys.argv[1])
print(other.execute("SELECT count(*) FROM t").get, error_of(lambda: other.execute("BEGIN IMMEDIATE; ROLLBACK")))
"""


def look(path):
    """Return how many rows another process sees, and the error that it gets when it writes."""
    done = subprocess.run([sys.executable, "-c", LOOK, path], check=True, capture_output=True, text=True)
    seen, _, said = done.stdout.strip().partition(" ")
    return int(seen), said


def begin(connect):
    path = next(files)
    connection = connect(path)
    connection.execute("PRAGMA journal_mode = wal").fetchone()
    connection.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, x)")
    return path, connection


def case(what, connect, values, first, stated):
    path, connection = begin(connect)
    cursor = connection.execute(f"INSERT INTO t(x) VALUES {values} RETURNING id")
    number = first(cursor)
    seen, said = look(path)
    expect(what, f"id {number}, others see {seen}, others write: {said}", stated)
    return path, connection, cursor


def plain(path):
    return sqlite3.connect(path, isolation_level=None)


locked = "id 1, others see 0, others write: database is locked"
done = "id 1, others see 1, others write: none"
case("apsw, 1 row, fetchone", apsw.Connection, "('a')", lambda cursor: cursor.fetchone()[0], locked)
case("apsw, 1 row, .get", apsw.Connection, "('a')", lambda cursor: cursor.get, done)
case("sqlite3, 1 row, fetchone", plain, "('a')", lambda cursor: cursor.fetchone()[0], done)
path, connection, cursor = case(
    "sqlite3, 2 rows, fetchone", plain, "('a'), ('b')", lambda cursor: cursor.fetchone()[0], locked
)
expect("in_transaction", connection.in_transaction, False)

_, legacy = begin(sqlite3.connect)
pending = legacy.execute("INSERT INTO t(x) VALUES ('a'), ('b') RETURNING id")
stated = "cannot commit transaction - SQL statements in progress"
expect("commit in sqlite3's own transaction", error_of(legacy.commit), stated)

connection.close()
expect("after close(), others write", look(path)[1], "database is locked")
del cursor
expect("after the cursor is gone, others see, and write", look(path), (2, "none"))
finish()
PY
