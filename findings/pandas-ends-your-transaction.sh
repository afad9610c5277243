#!/usr/bin/env bash
# pandas: to_sql() commits the transaction that is open, and read_sql() with an error in its SELECT rolls it back.
#
# Versions:  pandas 3.1.1 with a connection of Python's sqlite3
# Guess:     pandas uses the connection that it gets; when to commit stays the caller's business. A failed SELECT changes
#            nothing.
# Behaviour: to_sql() ends with commit(), also for rows that the caller wrote before and might still take back. If it or a
#            read_sql() fails, of a misspelt column say, pandas calls rollback(): the caller's earlier rows are gone, and a
#            program that catches the error and continues commits the rest of its transaction alone. A transaction that
#            BEGIN IMMEDIATE started ends likewise, and the lock with it. A SELECT that succeeds leaves it open.
# For users: Each half is published to all nodes as a transaction of its own. Give pandas a connection of its own, outside
#            of transactions; or an SQLAlchemy connection, whose transaction it leaves open.
#
# Output:
#   (in a transaction still, rows of the caller after rollback())
#   read_sql: (True, 0)
#   to_sql: (False, 1)
#   to_sql after BEGIN IMMEDIATE: (False, 1)
#   (in a transaction still, rows of the caller after commit())
#   read_sql of a column that isn't there: (False, 0)
#   to_sql against a unique index: (False, 0)
#   SQLAlchemy, to_sql: (True, 0)
#   as stated
source "$(dirname "$0")/lib/lab.bash"
packages pandas==3.1.1 SQLAlchemy==2.1.9
"$python" - <<'PY'
import sqlite3

import pandas
import sqlalchemy
from lab import error_of, expect, finish

COUNT = "SELECT count(*) FROM mine"
frame = pandas.DataFrame({"k": [1]})


def after(action, end, begin=None):
    db = sqlite3.connect(":memory:")
    db.executescript("CREATE TABLE mine(x); CREATE TABLE one(k UNIQUE); INSERT INTO one VALUES (1)")
    if begin:
        db.execute(begin)
    db.execute("INSERT INTO mine VALUES (1)")
    error_of(lambda: action(db))
    still = db.in_transaction
    getattr(db, end)()
    return still, db.execute(COUNT).fetchone()[0]


def read(db):
    pandas.read_sql("SELECT x FROM mine", db)


def misspell(db):
    pandas.read_sql("SELECT y FROM mine", db)


def write(db):
    frame.to_sql("other", db, index=False)


def clash(db):
    frame.to_sql("one", db, index=False, if_exists="append")


print("(in a transaction still, rows of the caller after rollback())")
expect("read_sql", after(read, "rollback"), (True, 0))
expect("to_sql", after(write, "rollback"), (False, 1))
expect("to_sql after BEGIN IMMEDIATE", after(write, "rollback", "BEGIN IMMEDIATE"), (False, 1))
print("(in a transaction still, rows of the caller after commit())")
expect("read_sql of a column that isn't there", after(misspell, "commit"), (False, 0))
expect("to_sql against a unique index", after(clash, "commit"), (False, 0))

engine = sqlalchemy.create_engine("sqlite://")
with engine.connect() as connection:
    connection.exec_driver_sql("CREATE TABLE mine(x)")
    connection.commit()
    connection.exec_driver_sql("INSERT INTO mine VALUES (1)")
    write(connection)
    still = connection.in_transaction()
    connection.rollback()
    expect("SQLAlchemy, to_sql", (still, connection.exec_driver_sql(COUNT).scalar()), (True, 0))
finish()
PY
