#!/usr/bin/env bash
# SQLite: a real number becomes another text from 3.53 on, so two versions on one file break each other's indexes.
#
# Versions:  apsw 3.51.3.0 and 3.54.1.0 (the SQLite of the same numbers)
# Guess:     The file format is stable across versions, and || is a deterministic function: what one version indexes,
#            another one finds.
# Behaviour: CAST(real AS TEXT), r || '', a TEXT column that is given a real: up to 3.51 with 15 digits, from 3.53 on with
#            17; 1e15 loses its exponent, too. An index on an expression, a UNIQUE one, a stored generated column, a
#            partial index's WHERE made by one version are wrong for the other: "row missing from index", and a query
#            through the index finds nothing. The values themselves stay the same bits.
# For users: Where programs with libraries from before and after 3.53 share a file, index no text of reals; round, or
#            keep text. SQLITE_DBCONFIG_FP_DIGITS = 15 gives a newer library the old texts. REINDEX after an upgrade.
#
# Output:
#   0.1 + 0.2 and 1e15 as text in 3.51.3: 0.3 and 1.0e+15
#   0.1 + 0.2 and 1e15 as text in 3.54.1: 0.30000000000000004 and 1000000000000000.0
#   3.54.1 says of the index that 3.51.3 made: row 1 missing from index i
#   found through the index: 0
#   found without it: 1
#   with FP_DIGITS = 15, 3.54.1 says: ok
#   as stated
source "$(dirname "$0")/lib/lab.bash"
packages apsw==3.51.3.0
"$python" - <<'PY'
import apsw
from lab import WORK

db = apsw.Connection(str(WORK / "shared.db"))
db.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, r REAL); CREATE INDEX i ON t(r || '')")
db.execute("INSERT INTO t(r) VALUES (0.1 + 0.2), (1e15)")
(WORK / "texts").write_text(" and ".join(text for (text,) in db.execute("SELECT r || '' FROM t ORDER BY id")))
db.close()
PY
packages apsw==3.54.1.0
"$python" - <<'PY'
import apsw
from lab import WORK, expect, finish

db = apsw.Connection(str(WORK / "shared.db"))
own = apsw.sqlite_lib_version()
expect("0.1 + 0.2 and 1e15 as text in 3.51.3", (WORK / "texts").read_text(), "0.3 and 1.0e+15")
both = " and ".join(text for (text,) in db.execute("SELECT r || '' FROM t NOT INDEXED ORDER BY id"))
expect(f"0.1 + 0.2 and 1e15 as text in {own}", both, "0.30000000000000004 and 1000000000000000.0")
said = db.execute("PRAGMA integrity_check").fetchall()
expect(f"{own} says of the index that 3.51.3 made", said[0][0], "row 1 missing from index i")
sql = "SELECT count(*) FROM t {} WHERE r || '' = '0.30000000000000004'"
expect("found through the index", db.execute(sql.format("INDEXED BY i")).get, 0)
expect("found without it", db.execute(sql.format("NOT INDEXED")).get, 1)
db.close()
db = apsw.Connection(str(WORK / "shared.db"))
db.config(apsw.SQLITE_DBCONFIG_FP_DIGITS, 15)
expect(f"with FP_DIGITS = 15, {own} says", db.execute("PRAGMA integrity_check").get, "ok")
finish()
PY
