#!/usr/bin/env bash
# ADBC's driver for SQLite, and Polars on it: one text in a column turns its reals into texts of seven digits, without an error.
#
# Versions:  adbc-driver-sqlite 1.13.0, polars 2.1.0, pyarrow 26.0.1
# Guess:     Arrow needs one type for a column, so a column with mixed values comes as text that SQLite would make of each, or
#            is an error.
# Behaviour: The type is made of the first 1,024 rows. A single text among them makes it text, and 1234567.891 becomes
#            '1.234568e+06', also in a REAL column. An integer beside a real becomes a double: 9007199254740993 ends in 2.
#            Beyond those rows a value of another type is an error, as is a column whose first 1,024 rows are NULL.
# For users: A column declared REAL can hold a text ('n/a'), on one node and then on all. Who reads such a table, changes a
#            row and writes all of it back sends shortened numbers to every node. SELECT CAST(v AS TEXT) or quote(v),
#            or read with sqlite3 and hand the rows over.
#
# Output:
#   only reals: [1234567.891, 0.1]
#   one text: ['1.234568e+06', '1.000000e-01', 'n/a']
#   one text, Polars: ['1.234568e+06', '1.000000e-01', 'n/a']
#   an integer beside a real: [9007199254740992.0, 0.5]
#   one text, CAST(v AS TEXT): ['1234567.891', '0.1', 'n/a']
#   as stated
source "$(dirname "$0")/lib/lab.bash"
packages adbc-driver-sqlite==1.13.0 polars==2.1.0 pyarrow==26.0.1
"$python" - <<'PY'
import sqlite3

import adbc_driver_sqlite.dbapi as adbc
import polars
from lab import WORK, expect, finish


def column(kind, *values):
    file = WORK / f"{len(list(WORK.glob('*.db')))}.db"
    db = sqlite3.connect(file)
    db.execute(f"CREATE TABLE t(v {kind})")
    db.executemany("INSERT INTO t VALUES (?)", [(value,) for value in values])
    db.commit()
    db.close()
    return str(file)


def read(file, sql="SELECT v FROM t"):
    with adbc.connect(file) as connection, connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetch_arrow_table().column(0).to_pylist()


mixed = column("REAL", 1234567.891, 0.1, "n/a")
expect("only reals", read(column("REAL", 1234567.891, 0.1)), [1234567.891, 0.1])
expect("one text", read(mixed), ["1.234568e+06", "1.000000e-01", "n/a"])
frame = polars.read_database_uri("SELECT v FROM t", f"sqlite:///{mixed}", engine="adbc")
expect("one text, Polars", frame["v"].to_list(), ["1.234568e+06", "1.000000e-01", "n/a"])
expect("an integer beside a real", read(column("", 9007199254740993, 0.5)), [9007199254740992.0, 0.5])
expect("one text, CAST(v AS TEXT)", read(mixed, "SELECT CAST(v AS TEXT) FROM t"), ["1234567.891", "0.1", "n/a"])
finish()
PY
