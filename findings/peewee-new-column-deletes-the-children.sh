#!/usr/bin/env bash
# peewee: playhouse.migrate's add_column(), with a default, deletes the rows that refer to the table, and ids come again.
#
# Versions:  peewee 4.5.3
# Guess:     A column is added by ALTER TABLE ADD COLUMN. Where peewee has to rebuild a table, it takes care of foreign keys.
# Behaviour: A field without null=True is added, the default is written into all rows, and then NOT NULL is set by a rebuild:
#            copy, DROP TABLE, rename. Foreign keys stay on, so the DROP deletes all rows, and ON DELETE CASCADE takes
#            the children along, with and without a transaction. Triggers on the table are gone; AUTOINCREMENT counts from
#            the largest id that is left, so an id that was deleted is given out again. add_not_null(),
#            drop_not_null() and alter_column_type() do the same. With null=True nothing of this happens.
# For users: The deletions are real and travel to every node. PRAGMA foreign_keys = OFF on the connection that migrates,
#            before it begins a transaction; create triggers again. Or add the field with null=True and fill it.
#
# Output:
#   add_column, null=True: children 2, triggers 1, next id 10
#   add_column, default=3: children 0, triggers 0, next id 3
#   add_not_null: children 0, triggers 0, next id 3
#   drop_not_null: children 0, triggers 0, next id 3
#   alter_column_type: children 0, triggers 0, next id 3
#   add_column, default=3, foreign_keys = OFF: children 2, triggers 0, next id 3
#   as stated
source "$(dirname "$0")/lib/lab.bash"
packages peewee==4.5.3
"$python" - <<'PY'
from lab import expect, finish
from peewee import IntegerField, SqliteDatabase, TextField
from playhouse.migrate import SqliteMigrator, migrate

TABLES = """
CREATE TABLE parent(id INTEGER PRIMARY KEY AUTOINCREMENT, note TEXT NOT NULL, more TEXT);
CREATE TABLE child(id INTEGER PRIMARY KEY, parent REFERENCES parent ON DELETE CASCADE);
CREATE TABLE log(x);
CREATE TRIGGER mine AFTER UPDATE ON parent BEGIN INSERT INTO log VALUES (new.id); END;
INSERT INTO parent VALUES (1, 'a', 'a'), (2, 'b', 'b'), (9, 'c', 'c');
DELETE FROM parent WHERE id = 9;
INSERT INTO child VALUES (1, 1), (2, 2);
"""


def after(change, foreign_keys=1):
    db = SqliteDatabase(":memory:", pragmas={"foreign_keys": 1})
    db.connect()
    db.connection().executescript(TABLES)
    db.foreign_keys = foreign_keys
    migrate(change(SqliteMigrator(db)))
    (children,) = db.execute_sql("SELECT count(*) FROM child").fetchone()
    (triggers,) = db.execute_sql("SELECT count(*) FROM sqlite_master WHERE type = 'trigger'").fetchone()
    (last,) = db.execute_sql("SELECT seq FROM sqlite_sequence WHERE name = 'parent'").fetchone()
    return f"children {children}, triggers {triggers}, next id {last + 1}"


KEPT, LOST = "children 2, triggers 1, next id 10", "children 0, triggers 0, next id 3"
expect("add_column, null=True", after(lambda m: m.add_column("parent", "z", IntegerField(null=True))), KEPT)
expect("add_column, default=3", after(lambda m: m.add_column("parent", "z", IntegerField(default=3))), LOST)
expect("add_not_null", after(lambda m: m.add_not_null("parent", "more")), LOST)
expect("drop_not_null", after(lambda m: m.drop_not_null("parent", "note")), LOST)
expect("alter_column_type", after(lambda m: m.alter_column_type("parent", "more", TextField())), LOST)
off = after(lambda m: m.add_column("parent", "z", IntegerField(default=3)), foreign_keys=0)
expect("add_column, default=3, foreign_keys = OFF", off, "children 2, triggers 0, next id 3")
finish()
PY
