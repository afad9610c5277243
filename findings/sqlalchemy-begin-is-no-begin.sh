#!/usr/bin/env bash
# SQLAlchemy: engine.begin() on SQLite begins nothing until the first write: two reads in it differ, and a rollback
# keeps a new table.
#
# Versions:  SQLAlchemy 2.1.9 with Python's own sqlite3
# Guess:     All between begin() and commit is one transaction: reads see one state, and a rollback undoes what was
#            done.
# Behaviour: The driver sends BEGIN just before INSERT, UPDATE, DELETE or REPLACE, not before SELECT and not before
#            DDL. What another process commits between two SELECTs shows in the second; CREATE TABLE is committed at
#            once. in_transaction() of SQLAlchemy says True throughout.
# For users: Beside a node that merges the changes of others, a report of several SELECTs can mix two states.
#            SQLAlchemy's page on the pysqlite dialect has the recipe: isolation_level = None on connect, and an
#            event that executes BEGIN (IMMEDIATE where it will write).
#
# Output:
#   two reads in one begin(): (1, 2)
#   in a transaction, SQLAlchemy says and SQLite says: (True, False)
#   a table made before rollback() is still there: True
#   as stated
source "$(dirname "$0")/lib/lab.bash"
packages SQLAlchemy==2.1.9
"$python" - <<'PY'
import sqlite3
import sqlalchemy
from lab import WORK, expect, finish

path = WORK / "a.db"
other = sqlite3.connect(path, isolation_level=None)
other.executescript("PRAGMA journal_mode = wal; CREATE TABLE t(x); INSERT INTO t VALUES (1)")
engine = sqlalchemy.create_engine(f"sqlite:///{path}")
count = sqlalchemy.text("SELECT count(*) FROM t")
with engine.begin() as connection:
    first = connection.scalar(count)
    states = connection.in_transaction(), connection.connection.driver_connection.in_transaction
    other.execute("INSERT INTO t VALUES (2)")
    expect("two reads in one begin()", (first, connection.scalar(count)), (1, 2))
    expect("in a transaction, SQLAlchemy says and SQLite says", states, (True, False))
with engine.connect() as connection:
    connection.execute(sqlalchemy.text("CREATE TABLE made(x)"))
    connection.rollback()
names = [row[0] for row in other.execute("SELECT name FROM sqlite_master")]
expect("a table made before rollback() is still there", "made" in names, True)
finish()
PY
