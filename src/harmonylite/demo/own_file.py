"""A person's own file as a scene: find tables that the demo can write, and only read the file itself.

Invariant: the whole story is tried on the first copy, and rolled back, before it begins. If no table accepts it, the
copies get one more table, so that the demo works with every SQLite file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import apsw

from harmonylite.db.sqlite.connection import mapped, open_file
from harmonylite.demo.files import backup, ordinary_tables
from harmonylite.demo.scene import Clash, Statement, Workload
from harmonylite.errors import ConfigError, DatabaseDamagedError
from harmonylite.schema.sql import is_private, quote, text

BURST = 25
"""Rows that one site adds, and rows that it changes, in one burst."""

SITES, BURSTS = (1, 2, 3), (1, 2)
"""Who writes in a story, and how often."""

FEWEST = 10
"""Rows that a table must have."""

NOTES = "demo_notes"
"""The table that the copies get if the file has none that accepts the story."""

GAP = 10_000
"""Distance between the keys of two sites' new rows."""

FOUGHT = (4, 5)
"""Numbers of the rows of the two clashes."""


@dataclass(frozen=True, slots=True)
class OwnTable:
    """A table. ``key``: its primary key. ``free``: text columns without constraints. ``columns``: all writable ones.

    ``next``: a key above all others; None if the key is no counted number.
    """

    name: str
    key: tuple[str, ...]
    free: tuple[str, ...]
    columns: tuple[str, ...]
    rows: int
    next: int | None

    def nth(self, row: int) -> str:
        """Return the condition for row number ``row`` in the order of keys."""
        key = ", ".join(map(quote, self.key))
        return f"({key}) = (SELECT {key} FROM {quote(self.name)} ORDER BY {key} LIMIT 1 OFFSET {row})"

    def literal(self, connection: apsw.Connection, row: int) -> str:
        """Return the condition for row number ``row`` with its key spelled out, for people."""
        values = ", ".join(f"quote({quote(column)})" for column in self.key)
        (found,) = connection.execute(f"SELECT {values} FROM {quote(self.name)} WHERE {self.nth(row)}").fetchall()
        return " AND ".join(f"{quote(column)} = {value}" for column, value in zip(self.key, found, strict=True))

    def change(self, column: str, mark: str, where: str) -> Statement:
        """Return the statement that appends ``mark`` to a column of the row at ``where``."""
        name = quote(column)
        return f"UPDATE {quote(self.name)} SET {name} = coalesce({name}, '') || {text(mark)} WHERE {where}", ()

    def grow(self, key: int, model: int) -> Statement:
        """Return the statement that adds a copy of row number ``model`` under a new key."""
        others = [quote(column) for column in self.columns if column != self.key[0]]
        into, values, name = ", ".join([quote(self.key[0]), *others]), ", ".join(["?", *others]), quote(self.name)
        return f"INSERT INTO {name} ({into}) SELECT {values} FROM {name} WHERE {self.nth(model)}", (key,)


