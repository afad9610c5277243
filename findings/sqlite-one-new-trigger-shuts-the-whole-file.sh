#!/usr/bin/env bash
# SQLite: one trigger or view in newer syntax shuts an older library out of the whole file, unrelated tables
# included.
#
# Versions:  apsw 3.54.1.0 writes, apsw 3.43.2.0 reads (the SQLite of the same numbers)
# Guess:     An older library fails at the object that it doesn't understand, when it gets there, as it does with an
#            unknown function.
# Behaviour: A view or an index that calls an unknown function costs what uses it, no more. New syntax is another
#            matter: the older library parses all of the schema at its first statement, and every statement on every
#            table is "malformed database schema". PRAGMA integrity_check can't run either. The file isn't damaged.
# For users: A migration that is written for the newest SQLite ends applications that bring an older one, on each node
#            that gets the schema, new ones included. Write triggers and views for the oldest library that opens the
#            file. RAISE(ABORT, expression), 1_000 and aggregate(x ORDER BY y) are such syntax (3.47, 3.46, 3.44).
#
# Output:
#   read by SQLite 3.43.2
#     none
#   jsonb() in an index: SELECT from another table: none
#     none
#   median() in a view: SELECT from another table: none
#     CorruptError: malformed database schema (o) - near ".": syntax error
#   RAISE with an expression: SELECT from another table: malformed database schema
#     CorruptError: malformed database schema (o) - unrecognized token: "1_000"
#   a number with _: SELECT from another table: malformed database schema
#     CorruptError: malformed database schema (o) - near "ORDER": syntax error
#   ORDER BY in an aggregate: SELECT from another table: malformed database schema
#   as stated
source "$(dirname "$0")/lib/lab.bash"
packages apsw==3.54.1.0
export OBJECTS='{
 "jsonb() in an index": "CREATE INDEX o ON other(jsonb(x))",
 "median() in a view": "CREATE VIEW o AS SELECT median(x) FROM other",
 "RAISE with an expression": "CREATE TRIGGER o BEFORE INSERT ON other WHEN new.x < 0 BEGIN SELECT RAISE(ABORT, new.x || 1); END",
 "a number with _": "CREATE VIEW o AS SELECT 1_000",
 "ORDER BY in an aggregate": "CREATE VIEW o AS SELECT group_concat(x ORDER BY x) FROM other"
}'
"$python" - <<'PY'
import json, os
import apsw
from lab import WORK

for number, sql in enumerate(json.loads(os.environ["OBJECTS"]).values()):
    db = apsw.Connection(str(WORK / f"{number}.db"))
    db.execute("CREATE TABLE plain(x); INSERT INTO plain VALUES (1); CREATE TABLE other(x)")
    db.execute(sql)
    db.close()
PY
packages apsw==3.43.2.0
"$python" - <<'PY'
import json, os
import apsw
from lab import WORK, error_of, expect, finish

print("read by SQLite", apsw.sqlite_lib_version())
for number, what in enumerate(json.loads(os.environ["OBJECTS"])):
    db = apsw.Connection(str(WORK / f"{number}.db"))
    error = error_of(lambda: list(db.execute("SELECT * FROM plain")))
    print(f"  {error}")
    kind = error.partition(" (")[0].removeprefix("CorruptError: ")
    expect(f"{what}: SELECT from another table", kind, "malformed database schema" if number > 1 else "none")
finish()
PY
