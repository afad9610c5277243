"""What each library for Python does beside a node: ``orm.py LIBRARY values|timeout|think FILE [COUNT MS]``.

Each adapter gives a connection of its library two things: ``execute`` of a statement with values, and ``transaction``,
the library's own, as its guide shows it. The environment is that of the libraries, not the node's.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

LARGEST = {"libsql": 2**31 - 1}
"""What is above becomes REAL there."""
VALUES = [("null", None), ("real", 0.1), ("text", "gr\u00fc\u00df'e"), ("blob", b"\0\xff\0")]


class Plain:
    """A module of the DB-API, or apsw: transactions by statements."""

    def __init__(self, connection: Any) -> None:
        self.cursor = connection.cursor()

    def execute(self, sql: str, *values: object) -> Any:
        return [tuple(row) for row in self.cursor.execute(sql, values).fetchall() or ()]

    @contextmanager
    def transaction(self) -> Iterator[None]:
        self.execute("BEGIN")
        try:
            yield
            self.execute("COMMIT")
        except BaseException:
            with suppress(Exception):
                self.execute("ROLLBACK")
            raise


def cpython(file: str) -> Plain:
    import sqlite3

    return Plain(sqlite3.connect(file, isolation_level=None))


def apsw(file: str) -> Plain:
    import apsw

    return Plain(apsw.Connection(file))


def libsql(file: str) -> Plain:
    import libsql

    return Plain(libsql.connect(file, isolation_level=None))


def turso(file: str) -> Plain:
    import turso

    return Plain(turso.connect(file, isolation_level=None))


class Sqlalchemy:
    """An engine, with `begin`."""

    def __init__(self, file: str) -> None:
        import sqlalchemy

        self.connection = sqlalchemy.create_engine(f"sqlite:///{file}").connect()

    def execute(self, sql: str, *values: object) -> Any:
        found = self.connection.exec_driver_sql(sql, values)
        return [tuple(row) for row in found] if found.returns_rows else []

    def transaction(self) -> Any:
        self.connection.rollback()
        return self.connection.begin()


class Django:
    """The connection of a project, with `atomic`."""

    def __init__(self, file: str) -> None:
        from django.conf import settings
        from django.db import connection, transaction

        one = {"ENGINE": "django.db.backends.sqlite3", "NAME": file}
        settings.configure(DATABASES={"default": one})
        self.connection, self.transaction = connection, transaction.atomic

    def execute(self, sql: str, *values: object) -> Any:
        with self.connection.cursor() as cursor:
            cursor.execute(sql.replace("?", "%s"), values or None)
            return cursor.fetchall() if cursor.description else []


class Peewee:
    """A database, with `atomic`."""

    def __init__(self, file: str) -> None:
        import peewee

        self.database = peewee.SqliteDatabase(file)
        self.transaction = self.database.atomic

    def execute(self, sql: str, *values: object) -> Any:
        cursor = self.database.execute_sql(sql, values)
        return cursor.fetchall() if cursor.description else []


LIBRARIES: dict[str, Callable[[str], Any]] = {
    "cpython": cpython,
    "apsw": apsw,
    "libsql": libsql,
    "turso": turso,
    "sqlalchemy": Sqlalchemy,
    "django": Django,
    "peewee": Peewee,
}


def values(database: Any, largest: int) -> None:
    """Read what the other node wrote, and write a value of each kind, in one transaction."""
    with database.transaction():
        ((seen,),) = database.execute("SELECT value FROM v WHERE id = 'theirs'")
        for name, value in (*VALUES, ("integer", largest), ("read", seen)):
            database.execute("INSERT INTO v VALUES (?, ?)", name, value)


def think(database: Any, count: int, milliseconds: int) -> int:
    """Return how many of ``count`` transactions fail that read, think and write."""
    failed = 0
    for number in range(count):
        try:
            with database.transaction():
                database.execute("SELECT n FROM t WHERE id = 1")
                time.sleep(milliseconds / 1000)
                database.execute("UPDATE t SET n = ? WHERE id = 1", number)
        except Exception as error:  # noqa: BLE001  # each library has its own
            print(type(error).__name__, error, file=sys.stderr)
            failed += 1
        time.sleep(0.002)
    return failed


def main() -> None:
    name, what, file, *numbers = sys.argv[1:]
    database = LIBRARIES[name](file)
    if what == "timeout":
        print(database.execute("PRAGMA busy_timeout")[0][0])
        return
    if name in ("apsw", "libsql"):
        database.execute("PRAGMA busy_timeout = 5000")
    if what == "values":
        values(database, LARGEST.get(name, 2**63 - 1))
    else:
        print(think(database, *map(int, numbers)))


if __name__ == "__main__":
    main()
