#!/usr/bin/env bash
# SQLite: whether ALTER TABLE ADD COLUMN is allowed depends on whether the table has a row.
#
# Versions:  SQLite 3.54.1 (apsw 3.54.1.0)
# Guess:     A definition is refused or accepted for itself, as the documentation's "may not" reads: no NOT NULL without a
#            default, no CURRENT_TIMESTAMP, no default in parentheses, no STORED column, no REFERENCES with a default.
# Behaviour: On an empty table all of these are accepted. With a single row each is an error. Only UNIQUE and PRIMARY KEY
#            are refused in both.
# For users: A migration that passes on an empty test database, or on the node whose table is still empty, fails where there
#            are rows. Try migrations on a copy with rows.
#
# Output:
#   TEXT DEFAULT CURRENT_TIMESTAMP: none / Cannot add a column with non-constant default
#   INT DEFAULT (abs(-1)): none / Cannot add a column with non-constant default
#   INT NOT NULL: none / Cannot add a NOT NULL column with default value NULL
#   INT AS (id + 1) STORED: none / cannot add a STORED column
#   INT DEFAULT 1 REFERENCES t: none / Cannot add a REFERENCES column with non-NULL default value
#   INT DEFAULT 0 CHECK (extra > 1): none / CHECK constraint failed
#   INT UNIQUE: Cannot add a UNIQUE column / Cannot add a UNIQUE column
#   as stated
source "$(dirname "$0")/lib/lab.bash"
packages apsw==3.54.1.0
"$python" - <<'PY'
import apsw
from lab import error_of, expect, finish

STATED = {
    "TEXT DEFAULT CURRENT_TIMESTAMP": "none / Cannot add a column with non-constant default",
    "INT DEFAULT (abs(-1))": "none / Cannot add a column with non-constant default",
    "INT NOT NULL": "none / Cannot add a NOT NULL column with default value NULL",
    "INT AS (id + 1) STORED": "none / cannot add a STORED column",
    "INT DEFAULT 1 REFERENCES t": "none / Cannot add a REFERENCES column with non-NULL default value",
    "INT DEFAULT 0 CHECK (extra > 1)": "none / CHECK constraint failed",
    "INT UNIQUE": "Cannot add a UNIQUE column / Cannot add a UNIQUE column",
}


def added(column, rows):
    db = apsw.Connection(":memory:")
    db.execute("PRAGMA foreign_keys = ON; CREATE TABLE t(id INTEGER PRIMARY KEY)")
    db.executemany("INSERT INTO t VALUES (?)", [(row,) for row in range(rows)])
    return error_of(lambda: db.execute(f"ALTER TABLE t ADD COLUMN extra {column}").fetchall())


for column, stated in STATED.items():
    expect(column, f"{added(column, 0)} / {added(column, 1)}", stated)
finish()
PY
