#!/usr/bin/env bash
# SQLite: another DEFAULT, set by the recipe of SQLite's own documentation, alters values of rows that are there.
#
# Versions:  apsw 3.54.1.0 (the SQLite of the same number)
# Guess:     A default is for rows that are inserted later. The page on ALTER TABLE counts a default that is added, changed
#            or removed among the changes that don't touch what is stored, and gives the short way for these: UPDATE
#            sqlite_schema under writable_schema. (ALTER TABLE has no form for it, also since 3.53.)
# Behaviour: ADD COLUMN writes no row: those that were there have no value for the column, and show whatever the default
#            is now. The new default shows in them, and not in rows that were inserted or updated since. A removed default
#            leaves NULL, in a NOT NULL column, too. No trigger fires, and VACUUM stores nothing for them either.
# For users: Two files with equal rows differ after the same edit, if one of them got its rows as inserts, as each node does
#            that merges them. First UPDATE t SET c = c, which stores the values; or rebuild the table.
#
# Output:
#   rows: [(1, 'old'), (2, 'old'), (3, 'old')]
#   rows after DEFAULT 'new' (2 was inserted later, 3 updated): [(1, 'new'), (2, 'old'), (3, 'old')]
#   seen by an update trigger: 0
#   rows after the default was removed: [(1, None), (2, 'old'), (3, 'old')]
#   integrity_check: NULL value in t.state
#   after UPDATE t SET state = state first: [(1, 'old'), (2, 'old'), (3, 'old')]
#   as stated
source "$(dirname "$0")/lib/lab.bash"
packages apsw==3.54.1.0
"$python" - <<'PY'
import apsw
from lab import expect, finish

ROWS = "SELECT id, state FROM t ORDER BY id"


def table():
    db = apsw.Connection(":memory:")
    db.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, n)")
    db.execute("INSERT INTO t(id) VALUES (1), (3)")
    db.execute("ALTER TABLE t ADD COLUMN state TEXT NOT NULL DEFAULT 'old'")
    db.execute("INSERT INTO t(id) VALUES (2)")
    db.execute("UPDATE t SET n = 1 WHERE id = 3")
    return db


def edit(db, was, becomes):
    version = db.pragma("schema_version")
    db.execute("BEGIN; PRAGMA writable_schema = ON")
    db.execute("UPDATE sqlite_schema SET sql = replace(sql, ?, ?) WHERE name = 't'", (was, becomes))
    db.execute(f"PRAGMA schema_version = {version + 1}; PRAGMA writable_schema = OFF; COMMIT")


old = [(1, "old"), (2, "old"), (3, "old")]
db = table()
db.execute("CREATE TABLE seen(id); CREATE TRIGGER t_u AFTER UPDATE ON t BEGIN INSERT INTO seen VALUES (new.id); END")
expect("rows", list(db.execute(ROWS)), old)
edit(db, "'old'", "'new'")
db.execute("VACUUM")
what = "rows after DEFAULT 'new' (2 was inserted later, 3 updated)"
expect(what, list(db.execute(ROWS)), [(1, "new"), (2, "old"), (3, "old")])
expect("seen by an update trigger", db.execute("SELECT count(*) FROM seen").get, 0)
edit(db, " DEFAULT 'new'", "")
expect("rows after the default was removed", list(db.execute(ROWS)), [(1, None), (2, "old"), (3, "old")])
expect("integrity_check", db.pragma("integrity_check"), "NULL value in t.state")
db = table()
db.execute("UPDATE t SET state = state")
edit(db, " DEFAULT 'old'", "")
expect("after UPDATE t SET state = state first", list(db.execute(ROWS)), old)
finish()
PY
