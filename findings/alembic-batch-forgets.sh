#!/usr/bin/env bash
# Alembic: batch mode on SQLite silently leaves out parts of a table's definition, ON DELETE CASCADE among them, and
# renumbers rowids.
#
# Versions:  alembic 1.20.1, SQLAlchemy 2.1.9
# Guess:     batch_alter_table copies the table with one column altered; what SQLite enforces stays, apart from what
#            its page warns of.
# Behaviour: The new table is built from what SQLAlchemy reflects. Without a word go: a column's REFERENCES ... ON
#            DELETE CASCADE (the same as a table constraint stays), COLLATE NOCASE, a column's CHECK (a named CHECK
#            of the table stays), AUTOINCREMENT, UNIQUE ... ON CONFLICT, COLLATE and DESC of an index, every
#            trigger. Rows of a table without a key get new rowids.
# For users: Each node's file that is migrated loses it. Compare sqlite_master before and after a batch migration; pass
#            copy_from= with the whole table, and create triggers again in the same migration.
#
# Output:
#   kept: REFERENCES of a column: ON DELETE CASCADE: False
#   kept: FOREIGN KEY of the table: ON DELETE SET NULL: True
#   kept: COLLATE NOCASE of a column or an index: False
#   kept: CHECK of a column: False
#   kept: CHECK of the table, with a name: True
#   kept: AUTOINCREMENT: False
#   kept: UNIQUE ON CONFLICT REPLACE: False
#   kept: DESC of an index: False
#   kept: the trigger: False
#   rowids of b and c in the table without a key: [(1, 'b'), (2, 'c')]
#   as stated
source "$(dirname "$0")/lib/lab.bash"
packages alembic==1.20.1 SQLAlchemy==2.1.9
"$python" -W ignore - <<'PY'
import sqlite3
import sqlalchemy
from alembic.migration import MigrationContext
from alembic.operations import Operations
from lab import WORK, expect, finish

TABLES = """
CREATE TABLE p(id INTEGER PRIMARY KEY);
CREATE TABLE log(x);
CREATE TABLE t(
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT COLLATE NOCASE,
    n INTEGER CHECK (n > 0),
    m INTEGER UNIQUE ON CONFLICT REPLACE,
    p INTEGER REFERENCES p(id) ON DELETE CASCADE,
    q INTEGER,
    note TEXT,
    CONSTRAINT small CHECK (q < 10),
    FOREIGN KEY (q) REFERENCES p(id) ON DELETE SET NULL
);
CREATE INDEX by_name ON t(name COLLATE NOCASE DESC);
CREATE TRIGGER noted AFTER INSERT ON t BEGIN INSERT INTO log VALUES (new.id); END;
CREATE TABLE keyless(x TEXT, note TEXT);
INSERT INTO keyless VALUES ('a', ''), ('b', ''), ('c', '');
DELETE FROM keyless WHERE x = 'a';
"""
PARTS = {
    "REFERENCES of a column: ON DELETE CASCADE": ("ON DELETE CASCADE", False),
    "FOREIGN KEY of the table: ON DELETE SET NULL": ("ON DELETE SET NULL", True),
    "COLLATE NOCASE of a column or an index": ("NOCASE", False),
    "CHECK of a column": ("n > 0", False),
    "CHECK of the table, with a name": ("q < 10", True),
    "AUTOINCREMENT": ("AUTOINCREMENT", False),
    "UNIQUE ON CONFLICT REPLACE": ("ON CONFLICT", False),
    "DESC of an index": ("DESC", False),
    "the trigger": ("TRIGGER", False),
}
path = WORK / "a.db"
db = sqlite3.connect(path)
db.executescript(TABLES)


def schema():
    return " ".join(row[0] for row in db.execute("SELECT sql FROM sqlite_master WHERE tbl_name = 't' AND sql IS NOT NULL"))


assert all(text in schema() for text, _ in PARTS.values())
with sqlalchemy.create_engine(f"sqlite:///{path}").connect() as connection:
    migration = Operations(MigrationContext.configure(connection))
    for table in ("t", "keyless"):
        with migration.batch_alter_table(table) as batch:
            batch.alter_column("note", nullable=False)
    connection.commit()
after = schema()
for what, (text, kept) in PARTS.items():
    expect(f"kept: {what}", text in after, kept)
expect("rowids of b and c in the table without a key", db.execute("SELECT rowid, x FROM keyless").fetchall(), [(1, "b"), (2, "c")])
finish()
PY
