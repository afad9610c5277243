#!/usr/bin/env bash
# SQLite: VACUUM renumbers the rowids of a table without an integer key, VACUUM INTO keeps them; and only a backup
# stays in WAL mode.
#
# Versions:  apsw 3.54.1.0 and 3.46.0.0 (the SQLite of the same numbers)
# Guess:     VACUUM INTO writes the file that VACUUM would leave behind, and a backup is the same with free pages in
#            it.
# Behaviour: After VACUUM the rows have new rowids. The copy made by VACUUM INTO has the old ones, and is in
#            rollback-journal mode though its source is in WAL mode. The copy made by the backup interface has the
#            old ones and is in WAL mode.
# For users: An external-content FTS5 index over such a table is wrong after VACUUM and right in either copy. Give
#            the table an INTEGER PRIMARY KEY. A copy by VACUUM INTO needs "PRAGMA journal_mode = wal" before it
#            replaces the original.
#
# Output:
#   SQLite 3.46.0
#   after VACUUM: ([1, 2], 'wal')
#   copy by VACUUM INTO: ([2, 3], 'delete')
#   copy by backup: ([2, 3], 'wal')
#   as stated
#   SQLite 3.54.1
#   after VACUUM: ([1, 2], 'wal')
#   copy by VACUUM INTO: ([2, 3], 'delete')
#   copy by backup: ([2, 3], 'wal')
#   as stated
source "$(dirname "$0")/lib/lab.bash"
for version in 3.46.0.0 3.54.1.0; do
    packages apsw==$version
    "$python" - <<'PY'
import apsw
from lab import WORK, expect, finish

name = str(WORK / apsw.sqlite_lib_version())
db = apsw.Connection(f"{name}.db")
db.execute("PRAGMA journal_mode = wal").get
db.execute("CREATE TABLE t(x); INSERT INTO t VALUES ('a'), ('b'), ('c'); DELETE FROM t WHERE x = 'a'")
db.execute(f"VACUUM INTO '{name}-into.db'")
with apsw.Connection(f"{name}-backup.db") as copy, copy.backup("main", db, "main") as backup:
    backup.step()
copy.close()
db.execute("VACUUM")


def state(path):
    db = apsw.Connection(path)
    return [row[0] for row in db.execute("SELECT rowid FROM t")], db.execute("PRAGMA journal_mode").get


print("SQLite", apsw.sqlite_lib_version())
expect("after VACUUM", state(f"{name}.db"), ([1, 2], "wal"))
expect("copy by VACUUM INTO", state(f"{name}-into.db"), ([2, 3], "delete"))
expect("copy by backup", state(f"{name}-backup.db"), ([2, 3], "wal"))
finish()
PY
done
