"""Changes of a schema of every kind, made by applications at any time, with rows before and behind them."""

from __future__ import annotations

from random import Random

import apsw

from tests.simulation.additions import KEYS, VALUES, columns_of

TABLES = ("x1", "x2", "x3")
COLUMNS = ("p", "q", "r", "s")
TYPES = ("", " TEXT", " INTEGER")


def transaction(rng: Random, connection: apsw.Connection, *, changes: bool) -> list[str]:
    """Commit rows, and ``changes`` of the schema, together; return what was done."""
    application = Application(rng, connection)
    connection.execute("BEGIN IMMEDIATE")
    for _ in range(rng.choice((1, 1, 2, 4))):
        connection.execute("SAVEPOINT step")
        try:
            application.step(changes=changes)
        except (apsw.SQLError, apsw.ConstraintError) as error:  # an application may be refused, too
            connection.execute("ROLLBACK TO step")
            application.done.append(f"refused: {error}")
        connection.execute("RELEASE step")
    if rng.random() < 0.05:
        connection.execute("ROLLBACK")
        return ["rolled back"]
    connection.execute("COMMIT")
    return application.done


class Application:
    """Changes the tables of one database, and their rows; ``done``: its statements."""

    def __init__(self, rng: Random, connection: apsw.Connection) -> None:
        self.rng, self.connection = rng, connection
        self.done: list[str] = []

    def step(self, *, changes: bool) -> None:
        """Change a table or, without ``changes``, its rows."""
        table = self.rng.choice(TABLES)
        chance = self.rng.random() if changes else self.rng.uniform(0.4, 1)
        there = columns_of(self.connection, table)
        if not there:
            if changes:
                self._execute(self._create(table, self.rng.sample(COLUMNS, self.rng.randint(1, 3))))
        elif chance < 0.23:
            self._alter(table, there, chance)
        elif chance < 0.28:
            self._rebuild(table, there)
        elif chance < 0.34:
            self._index(table, there)
        elif chance < 0.37:
            self._execute(f"PRAGMA user_version = {self.rng.randint(1, 9)}")
        elif chance < 0.40:
            gone = self.rng.random() < 0.5
            made = f"CREATE VIEW IF NOT EXISTS {table}_seen AS SELECT id FROM {table}"
            self._execute(f"DROP VIEW IF EXISTS {table}_seen" if gone else made)
        else:
            self._write(table, there, chance)

    def _execute(self, sql: str, bindings: tuple[object, ...] = ()) -> None:
        self.done.append(f"{sql} {bindings or ''}")
        self.connection.execute(sql, bindings)

    def _alter(self, table: str, there: list[str], chance: float) -> None:
        free = [column for column in COLUMNS if column not in there]
        if chance < 0.05:
            self._execute(f"DROP TABLE {table}")
        elif chance < 0.10:
            names = [name for name in TABLES if not columns_of(self.connection, name)]
            if names:
                self._execute(f"ALTER TABLE {table} RENAME TO {self.rng.choice(names)}")
        elif chance < 0.15 and free:
            column = self.rng.choice(free)
            self._execute(f"ALTER TABLE {table} ADD COLUMN {column}{self.rng.choice(TYPES)} DEFAULT 'd{column}'")
        elif chance < 0.19 and len(there) > 1:
            self._execute(f"ALTER TABLE {table} DROP COLUMN {self.rng.choice(there)}")
        elif free:
            to = self.rng.choice(free)
            self._execute(f"ALTER TABLE {table} RENAME COLUMN {self.rng.choice(there)} TO {to}")

    def _rebuild(self, table: str, there: list[str]) -> None:
        """Make a table again with other types and columns, the way migration tools do."""
        kept = [c for c in there if self.rng.random() < 0.8] or there[:1]
        came = [c for c in COLUMNS if c not in there and self.rng.random() < 0.3]
        columns = [*kept, *came]
        self.rng.shuffle(columns)
        names = ", ".join(["id", *kept])
        self._execute(self._create(f"new_{table}", columns))
        self._execute(f"INSERT INTO new_{table}({names}) SELECT {names} FROM {table}")
        self._execute(f"DROP TABLE {table}")
        self._execute(f"ALTER TABLE new_{table} RENAME TO {table}")

    def _index(self, table: str, there: list[str]) -> None:
        name = f"{table}_i{self.rng.randint(1, 2)}"
        if self.rng.random() < 0.4:
            self._execute(f"DROP INDEX IF EXISTS {name}")
        else:
            unique = self.rng.choice(("", "", "UNIQUE "))
            self._execute(f"CREATE {unique}INDEX {name} ON {table}({self.rng.choice(there)})")

    def _write(self, table: str, there: list[str], chance: float) -> None:
        rng = self.rng
        if chance < 0.50:
            self._execute(f"DELETE FROM {table} WHERE id = ?", (rng.choice(KEYS),))
        elif chance < 0.70:
            sets = ", ".join(f"{c} = ?" for c in there)
            values = [rng.choice(VALUES) for _ in there]
            self._execute(f"UPDATE {table} SET {sets} WHERE id = ?", (*values, rng.choice(KEYS)))
        else:
            some = [c for c in there if rng.random() < 0.7]
            names, places = ", ".join(["id", *some]), ", ".join("?" for _ in ["id", *some])
            values = [rng.choice(VALUES) for _ in some]
            self._execute(f"INSERT OR REPLACE INTO {table}({names}) VALUES ({places})", (rng.choice(KEYS), *values))

    def _create(self, table: str, columns: list[str]) -> str:
        kinds = ", ".join(f"{c}{self.rng.choice(TYPES)} DEFAULT 'd{c}'" for c in columns)
        rowid = self.rng.choice(("", " WITHOUT ROWID"))
        return f"CREATE TABLE {table}(id TEXT PRIMARY KEY NOT NULL, {kinds}){rowid}"


def objects(connection: apsw.Connection) -> set[tuple[str, ...]]:
    """Return what there is in a file of what changes: objects, columns, and the file's number."""
    listed = connection.execute("SELECT type, name, tbl_name FROM sqlite_schema WHERE name GLOB 'x[123]*'")
    found = {("object", *row) for row in listed}
    for table in TABLES:
        declared = "SELECT name, type, dflt_value, pk FROM pragma_table_info(?)"
        found.update(("column", table, *map(str, row)) for row in connection.execute(declared, (table,)))
    return found | {("user_version", str(connection.execute("PRAGMA user_version").get))}
