#!/usr/bin/env bash
# SQLite: with SQLITE_DBCONFIG_FP_DIGITS = 15 FTS5 inserts reals with 15 digits, and deletes them with 17.
#
# Versions:  apsw 3.54.1.0 (SQLite 3.54.1); 3.53.0, the first one with that setting, does the same
# Guess:     A setting of the connection holds for all that the connection does.
# Behaviour: A row of an external-content table is put into its full-text index with the digits that are set. The 'delete'
#            command, given the same number, takes the text with 17 digits out of the index: words that aren't there.
#            The old ones stay, and searches find rows that are gone. With the default, 17, all is well.
# For users: Give full-text indexes text: CAST(r AS TEXT) in the triggers, and as a generated column in the content
#            table. 'rebuild' mends an index.
#
# Output:
#   FP_DIGITS = 17: in the index 0 30000000000000004, after DELETE nothing, check ok
#   FP_DIGITS = 15: in the index 0 3, after DELETE 3, check fts5: checksum mismatch for table "f"
#   as stated
source "$(dirname "$0")/lib/lab.bash"
packages apsw==3.54.1.0
"$python" - <<'PY'
import apsw
from lab import error_of, expect, finish

INDEX = """
    CREATE TABLE t(id INTEGER PRIMARY KEY, r REAL);
    CREATE VIRTUAL TABLE f USING fts5(r, content='t', content_rowid='id');
    CREATE VIRTUAL TABLE words USING fts5vocab(f, row);
    CREATE TRIGGER f1 AFTER INSERT ON t BEGIN INSERT INTO f(rowid, r) VALUES (new.id, new.r); END;
    CREATE TRIGGER f2 AFTER DELETE ON t BEGIN INSERT INTO f(f, rowid, r) VALUES ('delete', old.id, old.r); END;
    INSERT INTO t(r) VALUES (0.1 + 0.2);
"""
for digits, seen in (
    (17, "in the index 0 30000000000000004, after DELETE nothing, check ok"),
    (15, 'in the index 0 3, after DELETE 3, check fts5: checksum mismatch for table "f"'),
):
    db = apsw.Connection(":memory:")
    db.config(apsw.SQLITE_DBCONFIG_FP_DIGITS, digits)
    db.execute(INDEX)

    def words() -> str:
        return " ".join(word for (word,) in db.execute("SELECT term FROM words ORDER BY term")) or "nothing"

    before = words()
    db.execute("DELETE FROM t")
    error = error_of(lambda: db.execute("INSERT INTO f(f, rank) VALUES ('integrity-check', 1)"))
    check = "ok" if error == "none" else error
    expect(f"FP_DIGITS = {digits}", f"in the index {before}, after DELETE {words()}, check {check}", seen)
finish()
PY
