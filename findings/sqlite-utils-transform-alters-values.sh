#!/usr/bin/env bash
# sqlite-utils: transform() gives untouched columns other types, so numbers become text or lose digits, and drops
# generated columns.
#
# Versions:  sqlite-utils 4.2.1
# Guess:     table.transform(not_null={"note"}) rebuilds the table with that one change; every other value stays,
#            bit for bit.
# Behaviour: Each declared type is put into one of INTEGER, TEXT, REAL and BLOB, and values are converted to fit. A
#            column without a type becomes TEXT: 7 is '7' afterwards. TIMESTAMPTZ, UUID or NUMERIC become REAL:
#            9007199254740993 ends in ...992. A generated column is gone, with its expression. COLLATE, WITHOUT
#            ROWID, DEFERRABLE and triggers go as well.
# For users: Values that the rebuild alters travel to each node like any update. Use transform() on tables whose
#            columns all have one of the four types, and compare sqlite_master afterwards.
#
# Output:
#   before: [(7, 'integer', 9007199254740993, 9007199254740993, 1)]
#   after: [('7', 'text', 9007199254740992.0, 9007199254740992.0, 0)]
#   columns after: [('id', 'INTEGER'), ('untyped', 'TEXT'), ('at', 'REAL'), ('amount', 'REAL'), ('name', 'TEXT'), ('note', 'TEXT')]
#   as stated
source "$(dirname "$0")/lib/lab.bash"
packages sqlite-utils==4.2.1
"$python" - <<'PY'
import sqlite3
import sqlite_utils
from lab import WORK, expect, finish

path = WORK / "a.db"
db = sqlite3.connect(path)
db.executescript("""
CREATE TABLE t(
    id INTEGER PRIMARY KEY, untyped, at TIMESTAMPTZ, amount NUMERIC, name TEXT COLLATE NOCASE, note TEXT,
    doubled INTEGER GENERATED ALWAYS AS (id * 2) STORED
);
INSERT INTO t(id, untyped, at, amount, name, note) VALUES (1, 7, 9007199254740993, 9007199254740993, 'a', '');
""")
values = "SELECT untyped, typeof(untyped), at, amount, name = 'A' FROM t"
expect("before", db.execute(values).fetchall(), [(7, "integer", 9007199254740993, 9007199254740993, 1)])
sqlite_utils.Database(path)["t"].transform(not_null={"note"})
expect("after", db.execute(values).fetchall(), [("7", "text", 9007199254740992.0, 9007199254740992.0, 0)])
columns = [(row[1], row[2]) for row in db.execute("PRAGMA table_xinfo(t)")]
expect("columns after", columns, [
    ("id", "INTEGER"), ("untyped", "TEXT"), ("at", "REAL"), ("amount", "REAL"), ("name", "TEXT"), ("note", "TEXT"),
])
finish()
PY
