#!/usr/bin/env bash
# Django: on SQLite a new column with a default rebuilds the table, and takes triggers and hand-made indexes with
# it; a nullable one doesn't.
#
# Versions:  Django 5.2.19
# Guess:     AddField adds a column. A constant default needs no rebuild, as SQLite's ADD COLUMN takes one.
# Behaviour: IntegerField(null=True) is ALTER TABLE ADD COLUMN, and everything stays. IntegerField(default=3) and
#            (db_default=3) make a new table, copy all rows, drop the old one. Triggers and indexes that Django
#            hasn't made go, without a word.
# For users: HarmonyLite's own triggers come back by themselves. Those of yours don't: create them in a RunSQL after
#            each such operation, or add the column nullable and fill it.
#
# Output:
#   left after IntegerField(null=True): ['fast', 'mine']
#   left after IntegerField(default=3): []
#   left after IntegerField(db_default=3): []
#   as stated
source "$(dirname "$0")/lib/lab.bash"
packages Django==5.2.19
"$python" - <<'PY'
import django
from django.conf import settings
from lab import WORK, expect, finish

settings.configure(DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": str(WORK / "a.db")}})
django.setup()
from django.db import connection, models


class Thing(models.Model):
    name = models.CharField(max_length=20)

    class Meta:
        app_label, db_table = "app", "thing"


def field(name, made):
    made.set_attributes_from_name(name)
    made.model = Thing
    return made


def left(name, made):
    with connection.cursor() as cursor:
        cursor.execute("CREATE TRIGGER IF NOT EXISTS mine AFTER UPDATE ON thing BEGIN INSERT INTO log VALUES (new.id); END")
        cursor.execute("CREATE INDEX IF NOT EXISTS fast ON thing(name COLLATE NOCASE)")
        with connection.schema_editor() as editor:
            editor.add_field(Thing, field(name, made))
        cursor.execute("SELECT name FROM sqlite_master WHERE name IN ('mine', 'fast') ORDER BY name")
        return [row[0] for row in cursor.fetchall()]


with connection.cursor() as cursor:
    cursor.execute("CREATE TABLE log(x)")
with connection.schema_editor() as editor:
    editor.create_model(Thing)
expect("left after IntegerField(null=True)", left("a", models.IntegerField(null=True)), ["fast", "mine"])
expect("left after IntegerField(default=3)", left("b", models.IntegerField(default=3)), [])
expect("left after IntegerField(db_default=3)", left("c", models.IntegerField(db_default=3)), [])
finish()
PY
