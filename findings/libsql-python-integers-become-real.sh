#!/usr/bin/env bash
# libsql for Python: an int above 2^31 - 1 is bound as REAL, and loses its last digits above 2^53.
#
# Versions:  libsql 0.1.11 (PyPI), Python's sqlite3 beside it
# Guess:     A Python int is bound as INTEGER of 64 bits, as in the sqlite3 module whose interface it copies.
# Behaviour: Up to 2147483647 it is. 2147483648 is bound as 2147483648.0; 2^53 + 1 is stored as 9007199254740992.0. In a
#            column of type INTEGER the number becomes an integer again, with the wrong last digits; in one without a
#            type it stays REAL. No error is raised.
# For users: Snowflake ids, times in milliseconds and hashes are altered before SQLite sees them, so no trigger, and no
#            node, can tell. Bind such numbers as text: a column of type INTEGER converts '9007199254740993' exactly.
#
# Output:
#   2147483647: ('integer', '2147483647')
#   2147483648: ('real', '2147483648.0')
#   2^53 + 1 in a column of type INTEGER: 9007199254740992
#   as text in a column of type INTEGER: 9007199254740993
#   sqlite3, 2^53 + 1: 9007199254740993
#   as stated
source "$(dirname "$0")/lib/lab.bash"
packages libsql==0.1.11
"$python" - <<'PY'
import sqlite3

import libsql
from lab import expect, finish


def stored(module, value):
    connection = module.connect(":memory:")
    connection.execute("CREATE TABLE t(typed INTEGER)")
    connection.execute("INSERT INTO t VALUES (?)", (value,))
    return connection.execute("SELECT CAST(typed AS TEXT) FROM t").fetchone()[0]


connection = libsql.connect(":memory:")
for number, stated in ((2**31 - 1, ("integer", "2147483647")), (2**31, ("real", "2147483648.0"))):
    expect(str(number), tuple(connection.execute("SELECT typeof(?), CAST(? AS TEXT)", (number, number)).fetchone()), stated)
expect("2^53 + 1 in a column of type INTEGER", stored(libsql, 2**53 + 1), "9007199254740992")
expect("as text in a column of type INTEGER", stored(libsql, str(2**53 + 1)), "9007199254740993")
expect("sqlite3, 2^53 + 1", stored(sqlite3, 2**53 + 1), "9007199254740993")
finish()
PY
