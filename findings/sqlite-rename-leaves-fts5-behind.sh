#!/usr/bin/env bash
# SQLite: ALTER TABLE … RENAME carries triggers and views along, but not the FTS5 index that reads its text from the table.
#
# Versions:  SQLite 3.54.1 (apsw 3.54.1.0)
# Guess:     RENAME COLUMN and RENAME TO alter every reference in the schema, or refuse.
# Behaviour: An FTS5 table with content='doc' keeps the old name of the table and of its columns. The rename succeeds, the
#            triggers are rewritten and go on filling the index, and MATCH finds rowids. Only what reads a
#            column of the index fails ("no such column: T.title"), and so does 'rebuild'. PRAGMA integrity_check and
#            the index's own 'integrity-check' are content; the latter sees it with rank = 1.
#            DROP COLUMN of the same column is refused, because of the trigger.
# For users: Drop the index and its triggers before such a rename, and make them again after it, in one transaction.
#
# Output:
#   rename column: none
#   insert through the trigger: none
#   rowids that match: [1, 2]
#   read a column: no such column: T.title
#   rebuild: no such column: T.title
#   integrity_check: ok
#   'integrity-check': none
#   'integrity-check' with rank 1: SQL logic error
#   rename table: none
#   insert through the trigger: none
#   read a column: no such table: main.doc
#   drop column: error in trigger added after drop column: no such column: new.title
#   as stated
source "$(dirname "$0")/lib/lab.bash"
packages apsw==3.54.1.0
"$python" - <<'PY'
import apsw
from lab import error_of, expect, finish

SCHEMA = """
CREATE TABLE doc(id INTEGER PRIMARY KEY, title TEXT, body TEXT);
CREATE VIRTUAL TABLE search USING fts5(title, body, content='doc', content_rowid='id');
CREATE TRIGGER added AFTER INSERT ON doc BEGIN
  INSERT INTO search(rowid, title, body) VALUES (new.id, new.title, new.body);
END;
INSERT INTO doc VALUES (1, 'hello', 'world');
"""


def library():
    db = apsw.Connection(":memory:")
    db.execute(SCHEMA)
    return db


def try_out(db, sql):
    return error_of(lambda: db.execute(sql).fetchall())


db = library()
expect("rename column", try_out(db, "ALTER TABLE doc RENAME COLUMN title TO heading"), "none")
expect("insert through the trigger", try_out(db, "INSERT INTO doc VALUES (2, 'hello', 'again')"), "none")
found = [row[0] for row in db.execute("SELECT rowid FROM search WHERE search MATCH 'hello'")]
expect("rowids that match", found, [1, 2])
expect("read a column", try_out(db, "SELECT title FROM search WHERE search MATCH 'hello'"), "no such column: T.title")
expect("rebuild", try_out(db, "INSERT INTO search(search) VALUES ('rebuild')"), "no such column: T.title")
expect("integrity_check", db.execute("PRAGMA integrity_check").fetchone()[0], "ok")
expect("'integrity-check'", try_out(db, "INSERT INTO search(search) VALUES ('integrity-check')"), "none")
strict = "INSERT INTO search(search, rank) VALUES ('integrity-check', 1)"
expect("'integrity-check' with rank 1", try_out(db, strict), "SQL logic error")
db = library()
expect("rename table", try_out(db, "ALTER TABLE doc RENAME TO document"), "none")
expect("insert through the trigger", try_out(db, "INSERT INTO document VALUES (2, 'hello', 'again')"), "none")
expect("read a column", try_out(db, "SELECT title FROM search"), "no such table: main.doc")
refused = "error in trigger added after drop column: no such column: new.title"
expect("drop column", try_out(library(), "ALTER TABLE doc DROP COLUMN title"), refused)
finish()
PY
