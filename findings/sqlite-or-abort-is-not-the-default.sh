#!/usr/bin/env bash
# SQLite: INSERT OR ABORT does not do what INSERT does, though ABORT is called the default.
#
# Versions:  apsw 3.54.1.0 (the SQLite of the same number)
# Guess:     The clause that is the default anyway changes nothing.
# Behaviour: A clause that is written, the default one included, also rules within the triggers that the statement
#            fires: their OR IGNORE and OR REPLACE are void, and the statement fails. Without a clause they hold.
# For users: Who adds OR ABORT to overrule a table's ON CONFLICT clause breaks its triggers. HarmonyLite adds it for
#            tables with such a clause alone, and names triggers there that it then can't run.
#
# Output:
#   trigger with INSERT OR IGNORE: INSERT INTO t VALUES (2): ok
#   trigger with INSERT OR IGNORE: INSERT OR ABORT INTO t VALUES (2): UNIQUE constraint failed: side.k
#   trigger with INSERT OR IGNORE: UPDATE t SET id = 2: ok
#   trigger with INSERT OR IGNORE: UPDATE OR ABORT t SET id = 2: UNIQUE constraint failed: side.k
#   trigger with INSERT OR REPLACE: INSERT INTO t VALUES (2): ok
#   trigger with INSERT OR REPLACE: INSERT OR ABORT INTO t VALUES (2): UNIQUE constraint failed: side.k
#   trigger with INSERT OR REPLACE: UPDATE t SET id = 2: ok
#   trigger with INSERT OR REPLACE: UPDATE OR ABORT t SET id = 2: UNIQUE constraint failed: side.k
source "$(dirname "${BASH_SOURCE[0]}")/lib/lab.bash"
packages apsw==3.54.1.0
"$python" - <<'PY'
import apsw

outcomes = {}
for inner in ("INSERT OR IGNORE", "INSERT OR REPLACE"):
    for outer in (
        "INSERT INTO t VALUES (2)",
        "INSERT OR ABORT INTO t VALUES (2)",
        "UPDATE t SET id = 2",
        "UPDATE OR ABORT t SET id = 2",
    ):
        db = apsw.Connection(":memory:")
        db.execute("CREATE TABLE t(id INTEGER PRIMARY KEY); CREATE TABLE side(k UNIQUE, n); INSERT INTO t VALUES (1)")
        db.execute("INSERT INTO side VALUES ('k', 0)")
        for event in ("INSERT", "UPDATE"):
            db.execute(f"CREATE TRIGGER t_{event} AFTER {event} ON t BEGIN {inner} INTO side VALUES ('k', new.id); END")
        try:
            db.execute(outer)
            outcomes[inner, outer] = "ok"
        except apsw.ConstraintError as error:
            outcomes[inner, outer] = str(error)
        print(f"trigger with {inner}: {outer}: {outcomes[inner, outer]}")
for (inner, outer), said in outcomes.items():
    expected = "UNIQUE constraint failed: side.k" if "ABORT" in outer else "ok"
    assert said == expected, (inner, outer, said)
PY
