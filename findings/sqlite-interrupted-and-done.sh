#!/usr/bin/env bash
# SQLite: a statement that the progress handler interrupts may be done all the same: BEGIN has begun, COMMIT and INSERT have
# committed.
#
# Versions:  SQLite 3.54.1 (apsw 3.54.1.0), and Python's sqlite3 with the SQLite that it has
# Guess:     SQLITE_INTERRUPT means that the statement stopped halfway and left nothing behind, so it may be sent again.
# Behaviour: The handler is asked once more when the statement has ended, and then its answer replaces the result. Interrupted
#            at each step in turn: early on the guess is right; late, BEGIN IMMEDIATE reports the error and holds
#            the write lock, COMMIT and a lone INSERT report it and everybody sees the row.
# For users: Time limits of queries are made of this handler. After the error ask in_transaction (get_autocommit) and roll
#            back what has begun; before another attempt look whether the row is there, or give the row a key that
#            makes the second INSERT fail.
#
# Output:
#   apsw, BEGIN IMMEDIATE: interrupted, and begun: True
#   apsw, COMMIT: interrupted, and committed: True
#   apsw, INSERT: interrupted, and committed: True
#   apsw, INSERT sent again after the error: rows [1, 2]
#   sqlite3, BEGIN IMMEDIATE: interrupted, and begun: True
#   sqlite3, COMMIT: interrupted, and committed: True
#   sqlite3, INSERT: interrupted, and committed: True
#   sqlite3, INSERT sent again after the error: rows [1, 2]
#   as stated
source "$(dirname "$0")/lib/lab.bash"
packages apsw==3.54.1.0
"$python" - <<'PY'
import itertools
import sqlite3

import apsw
from lab import WORK, expect, finish

INSERT = "INSERT INTO t VALUES (1)"
STATEMENTS = {"BEGIN IMMEDIATE": [], "COMMIT": ["BEGIN", INSERT], "INSERT": []}
files = (str(WORK / f"{number}.db") for number in itertools.count())


def interrupted_at(connection, step, statement):
    """Run ``statement`` with a handler that interrupts at the given step; return whether it was interrupted."""
    steps = itertools.count(1)
    connection.set_progress_handler(lambda: next(steps) == step, 1)
    try:
        connection.execute(statement)
    except (apsw.InterruptError, sqlite3.OperationalError) as error:
        assert "interrupt" in str(error)
        return True
    finally:
        connection.set_progress_handler(None, 1)
    return False


def outcomes(connect, in_transaction, before, statement):
    """Return for each step whether the statement had its effect though it was reported as interrupted, and the rows."""
    for step in itertools.count(1):
        path = next(files)
        one, other = connect(path), connect(path)
        one.execute("CREATE TABLE t(x)")
        for sql in before:
            one.execute(sql)
        if not interrupted_at(one, step, statement):
            return
        seen = other.execute("SELECT count(*) FROM t").fetchone()[0]
        if statement == INSERT:
            one.execute(INSERT)
        rows = other.execute("SELECT count(*) FROM t").fetchone()[0]
        yield (in_transaction(one) if "BEGIN" in statement else seen == 1), rows
        one.close()
        other.close()


drivers = {
    "apsw": (apsw.Connection, lambda connection: connection.in_transaction),
    "sqlite3": (lambda path: sqlite3.connect(path, isolation_level=None), lambda connection: connection.in_transaction),
}
for driver, (connect, in_transaction) in drivers.items():
    for name, before in STATEMENTS.items():
        seen = list(outcomes(connect, in_transaction, before, INSERT if name == "INSERT" else name))
        effect = "begun" if "BEGIN" in name else "committed"
        expect(f"{driver}, {name}: interrupted, and {effect}", any(done for done, _ in seen), True)
    expect(f"{driver}, INSERT sent again after the error: rows", sorted({rows for _, rows in seen}), [1, 2])
finish()
PY
