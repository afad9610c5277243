"""The scratch tables of one replicated table: in ``temp``, created when a statement first names them.

To create a table SQLite walks through all tables of ``temp``, so a database with many tables gets none for those that
are never written.

Invariant: a scratch table exists when its name is returned. SQLite is asked each time, because a rollback of a
transaction or savepoint also removes the table; a new one is empty.
"""

from __future__ import annotations

from collections.abc import Callable

import apsw

from harmonylite.db.tracking.triggers import log_columns
from harmonylite.schema.shape import TableShape
from harmonylite.schema.sql import PRIVATE, quote

BY_KEY = ("logged", "touched", "pending")
ROWS = ("before", "own", "image", "kept", "flown")
PLAIN = ("incoming", "waiting", "displaced")
NUMBERS = "numbers"
SCRATCH = (*BY_KEY, *ROWS, *PLAIN, NUMBERS)
"""Their purposes: see `harmonylite.db.tracking.tracked_table`; the numbers, `harmonylite.db.apply.numbers`."""


class Scratch:
    """The scratch tables of the table with number ``number`` and ``shape``, on one connection."""

    def __init__(self, connection: apsw.Connection, number: int, shape: TableShape) -> None:
        self._connection, self._shape = connection, shape
        self.plain = {kind: f"{PRIVATE}{kind}_{number}" for kind in SCRATCH}
        self._names = {kind: f"temp.{quote(name)}" for kind, name in self.plain.items()}

    def name(self, kind: str) -> str:
        """Return the qualified name of one of them, which exists now."""
        if not self._is_there(kind):
            for sql in self._make(kind):
                self._connection.execute(sql)
        return self._names[kind]

    def empty(self, kind: str) -> None:
        """Delete all rows of one of them."""
        if self._is_there(kind):
            self._connection.execute(f"DELETE FROM {self._names[kind]}")

    def drop(self) -> None:
        """Drop those that exist: the table that had this number before may have had another shape."""
        for kind in SCRATCH:
            if self._is_there(kind):
                self._connection.execute(f"DROP TABLE {self._names[kind]}")

    def within(self, sql: str) -> Callable[[], str]:
        """Return a function that returns ``sql`` and creates the scratch tables that it names."""
        kinds = [kind for kind, name in self._names.items() if name in sql]

        def ready() -> str:
            for kind in kinds:
                self.name(kind)
            return sql

        return ready

    def _is_there(self, kind: str) -> bool:
        return self._connection.table_exists("temp", self.plain[kind])

    def _make(self, kind: str) -> list[str]:
        """Return the statements that create one of them."""
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
