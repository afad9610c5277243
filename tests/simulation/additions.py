"""Additions to the schema, made by any application at any time: drawn for some of the seeds, where they travel."""

from __future__ import annotations

from random import Random

import apsw

TABLES = ("x1", "x2")
COLUMNS = ("p", "q", "r", "s")
KEYS = ("a", "b", "c")
VALUES = (1, 2.5, "x", "y", None, b"z")


def travels(seed: int) -> bool:
    """Return whether the applications of a schedule add to their schema."""
    return seed % 7 == 2


def columns_of(connection: apsw.Connection, table: str) -> list[str]:
    """Return the columns of a table beside its key, none where it is not there."""
    found = connection.execute("SELECT name FROM pragma_table_info(?) WHERE name <> 'id'", (table,))
    return [name for (name,) in found]


def transaction(rng: Random, connection: apsw.Connection) -> None:
    """Commit additions and rows together."""
    connection.execute("BEGIN IMMEDIATE")
    for _ in range(rng.choice((1, 1, 2, 4))):
        _step(rng, connection, rng.choice(TABLES))
    connection.execute("ROLLBACK" if rng.random() < 0.05 else "COMMIT")


def _step(rng: Random, connection: apsw.Connection, table: str) -> None:
    there, chance = columns_of(connection, table), rng.random()
    if not there:
        kinds = ", ".join(f"{c} DEFAULT 'd{c}'" for c in rng.sample(COLUMNS, rng.randint(1, 3)))
        tail = rng.choice(("", " WITHOUT ROWID"))
        connection.execute(f"CREATE TABLE {table}(id TEXT PRIMARY KEY NOT NULL, {kinds}){tail}")
    elif chance < 0.15 and len(there) < len(COLUMNS):
        column = rng.choice([c for c in COLUMNS if c not in there])
        connection.execute(f"ALTER TABLE {table} ADD COLUMN {column} DEFAULT 'd{column}'")
    elif chance < 0.22:
        connection.execute(f"CREATE INDEX IF NOT EXISTS {table}_{there[0]} ON {table}({there[0]})")
    elif chance < 0.30:
        connection.execute(f"PRAGMA user_version = {rng.randint(1, 9)}")
    elif chance < 0.36:
        connection.execute(f"CREATE VIEW IF NOT EXISTS {table}_seen AS SELECT id FROM {table}")
    elif chance < 0.46:
        connection.execute(f"DELETE FROM {table} WHERE id = ?", (rng.choice(KEYS),))
    elif chance < 0.70:
        sets = ", ".join(f"{c} = ?" for c in there)
        values = [rng.choice(VALUES) for _ in there]
        connection.execute(f"UPDATE {table} SET {sets} WHERE id = ?", (*values, rng.choice(KEYS)))
    else:
        some = [c for c in there if rng.random() < 0.7]
        names, places = ", ".join(["id", *some]), ", ".join("?" for _ in ["id", *some])
        values = [rng.choice(KEYS), *(rng.choice(VALUES) for _ in some)]
        connection.execute(f"INSERT OR REPLACE INTO {table}({names}) VALUES ({places})", values)


def objects(connection: apsw.Connection) -> set[tuple[str, ...]]:
    """Return what stands of additions in a file: objects, columns, and the file's number."""
    listed = connection.execute("SELECT type, name FROM sqlite_schema WHERE name GLOB 'x[12]*'")
    found = {("object", *row) for row in listed}
    found.update(("column", table, column) for table in TABLES for column in columns_of(connection, table))
    return found | {("user_version", str(connection.execute("PRAGMA user_version").get))}
