#!/usr/bin/env bash
# SQLite: RAISE(IGNORE) in an AFTER trigger keeps the row, and skips the triggers that are older than it.
#
# Versions:  apsw 3.54.1.0 (the SQLite of the same number)
# Guess:     IGNORE gives the row up, or is an early return: it leaves the trigger that says it. Others are not its business.
# Behaviour: In a BEFORE trigger the row is given up. In an AFTER trigger it stays inserted, updated or deleted, counts in
#            changes() and comes with RETURNING; and the table's other AFTER triggers for it don't run any more. Which
#            ones depends on when they were made: the newest runs first, so it silences all that are older, a TEMP
#            trigger of one connection all of the file. The same triggers made in the other order do their work.
# For users: A log kept by triggers or a full-text index misses such rows. Return early by a WHEN clause of the trigger, or
#            WHERE in its statements; or make the trigger before the others. HarmonyLite makes its own triggers again, as the
#            newest, where it finds such a one, and compares the table; it can't see a TEMP trigger of another connection.
#
# Output:
#   rows, changes(), RETURNING, what the log's trigger saw
#   insert, the log made later: ([(1, 'quiet'), (2, 'a')], 2, [1, 2], [1, 2])
#   insert, the log made earlier: ([(1, 'quiet'), (2, 'a')], 2, [1, 2], [2])
#   update, the log made earlier: ([(1, 'quiet'), (2, 'quiet')], 2, [1, 2], [])
#   delete, the log made earlier: ([(2, 'a')], 1, [1], [])
#   insert, a TEMP trigger: ([(1, 'quiet'), (2, 'a')], 2, None, [2])
#   insert, a BEFORE trigger: ([(2, 'a')], 1, [2], [2])
#   as stated
source "$(dirname "$0")/lib/lab.bash"
packages apsw==3.54.1.0
"$python" - <<'PY'
import apsw
from lab import expect, finish

STATEMENTS = {
    "INSERT": "INSERT INTO t VALUES (1, 'quiet'), (2, 'a')",
    "UPDATE": "UPDATE t SET v = 'quiet'",
    "DELETE": "DELETE FROM t WHERE id = 1",
}


def after(event, order, kind="", when="AFTER", returning=True):
    row = "old" if event == "DELETE" else "new"
    log = f"CREATE TRIGGER logs AFTER {event} ON t BEGIN INSERT INTO log VALUES ({row}.id); END"
    early = (
        f"CREATE {kind} TRIGGER early {when} {event} ON t BEGIN"
        f" SELECT raise(IGNORE) WHERE {row}.v = 'quiet'; SELECT 1; END"
    )
    db = apsw.Connection(":memory:")
    db.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, v); CREATE TABLE log(id)")
    if event != "INSERT":
        db.execute(STATEMENTS["INSERT"])
    for each in (log, early) if order == "earlier" else (early, log):
        db.execute(each)
    found = db.execute(STATEMENTS[event] + (" RETURNING id" if returning else "")).fetchall()
    changed = db.changes()
    logged = [each for (each,) in db.execute("SELECT id FROM log ORDER BY id")]
    rows = list(db.execute("SELECT * FROM t ORDER BY id"))
    return rows, changed, [each for (each,) in found] if returning else None, logged


both = [(1, "quiet"), (2, "a")]
print("rows, changes(), RETURNING, what the log's trigger saw")
expect("insert, the log made later", after("INSERT", "later"), (both, 2, [1, 2], [1, 2]))
expect("insert, the log made earlier", after("INSERT", "earlier"), (both, 2, [1, 2], [2]))
quiet = [(1, "quiet"), (2, "quiet")]
expect("update, the log made earlier", after("UPDATE", "earlier"), (quiet, 2, [1, 2], []))
expect("delete, the log made earlier", after("DELETE", "earlier"), ([(2, "a")], 1, [1], []))
temporary = after("INSERT", "later", kind="TEMP", returning=False)
expect("insert, a TEMP trigger", temporary, (both, 2, None, [2]))
before = after("INSERT", "earlier", when="BEFORE")
expect("insert, a BEFORE trigger", before, ([(2, "a")], 1, [2], [2]))
finish()
PY
