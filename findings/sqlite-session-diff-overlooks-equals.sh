#!/usr/bin/env bash
# SQLite: the session extension's diff of two tables is empty where they differ in letter case, spaces or storage class.
#
# Versions:  SQLite 3.54.1 (apsw 3.54.1.0)
# Guess:     sqlite3session_diff() gives the changeset that makes one table the other, bit for bit, as a session that had been
#            there would have recorded it.
# Behaviour: It compares with SQL's IS, by each column's collation. 'Hello' and 'hello' in a NOCASE column, 'a' and 'a  '
#            in an RTRIM column, 1 and 1.0 in a column without a type are no difference, and so for keys. A session
#            that watches the same change by UPDATE does record it.
# For users: An empty diff doesn't say that two files hold the same. Compare typeof() and CAST(value AS BLOB) of each value, or
#            ask HarmonyLite's verify.
#
# Output:
#   'Hello' and 'hello', NOCASE: the diff has: [], a session recorded ['UPDATE']
#   'a' and 'a  ', RTRIM: the diff has: [], a session recorded ['UPDATE']
#   1 and 1.0, no type: the diff has: [], a session recorded ['UPDATE']
#   'Hello' and 'world', NOCASE: the diff has: ['UPDATE'], a session recorded ['UPDATE']
#   keys 'k' and 'K', NOCASE: the diff has: []
#   as stated
source "$(dirname "$0")/lib/lab.bash"
packages apsw==3.54.1.0
"$python" - <<'PY'
import apsw
from lab import expect, finish

UPDATED = ["UPDATE"]


def tables(definition, here, there):
    db = apsw.Connection(":memory:")
    db.execute("ATTACH ':memory:' AS other")
    for schema, row in (("main", here), ("other", there)):
        db.execute(f"CREATE TABLE {schema}.t({definition})")
        db.execute(f"INSERT INTO {schema}.t VALUES (?, ?)", row)
    return db


def diff(db):
    session = apsw.Session(db, "main")
    session.attach("t")
    session.diff("other", "t")
    return [change.op for change in apsw.Changeset.iter(session.changeset())]


def recorded(definition, old, new):
    db = tables(definition, (1, old), (1, old))
    session = apsw.Session(db, "main")
    session.attach("t")
    db.execute("UPDATE main.t SET v = ?", (new,))
    return [change.op for change in apsw.Changeset.iter(session.changeset())]


for what, kind, old, new, found in (
    ("'Hello' and 'hello', NOCASE", "TEXT COLLATE NOCASE", "Hello", "hello", []),
    ("'a' and 'a  ', RTRIM", "TEXT COLLATE RTRIM", "a", "a  ", []),
    ("1 and 1.0, no type", "", 1, 1.0, []),
    ("'Hello' and 'world', NOCASE", "TEXT COLLATE NOCASE", "Hello", "world", UPDATED),
):
    definition = f"id INTEGER PRIMARY KEY, v {kind}"
    seen = f"{diff(tables(definition, (1, old), (1, new)))}, a session recorded {recorded(definition, old, new)}"
    expect(f"{what}: the diff has", seen, f"{found}, a session recorded {UPDATED}")
keys = tables("id TEXT COLLATE NOCASE PRIMARY KEY, v", ("k", 1), ("K", 1))
expect("keys 'k' and 'K', NOCASE: the diff has", diff(keys), [])
finish()
PY
