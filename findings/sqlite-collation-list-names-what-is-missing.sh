#!/usr/bin/env bash
# SQLite: PRAGMA collation_list names a collation that nobody has registered, as soon as the schema that mentions it
# is read.
#
# Versions:  apsw 3.54.1.0 (the SQLite of the same number)
# Guess:     collation_list tells which collations this connection can use, so that a program can ask before it
#            touches a table.
# Behaviour: Reading the schema makes an entry without a function for each name in it. Before the first statement
#            that needs the schema the list is right, afterwards the missing collation is in it, and each comparison
#            says "no such collation sequence".
# For users: Don't guard by this list. Prepare a comparison instead: SELECT '' = '' COLLATE "name", and see whether
#            that fails.
#
# Output:
#   listed by a new connection: False
#   listed after the schema was read: True
#   ORDER BY x: no such collation sequence: local
#   SELECT '' = '' COLLATE local: no such collation sequence: local
#   as stated
source "$(dirname "$0")/lib/lab.bash"
packages apsw==3.54.1.0
"$python" - <<'PY'
import apsw
from lab import WORK, error_of, expect, finish

with apsw.Connection(str(WORK / "a.db")) as maker:
    maker.create_collation("local", lambda a, b: (a > b) - (a < b))
    maker.execute("CREATE TABLE t(x TEXT COLLATE local); INSERT INTO t VALUES ('a')")
maker.close()

db = apsw.Connection(str(WORK / "a.db"))


def listed():
    return "local" in [row[1] for row in db.execute("PRAGMA collation_list")]


expect("listed by a new connection", listed(), False)
list(db.execute("SELECT count(*) FROM t"))
expect("listed after the schema was read", listed(), True)
missing = "no such collation sequence: local"
expect("ORDER BY x", error_of(lambda: list(db.execute("SELECT x FROM t ORDER BY x"))), missing)
expect("SELECT '' = '' COLLATE local", error_of(lambda: list(db.execute("SELECT '' = '' COLLATE local"))), missing)
finish()
PY
