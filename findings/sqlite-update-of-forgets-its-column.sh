#!/usr/bin/env bash
# SQLite: a trigger AFTER UPDATE OF is silent for generated columns, for other names of the rowid, and for a column that
# was dropped.
#
# Versions:  SQLite 3.54.1 (apsw 3.54.1.0)
# Guess:     UPDATE OF c fires when c may have changed, and a name that the table doesn't have is an error, at the latest when the
#            column is dropped.
# Behaviour: The list is compared with the names that the statement writes, and with nothing else. A generated column is
#            written by none, so its trigger never fires, stored or not. SET rowid changes id, the INTEGER PRIMARY KEY,
#            without UPDATE OF id. Any name is accepted. RENAME COLUMN alters the list; DROP COLUMN leaves it,
#            though it refuses a trigger whose body has the column, and a later column of that name wakes the trigger
#            up.
# For users: Audit triggers go quiet without an error. Name the columns that a generated one is made of, or say AFTER UPDATE
#            with WHEN OLD.g IS NOT NEW.g: that works for every name and makes DROP COLUMN object.
#
# Output:
#   UPDATE OF g, g changed from 2 to 4: []
#   WHEN OLD.g IS NOT NEW.g: ['when']
#   UPDATE OF id, SET id: ['id']
#   UPDATE OF id, SET rowid: []
#   UPDATE OF nowhere is refused: none
#   DROP COLUMN of the column that is listed: none
#   the list after that: price
#   DROP COLUMN of the column in WHEN: error in trigger t_when after drop column: no such column: OLD.b
#   after ADD COLUMN price: ['price']
#   as stated
source "$(dirname "$0")/lib/lab.bash"
packages apsw==3.54.1.0
"$python" - <<'PY'
import re

import apsw
from lab import error_of, expect, finish

db = apsw.Connection(":memory:")
db.execute("CREATE TABLE fired(what)")


def trigger(name, of, when=""):
    db.execute(f"CREATE TRIGGER t_{name} AFTER UPDATE {of} ON t {when} BEGIN INSERT INTO fired VALUES ('{name}'); END")


def fired_by(sql):
    db.execute("DELETE FROM fired")
    db.execute(sql)
    return [what for (what,) in db.execute("SELECT what FROM fired ORDER BY what")]


db.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, a INT, b INT, price INT, g INT AS (a * 2))")
db.execute("INSERT INTO t(id, a) VALUES (1, 1)")
trigger("g", "OF g")
expect("UPDATE OF g, g changed from 2 to 4", fired_by("UPDATE t SET a = 2"), [])
trigger("when", "", "WHEN OLD.g IS NOT NEW.g")
expect("WHEN OLD.g IS NOT NEW.g", fired_by("UPDATE t SET a = 3"), ["when"])

trigger("id", "OF id")
expect("UPDATE OF id, SET id", fired_by("UPDATE t SET id = 7"), ["id"])
expect("UPDATE OF id, SET rowid", fired_by("UPDATE t SET rowid = 8"), [])
expect("UPDATE OF nowhere is refused", error_of(lambda: trigger("nowhere", "OF nowhere")), "none")

trigger("price", "OF cost")
db.execute("ALTER TABLE t RENAME COLUMN price TO cost; ALTER TABLE t RENAME COLUMN cost TO price")
expect("DROP COLUMN of the column that is listed", error_of(lambda: db.execute("ALTER TABLE t DROP COLUMN price")), "none")
sql = db.execute("SELECT sql FROM sqlite_schema WHERE name = 't_price'").get
expect("the list after that", re.search(r"OF \"?(\w+)\"? ON", sql)[1], "price")
db.execute("DROP TRIGGER t_when")
trigger("when", "", "WHEN OLD.b IS NOT NEW.b")
stated = "error in trigger t_when after drop column: no such column: OLD.b"
expect("DROP COLUMN of the column in WHEN", error_of(lambda: db.execute("ALTER TABLE t DROP COLUMN b")), stated)
db.execute("ALTER TABLE t ADD COLUMN price INT")
expect("after ADD COLUMN price", fired_by("UPDATE t SET price = 5"), ["price"])
finish()
PY
