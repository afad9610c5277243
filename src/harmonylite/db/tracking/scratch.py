"""The scratch tables of one replicated table: in ``temp``, made when a statement first names them.

Each table that is made costs SQLite a walk through all that ``temp`` has, so a database of many tables gets none for
those that are never written.

Invariant: a scratch table whose name was given out is there. SQLite is asked each time, for a transaction or a
savepoint that was undone has undone the making, too; what is made then is empty as well.
"""

from __future__ import annotations

from collections.abc import Callable

import apsw

from harmonylite.db.tracking.triggers import log_columns
from harmonylite.schema.shape import TableShape
from harmonylite.schema.sql import PRIVATE, quote

BY_KEY = ("logged", "touched", "pending")
ROWS = ("before", "own", "image")
PLAIN = ("incoming", "waiting", "displaced")
NUMBERS = "numbers"
SCRATCH = (*BY_KEY, *ROWS, *PLAIN, NUMBERS)
"""What they are for: see `harmonylite.db.tracking.tracked_table`; the numbers, `harmonylite.db.apply.numbers`."""


class Scratch:
    """The scratch tables of the table with number ``number`` and ``shape``, on one connection."""

    def __init__(self, connection: apsw.Connection, number: int, shape: TableShape) -> None:
        self._connection, self._shape = connection, shape
        self.plain = {kind: f"{PRIVATE}{kind}_{number}" for kind in SCRATCH}
        self._names = {kind: f"temp.{quote(name)}" for kind, name in self.plain.items()}

    def name(self, kind: str) -> str:
        """Return the qualified name of one of them, which is there now."""
        if not self._is_there(kind):
            for sql in self._make(kind):
                self._connection.execute(sql)
        return self._names[kind]

    def empty(self, kind: str) -> None:
        """Take all rows out of one of them."""
        if self._is_there(kind):
            self._connection.execute(f"DELETE FROM {self._names[kind]}")

    def drop(self) -> None:
        """Drop those that are there: what had this number may have had another shape."""
        for kind in SCRATCH:
            if self._is_there(kind):
                self._connection.execute(f"DROP TABLE {self._names[kind]}")

    def within(self, sql: str) -> Callable[[], str]:
        """Return what gives ``sql``, which is kept, whenever it is to run: those that it names are there then."""
        kinds = [kind for kind, name in self._names.items() if name in sql]

        def ready() -> str:
            for kind in kinds:
                self.name(kind)
            return sql

        return ready

    def _is_there(self, kind: str) -> bool:
        return self._connection.table_exists("temp", self.plain[kind])

    def _make(self, kind: str) -> list[str]:
        """Return the statements that make one of them."""
        shape, name = self._shape, self._names[kind]
        columns = [f"c{i}" for i in range(len(shape.columns))]
        if kind in BY_KEY:
            keys = log_columns(len(shape.keys))
            typed = [f"{key} COLLATE {quote(c.collation)}" for key, c in zip(keys, shape.keys, strict=True)]
            number = ["id INTEGER"] if kind == "logged" else []
            once = f"UNIQUE({', '.join(keys)})"
            return [f"CREATE TABLE {name}({', '.join([*typed, *number, once])})"]
        if kind in ROWS:
            key = [f"c{i} COLLATE {quote(c.collation)}" for i, c in enumerate(shape.keys)]
            return [f"CREATE TABLE {name}({', '.join(columns)})", self._index(kind, key)]
        if kind == NUMBERS:
            named = [f"n{i} COLLATE {quote(shape.column(c).collation)}" for i, c in enumerate(shape.identity)]
            return [f"CREATE TABLE {name}({', '.join(['k INTEGER PRIMARY KEY', *named])})", self._index(kind, named)]
        old = [] if kind == "displaced" else [f"o{i}" for i in range(len(shape.columns))]
        return [f"CREATE TABLE {name}({', '.join([*columns, *old])})"]

    def _index(self, kind: str, columns: list[str]) -> str:
        index = f"temp.{quote(self.plain[kind] + '_key')}"
        return f"CREATE INDEX {index} ON {quote(self.plain[kind])}({', '.join(columns)})"
