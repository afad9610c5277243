#!/usr/bin/env bash
# SQLite: what is written through a blob handle fires no trigger, meets no CHECK, and leaves a partial index stale.
#
# Versions:  SQLite 3.54.1 (apsw 3.54.1.0), and Python's own sqlite3 (Connection.blobopen, 3.11 and later)
# Guess:     sqlite3_blob_write() is an UPDATE of one column that saves memory. It is refused for a column with an index or a
#            foreign key, so whatever hangs on the column is looked after.
# Behaviour: No UPDATE trigger and no update hook is called, and no CHECK is evaluated, though the session extension records the
#            change. Generated columns and expressions in an index are refused; the WHERE of a partial index isn't. The
#            index keeps the row, a query that uses it finds what a query without it doesn't, and
#            PRAGMA integrity_check says ok.
# For users: Audit logs, full-text indexes and HarmonyLite learn of changes by triggers. Say UPDATE t SET b = b for
#            the row in the same transaction, after the handle is closed: it fires them all, and evaluates CHECK.
#
# Output:
#   written through a handle: ffff
#   fired: []
#   update hook: 0
#   the session extension has: ['UPDATE']
#   found through the partial index: 1
#   found without it: 0
#   integrity_check: ok
#   CHECK, through a handle: none
#   CHECK, by UPDATE t SET b = b: CHECK constraint failed: substr(b, 1, 1) = x'00'
#   fired by UPDATE t SET b = b: ['before', 'after']
#   Python's blobopen: written, fired: (b'\xff\xff', 0)
#   as stated
source "$(dirname "$0")/lib/lab.bash"
packages apsw==3.54.1.0
"$python" - <<'PY'
import sqlite3

import apsw
from lab import WORK, error_of, expect, finish


def overwrite(table, content):
    with db.blob_open("main", table, "b", 1, True) as handle:
        handle.write(content)


def all_of(sql):
    return [value for (value,) in db.execute(sql)]


db = apsw.Connection(str(WORK / "a.db"))
db.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, b BLOB, n INT); INSERT INTO t VALUES (1, x'0000', 5)")
db.execute("CREATE INDEX i ON t(n) WHERE substr(b, 1, 1) = x'00'; CREATE TABLE fired(what)")
for when in ("before", "after"):
    db.execute(f"CREATE TRIGGER {when}_t {when} UPDATE ON t BEGIN INSERT INTO fired VALUES ('{when}'); END")
hooked = []
db.set_update_hook(lambda *what: hooked.append(what))
session = apsw.Session(db, "main")
session.attach("t")

overwrite("t", b"\xff\xff")
expect("written through a handle", all_of("SELECT b FROM t")[0].hex(), "ffff")
expect("fired", all_of("SELECT what FROM fired"), [])
expect("update hook", len(hooked), 0)
expect("the session extension has", [change.op for change in apsw.Changeset.iter(session.changeset())], ["UPDATE"])
session.close()
expect("found through the partial index", all_of("SELECT count(*) FROM t WHERE substr(b, 1, 1) = x'00' AND n = 5")[0], 1)
expect("found without it", all_of("SELECT count(*) FROM t NOT INDEXED WHERE substr(b, 1, 1) = x'00' AND n = 5")[0], 0)
expect("integrity_check", all_of("PRAGMA integrity_check")[0], "ok")

db.execute("CREATE TABLE c(id INTEGER PRIMARY KEY, b BLOB CHECK (substr(b, 1, 1) = x'00')); INSERT INTO c VALUES (1, x'00')")
expect("CHECK, through a handle", error_of(lambda: overwrite("c", b"\xff")), "none")
stated = "CHECK constraint failed: substr(b, 1, 1) = x'00'"
expect("CHECK, by UPDATE t SET b = b", error_of(lambda: db.execute("UPDATE c SET b = b")), stated)
db.execute("UPDATE t SET b = b")
expect("fired by UPDATE t SET b = b", all_of("SELECT what FROM fired"), ["before", "after"])

own = sqlite3.connect(":memory:")
own.executescript("CREATE TABLE t(id INTEGER PRIMARY KEY, b BLOB); INSERT INTO t VALUES (1, x'0000'); CREATE TABLE fired(what)")
own.execute("CREATE TRIGGER after_t AFTER UPDATE ON t BEGIN INSERT INTO fired VALUES ('after'); END")
with own.blobopen("t", "b", 1) as handle:
    handle.write(b"\xff\xff")
seen = own.execute("SELECT b, (SELECT count(*) FROM fired) FROM t").fetchone()
expect("Python's blobopen: written, fired", seen, (b"\xff\xff", 0))
finish()
PY