class OwnFile:
    """See the module. ``source``: the file, which is read once, by SQLite's backup interface."""

    question = None

    def __init__(self, source: Path) -> None:
        self._source = source
        self.title = f"copies of {source.name}"
        self.file_name = source.name
        self.remark = ""
        self._changed: OwnTable
        self._grown: OwnTable | None = None
        self._fought: list[str] = []

    def build(self, target: Path) -> None:
        """Copy the file to ``target`` and choose tables. Raises ConfigError for no SQLite file, DatabaseError."""
        advice = "name a SQLite file, or none for the built-in shop"
        if not self._source.is_file():
            raise ConfigError(f"{self._source}: no such file", advice=advice)
        try:
            backup(self._source, target)
        except DatabaseDamagedError:
            raise ConfigError(f"{self._source} is not a SQLite file, or is damaged", advice=advice) from None
        with closing(open_file(target)) as connection, mapped(f"look into {target}"):
            remove_ours(connection)
            connection.pragma("journal_mode", "wal")
            if not self._take(connection, ordinary_tables(connection)):
                name = add_notes(connection)
                self.remark = (
                    f"no table of {self.file_name} has a key, {FEWEST} rows and two columns of text that may be changed"
                    f" freely; the copies get one more, {name}"
                )
                taken = self._take(connection, [name])
                assert taken, "it was made for this"

    def _take(self, connection: apsw.Connection, names: Sequence[str]) -> bool:
        """Choose tables that accept the whole story, the one with most to show first; False if none does."""
        found = [table for name in names if (table := inspect(connection, name)) and table.rows >= FEWEST]
        found.sort(key=lambda table: (min(len(table.free), 4), min(table.rows, 500)), reverse=True)
        for self._changed in (table for table in found if len(table.free) >= 2):
            self._fought = [self._changed.literal(connection, row) for row in FOUGHT]
            self._grown = None
            if possible(connection, self._story()):
                for self._grown in (table for table in found if table.next is not None):
                    if possible(connection, self._story()):
                        return True
                self._grown = None
                return True
        return False

    def _story(self) -> Iterator[Statement]:
        """Yield every statement of the story, in a possible order."""
        for number in BURSTS:
            for site in SITES:
                for transaction in self.burst(site, number).transactions:
                    yield from transaction
        for clash in (self.two_columns(), self.one_column()):
            yield from (clash.one, clash.two)

    def burst(self, site: int, number: int) -> Workload:
        """Add rows under the site's own keys, and change rows that no other site changes in this burst."""
        table, grown = self._changed, self._grown
        column, mark = table.free[number % 2], f" ({number}/{site})"
        count = min(BURST, table.rows // len(SITES))
        rows = range((site - 1) * count, site * count)
        updates = [[table.change(column, mark, table.nth(row))] for row in rows]
        label = f"{len(updates)} rows of {table.name} changed in column {column}"
        left = (f"SELECT count(*) FROM {quote(table.name)} WHERE instr({quote(column)}, {text(mark)})", len(updates))
        if grown is None or grown.next is None:
            return Workload(label, updates, left)
        start = grown.next + site * GAP + number * BURST
        inserts = [[grown.grow(start + n, rows[n % len(rows)] % grown.rows) for n in range(BURST)]]
        return Workload(f"{BURST} new rows in {grown.name} in one transaction, {label}", inserts + updates, left)

    @property
    def touched(self) -> tuple[str, ...]:
        """The tables that the bursts and clashes write."""
        return tuple({table.name for table in (self._changed, self._grown) if table})

    def two_columns(self) -> Clash:
        """One row, the first two free columns."""
        return self._clash(self._changed.free[0], self._changed.free[1], self._fought[0])

    def one_column(self) -> Clash:
        """One row, the first free column."""
        return self._clash(self._changed.free[0], self._changed.free[0], self._fought[1])

    def by_hand(self) -> tuple[str, str]:
        """Return a statement that appends to the column of the second clash, and a query that shows it."""
        clash = self.one_column()
        return clash.one[0], clash.show

    def _clash(self, first: str, second: str, where: str) -> Clash:
        table, columns = self._changed, ", ".join(quote(name) for name in dict.fromkeys((first, second)))
        return Clash(
            table.name,
            f"the row of {table.name} where {where}",
            table.change(first, " (one)", where),
            table.change(second, " (two)", where),
            f"SELECT {columns} FROM {quote(table.name)} WHERE {where}",
        )


def add_notes(connection: apsw.Connection) -> str:
    """Add a table under an unused name, which is returned."""
    taken = {str(name).lower() for (name,) in connection.execute("SELECT name FROM sqlite_schema")}
    name = next(n for n in (NOTES, *(f"{NOTES}_{i}" for i in range(2, len(taken) + 3))) if n not in taken)
    connection.execute(f"CREATE TABLE {quote(name)} (id INTEGER PRIMARY KEY, title TEXT NOT NULL, body TEXT NOT NULL)")
    with connection:
        notes = [(f"note {number}", "nothing yet") for number in range(1, 1 + len(SITES) * BURST)]
        connection.executemany(f"INSERT INTO {quote(name)} (title, body) VALUES (?, ?)", notes)
    return name


def remove_ours(connection: apsw.Connection) -> None:
    """Remove the objects of a node from the copy: the copies are another cluster."""
    for kind, name in connection.execute("SELECT type, name FROM sqlite_schema ORDER BY type DESC").fetchall():
        if is_private(str(name)) and kind in ("table", "trigger", "view"):
            connection.execute(f"DROP {kind} IF EXISTS {quote(str(name))}")


def inspect(connection: apsw.Connection, name: str) -> OwnTable | None:
    """Return a table's facts; None if it has no primary key."""
    columns = connection.execute("SELECT name, pk, hidden, type FROM pragma_table_xinfo(?)", (name,)).fetchall()
    key = [str(column) for column, pk, _, _ in sorted(columns, key=lambda c: int(str(c[1]))) if pk]
    if not key:
        return None
    referring = 'SELECT "from" FROM pragma_foreign_key_list(?1)'
    unique = 'SELECT c.name FROM pragma_index_list(?1) i, pragma_index_info(i.name) c WHERE i."unique"'
    bound = {str(column) for (column,) in connection.execute(f"{referring} UNION {unique}", (name,))} | set(key)
    writable = [(str(column), str(kind).upper()) for column, _, hidden, kind in columns if not hidden]
    texts = [column for column, kind in writable if not kind or re.search("CHAR|TEXT|CLOB", kind)]
    free = [column for column in texts if column not in bound]
    (rows, top) = connection.execute(f"SELECT count(*), max({quote(key[0])}) FROM {quote(name)}").fetchall()[0]
    above = top + 1 if len(key) == 1 and isinstance(top, int) and top <= 2**62 else None
    return OwnTable(name, tuple(key), tuple(free), tuple(column for column, _ in writable), int(str(rows)), above)


def possible(connection: apsw.Connection, statements: Iterator[Statement]) -> bool:
    """Return whether each of ``statements`` changes one row, and roll them back."""
    connection.execute("PRAGMA foreign_keys = ON; BEGIN")
    try:
        return all(connection.execute(sql, values).connection.changes() == 1 for sql, values in statements)
    except apsw.Error:
        return False
    finally:
        connection.execute("ROLLBACK")
