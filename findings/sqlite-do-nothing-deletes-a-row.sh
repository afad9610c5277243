#!/usr/bin/env bash
# SQLite: INSERT ... ON CONFLICT(id) DO NOTHING can delete another row, unseen by delete triggers, where a column
# says ON CONFLICT REPLACE.
#
# Versions:  apsw 3.54.1.0 (the SQLite of the same number)
# Guess:     A statement with its own ON CONFLICT clause follows that clause, and "do nothing" takes no row away.
# Behaviour: The clause rules the constraint that it names. A clash in another one falls back to what the table
#            says: with UNIQUE ON CONFLICT REPLACE the row in the way is deleted, without its delete trigger
#            (recursive_triggers is off). The same upsert with DO UPDATE instead of DO NOTHING raises an error, and
#            DO NOTHING without a target inserts nothing.
# For users: A log kept by triggers misses that deletion. Leave the target out (ON CONFLICT DO NOTHING), or ON
#            CONFLICT out of the table. HarmonyLite logs such keys before the statement, by BEFORE triggers on the
#            unique columns.
#
# Output:
#   rows, what the delete trigger saw, error
#   ON CONFLICT(id) DO NOTHING: ([(1, 'a'), (3, 'b')], [], 'none')
#   ON CONFLICT DO NOTHING: ([(1, 'a'), (2, 'b')], [], 'none')
#   ON CONFLICT(id) DO UPDATE SET mail: ([(1, 'a'), (2, 'b')], [], 'UNIQUE constraint failed: t.mail')
#   UPDATE t SET mail: ([(1, 'b')], [], 'none')
#   as stated
source "$(dirname "$0")/lib/lab.bash"
packages apsw==3.54.1.0
"$python" - <<'PY'
import apsw
from lab import error_of, expect, finish

TABLES = """
CREATE TABLE t(id INTEGER PRIMARY KEY, mail TEXT UNIQUE ON CONFLICT REPLACE);
CREATE TABLE deleted(id);
CREATE TRIGGER gone AFTER DELETE ON t BEGIN INSERT INTO deleted VALUES (old.id); END;
INSERT INTO t VALUES (1, 'a'), (2, 'b');
"""


def after(statement):
    db = apsw.Connection(":memory:")
    db.execute(TABLES)
    error = error_of(lambda: db.execute(statement))
    return list(db.execute("SELECT * FROM t")), [row[0] for row in db.execute("SELECT id FROM deleted")], error


insert, clash = "INSERT INTO t VALUES (3, 'b')", "UNIQUE constraint failed: t.mail"
before = [(1, "a"), (2, "b")]
print("rows, what the delete trigger saw, error")
expect("ON CONFLICT(id) DO NOTHING", after(f"{insert} ON CONFLICT(id) DO NOTHING"), ([(1, "a"), (3, "b")], [], "none"))
expect("ON CONFLICT DO NOTHING", after(f"{insert} ON CONFLICT DO NOTHING"), (before, [], "none"))
update = "INSERT INTO t VALUES (1, 'b') ON CONFLICT(id) DO UPDATE SET mail = excluded.mail"
expect("ON CONFLICT(id) DO UPDATE SET mail", after(update), (before, [], clash))
expect("UPDATE t SET mail", after("UPDATE t SET mail = 'b' WHERE id = 1"), ([(1, "b")], [], "none"))
finish()
PY
