#!/usr/bin/env bash
# SQLite: the new ALTER TABLE forms for constraints succeed where they do something else than they say: SET NOT NULL removes
# a conflict clause, DROP leaves a second constraint.
#
# Versions:  SQLite 3.54.1 (apsw 3.54.1.0); the forms exist since 3.53
# Guess:     SET NOT NULL does nothing to a column that is NOT NULL. After DROP NOT NULL the column takes NULL, and after DROP
#            CONSTRAINT c the table has no constraint c; else there is an error.
# Behaviour: SET NOT NULL replaces the column's own: NOT NULL ON CONFLICT REPLACE becomes plain NOT NULL, and writes that got the
#            default until now fail. DROP takes the first one that it finds: of two constraints of one name, which
#            SQLite allows, or of NOT NULL said twice, the other one stays. DROP NOT NULL of a key in a table WITHOUT ROWID
#            changes nothing. None of it is an error.
# For users: Compare the table's text in sqlite_master before and after; say SET NOT NULL with the ON CONFLICT clause that is
#            there. The change travels as the table's new definition, so the other nodes' writes fail likewise.
#
# Output:
#   NOT NULL ON CONFLICT REPLACE: NULL is stored as: d
#   after SET NOT NULL: NOT NULL constraint failed: t.a
#   after SET NOT NULL ON CONFLICT REPLACE: NULL is stored as: d
#   after DROP NOT NULL, said twice: NOT NULL constraint failed: t.a
#   after DROP CONSTRAINT c, of two: CHECK constraint failed: c
#   after it is said again: none
#   after DROP NOT NULL of a key WITHOUT ROWID: NOT NULL constraint failed: t.a
#   as stated
source "$(dirname "$0")/lib/lab.bash"
packages apsw==3.54.1.0
"$python" - <<'PY'
import apsw
from lab import error_of, expect, finish

REPLACED = "a TEXT NOT NULL ON CONFLICT REPLACE DEFAULT 'd'"
REFUSED = "NOT NULL constraint failed: t.a"


def table(definition, *changes, more=""):
    db = apsw.Connection(":memory:")
    db.execute(f"CREATE TABLE t({definition}){more}")
    for change in changes:
        db.execute(f"ALTER TABLE t {change}")
    return db


def stored(db):
    return db.execute("INSERT INTO t(a) VALUES (NULL) RETURNING a").get


def refused(db, value="NULL"):
    return error_of(lambda: db.execute(f"INSERT INTO t(a) VALUES ({value})"))


CLAUSE = "ALTER COLUMN a SET NOT NULL ON CONFLICT REPLACE"
NAMED = "a CONSTRAINT c CHECK (a < 5), CONSTRAINT c CHECK (a < 9)"
expect("NOT NULL ON CONFLICT REPLACE: NULL is stored as", stored(table(REPLACED)), "d")
expect("after SET NOT NULL", refused(table(REPLACED, "ALTER COLUMN a SET NOT NULL")), REFUSED)
expect("after SET NOT NULL ON CONFLICT REPLACE: NULL is stored as", stored(table(REPLACED, CLAUSE)), "d")
expect("after DROP NOT NULL, said twice", refused(table("a NOT NULL NOT NULL", "ALTER COLUMN a DROP NOT NULL")), REFUSED)
two = table(NAMED, "DROP CONSTRAINT c")
expect("after DROP CONSTRAINT c, of two", refused(two, "10"), "CHECK constraint failed: c")
two.execute("ALTER TABLE t DROP CONSTRAINT c")
expect("after it is said again", refused(two, "10"), "none")
key = table("a TEXT PRIMARY KEY", "ALTER COLUMN a DROP NOT NULL", more=" WITHOUT ROWID")
expect("after DROP NOT NULL of a key WITHOUT ROWID", refused(key), REFUSED)
finish()
PY
