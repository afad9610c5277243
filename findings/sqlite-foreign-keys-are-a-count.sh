#!/usr/bin/env bash
# SQLite: foreign keys are checked by a count: with an old orphan in the file a statement may break a key without an error,
# and a rebuilt parent table can't be committed though no key is broken.
#
# Versions:  apsw 3.54.1.0 (the SQLite of the same number)
# Guess:     With foreign_keys = ON a commit fails if, and only if, a row refers to nothing that this transaction touched.
# Behaviour: SQLite adds one for a reference that breaks and takes one off for one that is repaired, whichever it is. So a
#            row that was an orphan before (written while foreign_keys was off, its default) and finds its parent pays
#            for another that loses its own: at COMMIT for deferred keys, within one UPDATE for immediate ones.
#            Counted twice is a parent that is rebuilt under defer_foreign_keys: DROP TABLE counts its rows as broken, and
#            RENAME of the copy takes nothing off: COMMIT fails, while foreign_key_check has nothing to say. Rows that are
#            inserted after the table has its name do take it off.
# For users: foreign_key_check finds orphans; no commit proves that there are none. Programs with and without
#            foreign_keys on one file, and merges of rows from elsewhere, leave orphans. Rebuild with foreign_keys = OFF,
#            or pour the rows into a table that has the right name already.
#
# Output:
#   error, what foreign_key_check finds (row)
#   key broken, no orphan before: ('FOREIGN KEY constraint failed', [2])
#   key broken, another orphan repaired: ('none', [1])
#   deferred, key broken, another orphan repaired: ('none', [1])
#   deferred, key broken, another orphan deleted: ('none', [1])
#   rebuild: copy, drop, rename: ('FOREIGN KEY constraint failed', [])
#   rebuild: keep aside, drop, create, copy: ('none', [])
#   as stated
source "$(dirname "$0")/lib/lab.bash"
packages apsw==3.54.1.0
"$python" - <<'PY'
import apsw
from lab import error_of, expect, finish

# Row 2 is an orphan; row 1 is not.
ROWS = """
CREATE TABLE parent(id INTEGER PRIMARY KEY);
CREATE TABLE child(id INTEGER PRIMARY KEY, parent REFERENCES parent);
INSERT INTO parent VALUES (1);
INSERT INTO child VALUES (1, 1), (2, 7);
"""
DEFER = "BEGIN; PRAGMA defer_foreign_keys = ON;"
BREAK = "UPDATE child SET parent = 99 WHERE id = 1;"


def after(statements, orphan=True):
    db = apsw.Connection(":memory:")
    db.execute(ROWS)
    if not orphan:
        db.execute("UPDATE child SET parent = 1")
    db.execute("PRAGMA foreign_keys = ON")
    error = error_of(lambda: db.execute(statements))
    return error, [rowid for _table, rowid, *_ in db.execute("PRAGMA foreign_key_check")]


failed = "FOREIGN KEY constraint failed"
print("error, what foreign_key_check finds (row)")
expect("key broken, no orphan before", after(BREAK), (failed, [2]))
both = "UPDATE child SET parent = CASE id WHEN 1 THEN 99 ELSE 1 END;"
expect("key broken, another orphan repaired", after(both), ("none", [1]))
repaired = f"{DEFER} {BREAK} INSERT INTO parent VALUES (7); COMMIT"
expect("deferred, key broken, another orphan repaired", after(repaired), ("none", [1]))
deleted = f"{DEFER} {BREAK} DELETE FROM child WHERE id = 2; COMMIT"
expect("deferred, key broken, another orphan deleted", after(deleted), ("none", [1]))

renamed = f"""{DEFER}
CREATE TABLE made(id INTEGER PRIMARY KEY, more);
INSERT INTO made(id) SELECT id FROM parent;
DROP TABLE parent;
ALTER TABLE made RENAME TO parent;
COMMIT"""
expect("rebuild: copy, drop, rename", after(renamed, orphan=False), (failed, []))
poured = f"""{DEFER}
CREATE TABLE kept AS SELECT id FROM parent;
DROP TABLE parent;
CREATE TABLE parent(id INTEGER PRIMARY KEY, more);
INSERT INTO parent(id) SELECT id FROM kept;
DROP TABLE kept;
COMMIT"""
expect("rebuild: keep aside, drop, create, copy", after(poured, orphan=False), ("none", []))
finish()
PY
