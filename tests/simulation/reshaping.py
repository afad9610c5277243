"""Changes of a schema of every kind, made by any application at any time: drawn for some of the seeds."""

from __future__ import annotations

from random import Random

import apsw

from tests.simulation.additions import KEYS, VALUES, columns_of

TABLES = ("x1", "x2", "x3")
COLUMNS = ("p", "q", "r", "s")
TYPES = ("", " TEXT", " INTEGER")


def transaction(rng: Random, connection: apsw.Connection, *, changes: bool = True) -> list[str]:
    """Commit changes and rows together, or rows alone; return the statements."""
    done: list[str] = []

    def execute(sql: str, bindings: tuple[object, ...] = ()) -> None:
        done.append(f"{sql} {bindings or ''}")
        connection.execute(sql, bindings)

    connection.execute("BEGIN IMMEDIATE")
    for _ in range(rng.choice((1, 1, 2, 4))):
        connection.execute("SAVEPOINT step")
        try:
            _step(rng, connection, execute, changes=changes)
        except (apsw.SQLError, apsw.ConstraintError) as error:  # an application may be refused, too
            connection.execute("ROLLBACK TO step")
            done.append(f"-- {error}")
        connection.execute("RELEASE step")
    if rng.random() < 0.05:
        connection.execute("ROLLBACK")
        return ["-- rolled back"]
    connection.execute("COMMIT")
    return done


def _step(rng, connection, execute, *, changes) -> None:  # type: ignore[no-untyped-def]
    table, chance = rng.choice(TABLES), rng.random() if changes else rng.uniform(0.4, 1)
    there = columns_of(connection, table)
    if not there and not changes:
        return
    if not there:
        execute(_create(rng, table, rng.sample(COLUMNS, rng.randint(1, 3))))
    elif chance < 0.05:
        execute(f"DROP TABLE {table}")
    elif chance < 0.10:
        free = [name for name in TABLES if not columns_of(connection, name)]
        if free:
            execute(f"ALTER TABLE {table} RENAME TO {rng.choice(free)}")
    elif chance < 0.15 and len(there) < len(COLUMNS):
        column = rng.choice([c for c in COLUMNS if c not in there])
        execute(f"ALTER TABLE {table} ADD COLUMN {column}{rng.choice(TYPES)} DEFAULT 'd{column}'")
    elif chance < 0.19 and len(there) > 1:
        execute(f"ALTER TABLE {table} DROP COLUMN {rng.choice(there)}")
    elif chance < 0.23 and len(there) < len(COLUMNS):
        to = rng.choice([c for c in COLUMNS if c not in there])
        execute(f"ALTER TABLE {table} RENAME COLUMN {rng.choice(there)} TO {to}")
    elif chance < 0.28:
        _rebuild(rng, connection, execute, table, there)
    elif chance < 0.34:
        _index(rng, connection, execute, table, there)
    elif chance < 0.37:
        execute(f"PRAGMA user_version = {rng.randint(1, 9)}")
    elif chance < 0.40:
        gone = rng.random() < 0.5
        execute(f"DROP VIEW IF EXISTS {table}_seen" if gone else f"CREATE VIEW IF NOT EXISTS {table}_seen AS SELECT id FROM {table}")
    elif chance < 0.50:
        execute(f"DELETE FROM {table} WHERE id = ?", (rng.choice(KEYS),))
    elif chance < 0.70:
        sets = ", ".join(f"{c} = ?" for c in there)
        execute(f"UPDATE {table} SET {sets} WHERE id = ?", (*(rng.choice(VALUES) for _ in there), rng.choice(KEYS)))
    else:
        some = [c for c in there if rng.random() < 0.7]
        names, places = ", ".join(["id", *some]), ", ".join("?" for _ in ["id", *some])
        execute(
            f"INSERT OR REPLACE INTO {table}({names}) VALUES ({places})",
            (rng.choice(KEYS), *(rng.choice(VALUES) for _ in some)),
        )


def _create(rng: Random, table: str, columns: list[str]) -> str:
    kinds = ", ".join(f"{c}{rng.choice(TYPES)} DEFAULT 'd{c}'" for c in columns)
    return f"CREATE TABLE {table}(id TEXT PRIMARY KEY NOT NULL, {kinds}){rng.choice(('', ' WITHOUT ROWID'))}"


def _rebuild(rng, connection, execute, table, there) -> None:  # type: ignore[no-untyped-def]
    """Make a table again with other types and columns, the way migration tools do."""
    kept = [c for c in there if rng.random() < 0.8] or there[:1]
    came = [c for c in COLUMNS if c not in there and rng.random() < 0.3]
    columns = [*kept, *came]
    rng.shuffle(columns)
    names = ", ".join(["id", *kept])
    execute(_create(rng, f"new_{table}", columns))
    execute(f"INSERT INTO new_{table}({names}) SELECT {names} FROM {table}")
    execute(f"DROP TABLE {table}")
    execute(f"ALTER TABLE new_{table} RENAME TO {table}")


def _index(rng, connection, execute, table, there) -> None:  # type: ignore[no-untyped-def]
    name = f"{table}_i{rng.randint(1, 2)}"
    if rng.random() < 0.4:
        execute(f"DROP INDEX IF EXISTS {name}")
    else:
        execute(f"CREATE {rng.choice(('', '', 'UNIQUE '))}INDEX {name} ON {table}({rng.choice(there)})")


def objects(connection: apsw.Connection) -> set[tuple[str, ...]]:
    """Return what there is in a file of what changes: objects, columns, and the file's number."""
    listed = connection.execute("SELECT type, name, tbl_name FROM sqlite_schema WHERE name GLOB 'x[123]*'")
    found = {("object", *row) for row in listed}
    for table in TABLES:
        declared = "SELECT name, type, dflt_value, pk FROM pragma_table_info(?)"
        found.update(("column", table, *map(str, row)) for row in connection.execute(declared, (table,)))
    return found | {("user_version", str(connection.execute("PRAGMA user_version").get))}
