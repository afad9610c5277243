#!/usr/bin/env bash
# SQLite: a STRICT table takes an integer that its REAL column can't hold, and stores another number without an error.
#
# Versions:  SQLite 3.54.1 (apsw 3.54.1.0)
# Guess:     STRICT refuses what can't be converted without loss: that is what it is for, and an INT column does refuse 0.5.
# Behaviour: It guards one direction only. REAL to INT is an error where digits would be lost; INT to REAL never is, nor TEXT to
#            REAL. 9007199254740993 ends in ...992, the largest integer becomes 2^63, and a WHERE with the number
#            that was inserted finds nothing. Columns of INT or ANY keep them.
# For users: Ids, amounts and times finer than milliseconds belong in INT or ANY. A node carries the rounded value, bit
#            for bit: nothing later can tell.
#
# Output:
#   INT, 0.5: cannot store REAL value in INT column t.i
#   INT, 9007199254740993: (9007199254740993, True)
#   ANY, 9007199254740993: (9007199254740993, True)
#   REAL, 9007199254740993: (9007199254740992.0, False)
#   REAL, the same as text: (9007199254740992.0, False)
#   REAL, 9223372036854775807: (9.223372036854776e+18, False)
#   as stated
source "$(dirname "$0")/lib/lab.bash"
packages apsw==3.54.1.0
"$python" - <<'PY'
import apsw
from lab import error_of, expect, finish

db = apsw.Connection(":memory:")
db.execute("CREATE TABLE t(i INT, a ANY, r REAL) STRICT")


def stored(column, value):
    """Insert a value; return what is in the column, and whether the number that was meant is found there."""
    db.execute("DELETE FROM t")
    db.execute(f"INSERT INTO t({column}) VALUES (?)", (value,))
    found = db.execute(f"SELECT count(*) FROM t WHERE {column} = ?", (int(value),)).get
    return db.execute(f"SELECT {column} FROM t").get, found == 1


odd, largest = 2**53 + 1, 2**63 - 1
expect("INT, 0.5", error_of(lambda: stored("i", 0.5)), "cannot store REAL value in INT column t.i")
expect(f"INT, {odd}", stored("i", odd), (odd, True))
expect(f"ANY, {odd}", stored("a", odd), (odd, True))
expect(f"REAL, {odd}", stored("r", odd), (float(2**53), False))
expect("REAL, the same as text", stored("r", str(odd)), (float(2**53), False))
expect(f"REAL, {largest}", stored("r", largest), (2.0**63, False))
finish()
PY
