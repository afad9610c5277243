#!/usr/bin/env bash
# SQLite: a session records a key whose letter case changes so that its changeset can't be applied, and undoing it deletes
# the row.
#
# Versions:  SQLite 3.54.1 (apsw 3.54.1.0)
# Guess:     An UPDATE of a key is recorded as DELETE and INSERT, says the documentation. The changeset makes a copy equal, and
#            its inverse takes the change back.
# Behaviour: Where old and new key are equal for SQLite ('a' and 'A' under NOCASE, 1 and 1.0 in a column without a type),
#            the session records an INSERT of the new key and an UPDATE that alters a key, which no changeset should hold.
#            On a copy it ends in "SQL logic error", and nothing is applied. The inverse is applied without
#            a conflict, and the row is gone. WITHOUT ROWID makes no difference.
# For users: Undo and replication by changesets lose such a row. HarmonyLite captures by triggers, and a key
#            travels as it is.
#
# Output:
#   'a' to 'A' under NOCASE: recorded: ['INSERT', 'UPDATE']
#   'a' to 'A' under NOCASE: applied to a copy: SQL logic error
#   'a' to 'A' under NOCASE: rows after undoing it: []
#   1 to 1.0: recorded: ['INSERT', 'UPDATE']
#   1 to 1.0: applied to a copy: SQL logic error
#   1 to 1.0: rows after undoing it: []
#   'a' to 'b': recorded: ['DELETE', 'INSERT']
#   'a' to 'b': applied to a copy: none
#   'a' to 'b': rows after undoing it: [('a', 7)]
#   as stated
source "$(dirname "$0")/lib/lab.bash"
packages apsw==3.54.1.0
"$python" - <<'PY'
import apsw
from lab import error_of, expect, finish


def file(definition, key):
    db = apsw.Connection(":memory:")
    db.execute(f"CREATE TABLE t(id {definition} PRIMARY KEY, v)")
    db.execute("INSERT INTO t VALUES (?, 7)", (key,))
    return db


def conflict(reason, change):
    return apsw.SQLITE_CHANGESET_OMIT


for what, definition, old, new, stated in (
    ("'a' to 'A' under NOCASE", "COLLATE NOCASE", "a", "A", (["INSERT", "UPDATE"], "SQL logic error", [])),
    ("1 to 1.0", "", 1, 1.0, (["INSERT", "UPDATE"], "SQL logic error", [])),
    ("'a' to 'b'", "", "a", "b", (["DELETE", "INSERT"], "none", [("a", 7)])),
):
    origin, copy = file(definition, old), file(definition, old)
    session = apsw.Session(origin, "main")
    session.attach("t")
    origin.execute("UPDATE t SET id = ?", (new,))
    changes = session.changeset()
    expect(f"{what}: recorded", sorted(change.op for change in apsw.Changeset.iter(changes)), stated[0])
    said = error_of(lambda: apsw.Changeset.apply(changes, copy, conflict=conflict))
    expect(f"{what}: applied to a copy", said, stated[1])
    apsw.Changeset.apply(apsw.Changeset.invert(changes), origin, conflict=conflict)
    expect(f"{what}: rows after undoing it", origin.execute("SELECT * FROM t").fetchall(), stated[2])
finish()
PY
