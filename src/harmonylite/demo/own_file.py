"""A person's own file as a scene: finds tables that the demo may play with, and never touches the file itself.

Invariant: every statement was tried on the first copy, and rolled back, before it is part of the story.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import apsw

from harmonylite.db.connection import mapped, open_file
from harmonylite.demo.digest import ordinary_tables
from harmonylite.demo.scene import Clash, Statement, Work
from harmonylite.errors import ConfigError
from harmonylite.schema.sql import is_private, quote, text

BURST = 25
"""Rows that one site adds, and rows that it changes, in one burst."""

GAP = 10_000
"""Distance between the keys that two sites give to their new rows."""


FOUGHT = (4, 5)
"""Numbers of the rows that the two clashes are about."""


@dataclass(frozen=True, slots=True)
class Table:
    """A table that can be played with.

    ``key``: its primary key. ``free``: columns that can be changed alone. ``columns``: all that can be written.
    """

    name: str
    key: tuple[str, ...]
    free: tuple[str, ...]
    columns: tuple[str, ...]
    rows: int


class OwnFile:
    """See the module. ``source``: the file; it is read once, by SQLite's backup interface."""

    def __init__(self, source: Path) -> None:
        self._source = source
        self.title = f"copies of {source.name}"
        self.file_name = source.name
        self._changed: Table | None = None
        self._grown: Table | None = None
        self._first_key = 0
        self._fought: list[str] = []

    def build(self, target: Path) -> None:
        """Back the file up to ``target`` and look for tables to play with.

        :raises ConfigError: there is no such file, it isn't SQLite, or has no table that the demo can change.
        """
        if not self._source.is_file():
            raise ConfigError(
                f"{self._source}: no such file", advice="name a SQLite file, or none for the built-in shop"
            )
        backup(self._source, target)
        connection = open_file(target)
        try:
            with mapped(f"look into {target}"):
                remove_ours(connection)
                connection.pragma("journal_mode", "wal")
                self._choose(connection)
        finally:
            connection.close()

    def _choose(self, connection: apsw.Connection) -> None:
        found = [table for name in ordinary_tables(connection) if (table := inspect(connection, name))]
        found.sort(key=lambda table: (min(len(table.free), 4), min(table.rows, 500)), reverse=True)
        self._changed = next((t for t in found if len(t.free) >= 2 and self._can_change(connection, t)), None)
        self._grown = next((t for t in found if self._can_grow(connection, t)), None)
        if self._changed is None:
            raise ConfigError(
                f"{self._source}: no table has a primary key, ten rows and two columns that may be changed freely",
                advice="run the demo without a file to see it on the built-in shop",
            )

        self._fought = [literal(connection, self._changed, row) for row in FOUGHT]

    def _can_change(self, connection: apsw.Connection, table: Table) -> bool:
        """Tell whether rows take a change in each free column that the story uses."""
        statements = [change(table, column, "x", nth(table, row)) for column in table.free[:2] for row in range(3)]
        return table.rows >= 10 and possible(connection, statements)

    def _can_grow(self, connection: apsw.Connection, table: Table) -> bool:
        """Tell whether a row can be added as a copy of another under a new integer key."""
        if len(table.key) != 1 or table.rows < 10:
            return False
        top = connection.execute(f"SELECT max({quote(table.key[0])}) FROM {quote(table.name)}").get
        if not isinstance(top, int) or top > 2**62:
            return False
        self._first_key = top + 1
        return possible(connection, [grow(table, top + 1 + site * GAP, site) for site in range(3)])

    def burst(self, site: int, number: int) -> Work:
        """Add rows under keys of the site's own, and change rows that no other site changes in this burst."""
        table = self._table
        column, mark = table.free[number % 2], f" ({number}/{site})"
        step = max(1, table.rows // (3 * BURST))
        count = min(BURST, table.rows // 3)
        rows = range((site - 1) * count * step, site * count * step, step)
        updates = [[change(table, column, mark, nth(table, row))] for row in rows]
        label = f"{len(updates)} rows of {table.name} changed in column {column}"
        left = (f"SELECT count(*) FROM {quote(table.name)} WHERE instr({quote(column)}, {text(mark)})", len(updates))
        if self._grown is None:
            return Work(label, updates, left)
        start = self._first_key + site * GAP + number * BURST
        models = [rows[n % len(rows)] % self._grown.rows for n in range(BURST)]
        inserts = [[grow(self._grown, start + n, model) for n, model in enumerate(models)]]
        return Work(f"{BURST} new rows in {self._grown.name} in one transaction, {label}", inserts + updates, left)

    @property
    def touched(self) -> tuple[str, ...]:
        """The tables that the bursts and clashes write."""
        return tuple({table.name for table in (self._changed, self._grown) if table})

    def two_columns(self) -> Clash:
        """One row, the first two free columns."""
        return self._clash(self._table.free[0], self._table.free[1], 0)

    def one_column(self) -> Clash:
        """One row, the first free column."""
        return self._clash(self._table.free[0], self._table.free[0], 1)

    def question(self) -> None:
        """A stranger's file holds no question that we know."""
        return

    @property
    def _table(self) -> Table:
        assert self._changed is not None, "build comes first"
        return self._changed

    def _clash(self, first: str, second: str, number: int) -> Clash:
        table, where = self._table, self._fought[number]
        columns = ", ".join(quote(name) for name in dict.fromkeys((first, second)))
        show = f"SELECT {columns} FROM {quote(table.name)} WHERE {where}"
        return Clash(
            table.name,
            f"the row of {table.name} where {where}",
            change(table, first, " (one)", where),
            change(table, second, " (two)", where),
            show,
        )


def backup(source: Path, target: Path) -> None:
    """Copy a live SQLite file as SQLite does it: consistent, whatever is being written to it. Raises DatabaseError."""
    with mapped(f"copy {source}"):
        reader = open_file(source, read_only=True)
        writer = open_file(target, create=True)
        try:
            with writer.backup("main", reader, "main") as copy:
                while not copy.done:
                    copy.step(1024)
        finally:
            writer.close()
            reader.close()


def remove_ours(connection: apsw.Connection) -> None:
    """Take out what a node of HarmonyLite left in the copied file: the copies are a cluster of their own."""
    rows = connection.execute("SELECT type, name FROM sqlite_schema ORDER BY type DESC").fetchall()
    for kind, name in rows:
        if is_private(str(name)) and kind in ("table", "trigger", "view"):
            connection.execute(f"DROP {kind} IF EXISTS {quote(str(name))}")


def inspect(connection: apsw.Connection, name: str) -> Table | None:
    """Return what can be done with a table; None when it has no primary key of non-null values."""
    columns = connection.execute("SELECT name, pk, hidden, type FROM pragma_table_xinfo(?)", (name,)).fetchall()
    key = [str(column) for column, pk, _, _ in sorted(columns, key=lambda c: int(str(c[1]))) if pk]
    if not key:
        return None
    bound = {str(c) for (c,) in connection.execute('SELECT "from" FROM pragma_foreign_key_list(?)', (name,))}
    indexes = connection.execute('SELECT name FROM pragma_index_list(?) WHERE "unique"', (name,)).fetchall()
    for (index,) in indexes:
        bound |= {str(c) for (c,) in connection.execute("SELECT name FROM pragma_index_info(?)", (index,))}
    writable = [(str(column), str(kind).upper()) for column, _, hidden, kind in columns if not hidden]
    free = [column for column, kind in writable if column not in bound and column not in key and readable(kind)]
    rows = connection.execute(f"SELECT count(*) FROM {quote(name)}").get
    return Table(name, tuple(key), tuple(free), tuple(column for column, _ in writable), int(str(rows)))


def readable(kind: str) -> bool:
    """Tell whether a column of this declared type holds text, the kind of value that shows a change best."""
    return any(word in kind for word in ("CHAR", "TEXT", "CLOB")) or not kind


def nth(table: Table, row: int) -> str:
    """Return SQL that picks the row number ``row`` by key, as it stood before the story."""
    key = ", ".join(quote(column) for column in table.key)
    return f"({key}) = (SELECT {key} FROM {quote(table.name)} ORDER BY {key} LIMIT 1 OFFSET {row})"


def literal(connection: apsw.Connection, table: Table, row: int) -> str:
    """Return SQL that picks row number ``row`` by its key, spelled out for people to read."""
    values = ", ".join(f"quote({quote(column)})" for column in table.key)
    (found,) = connection.execute(f"SELECT {values} FROM {quote(table.name)} WHERE {nth(table, row)}").fetchall()
    return " AND ".join(f"{quote(column)} = {value}" for column, value in zip(table.key, found, strict=True))


def change(table: Table, column: str, mark: str, where: str) -> Statement:
    """Return the statement that appends ``mark`` to a column of the row at ``where``."""
    name = quote(column)
    return f"UPDATE {quote(table.name)} SET {name} = coalesce({name}, '') || {text(mark)} WHERE {where}", ()


def grow(table: Table, key: int, model: int) -> Statement:
    """Return the statement that adds a copy of row number ``model`` under a new key."""
    others = [quote(column) for column in table.columns if column != table.key[0]]
    into, values = ", ".join([quote(table.key[0]), *others]), ", ".join(["?", *others])
    name = quote(table.name)
    return f"INSERT INTO {name} ({into}) SELECT {values} FROM {name} WHERE {nth(table, model)}", (key,)


def possible(connection: apsw.Connection, statements: list[Statement]) -> bool:
    """Tell whether all of ``statements`` would succeed and change one row each; nothing stays changed."""
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("BEGIN")
    try:
        for sql, values in statements:
            connection.execute(sql, values)
            if connection.changes() != 1:
                return False
    except apsw.Error:
        return False
    finally:
        connection.execute("ROLLBACK")
    return True
