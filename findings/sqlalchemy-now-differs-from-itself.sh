#!/usr/bin/env bash
# SQLAlchemy: on SQLite a time that func.now() or CURRENT_TIMESTAMP stored is found by no = and no >= with the value that was
# read from it.
#
# Versions:  SQLAlchemy 2.1.9 with Python's own sqlite3
# Guess:     A value that is read from a DateTime column and bound again finds its row.
# Behaviour: A datetime is bound as text with six digits of microseconds; SQLite's own now has none, and texts are compared.
#            "... 10:00:00" is less than "... 10:00:00.000000". So paging and synchronising by at >= :last miss rows that
#            the server's default wrote, and a DELETE or UPDATE by the old value meets none. After the same value is
#            written back, everything matches.
# For users: The texts travel as they are, so nodes with either kind of writer have both kinds in one column. Set
#            default=datetime.now in Python in the place of server_default=func.now(), or store by
#            strftime('%Y-%m-%d %H:%M:%f000', 'now').
#
# Output:
#   stored by func.now(): 19 characters
#   rows with at = the value that was read: 0
#   rows with at >= the value that was read: 0
#   written back: 26 characters
#   rows with at = the value that was read: 1
#   stored by strftime: 26 characters
#   rows with at >= the value that was read: 1
#   as stated
source "$(dirname "$0")/lib/lab.bash"
packages SQLAlchemy==2.1.9
"$python" - <<'PY'
from lab import expect, finish
from sqlalchemy import Column, DateTime, Integer, MetaData, Table, create_engine, func, select, text

NOW = text("(strftime('%Y-%m-%d %H:%M:%f000', 'now'))")
metadata = MetaData()
usual, fine = (
    Table(name, metadata, Column("id", Integer, primary_key=True), Column("at", DateTime, server_default=default))
    for name, default in (("usual", func.now()), ("fine", NOW))
)
engine = create_engine("sqlite://")
metadata.create_all(engine)
with engine.begin() as db:

    def rows(table, condition):
        return db.scalar(select(func.count()).select_from(table).where(condition))

    def characters(table):
        return f"{db.scalar(text(f'SELECT length(at) FROM {table}'))} characters"

    for table in (usual, fine):
        db.execute(table.insert().values(id=1))
    read = db.scalar(select(usual.c.at))
    expect("stored by func.now()", characters(usual), "19 characters")
    expect("rows with at = the value that was read", rows(usual, usual.c.at == read), 0)
    expect("rows with at >= the value that was read", rows(usual, usual.c.at >= read), 0)
    db.execute(usual.update().values(at=read))
    expect("written back", characters(usual), "26 characters")
    expect("rows with at = the value that was read", rows(usual, usual.c.at == read), 1)
    expect("stored by strftime", characters(fine), "26 characters")
    expect("rows with at >= the value that was read", rows(fine, fine.c.at >= db.scalar(select(fine.c.at))), 1)
finish()
PY
