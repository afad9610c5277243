#!/usr/bin/env bash
# Python's sqlite3, and SQLAlchemy on it: an INSERT that starts with WITH is committed at once; rollback() leaves it there.
#
# Versions:  CPython 3.11 to 3.13, SQLAlchemy 2.1.9
# Guess:     Without autocommit the library begins a transaction before any statement that writes, and a block that raises
#            an error takes all of it back.
# Behaviour: By default the library looks at the statement's first word: BEGIN comes before INSERT, UPDATE, DELETE and
#            REPLACE. WITH isn't one of these, so "WITH ... INSERT" (UPDATE, DELETE) commits by itself, unless a transaction
#            is open already. isolation_level = "IMMEDIATE" doesn't help: that BEGIN is left out, too. `with connection`
#            and SQLAlchemy's engine.begin() roll nothing back then; SQLAlchemy writes WITH in front for any insert or
#            update that has a common table expression.
# For users: What a block was to take back has been published to all nodes. Execute "BEGIN IMMEDIATE" yourself (SQLAlchemy:
#            in an event), or put WITH behind: INSERT INTO t WITH ... SELECT. From 3.12 on autocommit=False begins always.
#
# Output:
#   rows left of a block that raised an error
#   INSERT: 0
#   INSERT INTO t WITH ... SELECT: 0
#   WITH ... INSERT: 1
#   WITH ... INSERT, isolation_level IMMEDIATE: 1
#   executemany, WITH ... INSERT: 2
#   WITH ... DELETE took from one row: 0
#   WITH ... INSERT after an INSERT: 0
#   SQLAlchemy, insert from a select: 0
#   SQLAlchemy, insert from a common table expression: 1
#   SQLAlchemy, the same, BEGIN by an event: 0
#   as stated
source "$(dirname "$0")/lib/lab.bash"
packages SQLAlchemy==2.1.9
"$python" - <<'PY'
import sqlite3

import sqlalchemy as sa
from lab import expect, finish


class Undo(Exception):
    pass


def left(*statements, many=(), level="", first=()):
    db = sqlite3.connect(":memory:", isolation_level=level)
    db.execute("CREATE TABLE t(x)")
    for each in first:
        db.execute(each)
    db.commit()
    try:
        with db:
            for each in statements:
                if many:
                    db.executemany(each, many)
                else:
                    db.execute(each)
            raise Undo
    except Undo:
        return db.execute("SELECT count(*) FROM t").fetchone()[0]


def left_by_sqlalchemy(source, begin=False):
    engine = sa.create_engine("sqlite://", poolclass=sa.StaticPool)
    if begin:
        sa.event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
    table = sa.Table("t", sa.MetaData(), sa.Column("x", sa.Integer))
    table.create(engine)
    try:
        with engine.begin() as connection:
            connection.execute(table.insert().from_select(["x"], source))
            raise Undo
    except Undo:
        with engine.connect() as connection:
            return connection.scalar(sa.select(sa.func.count()).select_from(table))


insert = "WITH n(x) AS (SELECT 1) INSERT INTO t SELECT x FROM n"
print("rows left of a block that raised an error")
expect("INSERT", left("INSERT INTO t VALUES (1)"), 0)
expect("INSERT INTO t WITH ... SELECT", left("INSERT INTO t WITH n(x) AS (SELECT 1) SELECT x FROM n"), 0)
expect("WITH ... INSERT", left(insert), 1)
expect("WITH ... INSERT, isolation_level IMMEDIATE", left(insert, level="IMMEDIATE"), 1)
some = "WITH n(x) AS (SELECT ?) INSERT INTO t SELECT x FROM n"
expect("executemany, WITH ... INSERT", left(some, many=[(1,), (2,)]), 2)
delete = "WITH n(x) AS (SELECT 1) DELETE FROM t WHERE x IN n"
expect("WITH ... DELETE took from one row", left(delete, first=["INSERT INTO t VALUES (1)"]), 0)
expect("WITH ... INSERT after an INSERT", left("INSERT INTO t VALUES (1)", insert), 0)
plain = sa.select(sa.literal(1))
expect("SQLAlchemy, insert from a select", left_by_sqlalchemy(plain), 0)
common = sa.select(plain.cte("n"))
expect("SQLAlchemy, insert from a common table expression", left_by_sqlalchemy(common), 1)
expect("SQLAlchemy, the same, BEGIN by an event", left_by_sqlalchemy(common, begin=True), 0)
finish()
PY
