"""A person's own file as a scene: finds tables that the demo may play with, and never touches the file itself.

Invariant: the whole story was tried on the first copy, and rolled back, before it is told. A file without a table that
takes it gets one more in the copies, so that every SQLite file can be played on.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import apsw

from harmonylite.db.sqlite.connection import mapped, open_file
from harmonylite.demo.scene import Clash, Statement, Workload
from harmonylite.demo.table_digest import ordinary_tables
from harmonylite.errors import ConfigError, DatabaseDamagedError
from harmonylite.schema.sql import is_private, quote, text

BURST = 25
"""Rows that one site adds, and rows that it changes, in one burst."""

SITES, BURSTS = (1, 2, 3), (1, 2)
"""Who writes in a story, and how often."""

FEWEST = 10
"""Rows that a table must have to be played with."""

NOTES = "demo_notes"
"""The table that the copies get where the file has none that can be played with."""

GAP = 10_000
"""Distance between the keys that two sites give to their new rows."""


FOUGHT = (4, 5)
"""Numbers of the rows that the two clashes are about."""


@dataclass(frozen=True, slots=True)
class OwnTable:
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
        self.remark = ""
        self._changed: OwnTable | None = None
        self._grown: OwnTable | None = None
        self._first_key = 0
        self._fought: list[str] = []

    def build(self, target: Path) -> None:
        """Back the file up to ``target`` and look for tables to play with.

        :raises ConfigError: there is no such file, or it isn't a whole SQLite file. :raises DatabaseError: it can't be
            read, or the copy can't be written.
        """
        if not self._source.is_file():
            raise ConfigError(
                f"{self._source}: no such file", advice="name a SQLite file, or none for the built-in shop"
            )
        try:
            backup(self._source, target)
        except DatabaseDamagedError:
            raise ConfigError(
                f"{self._source} is not a SQLite file, or is damaged",
                advice="name another one, or none for the built-in shop",
            ) from None
        connection = open_file(target)
        try:
            with mapped(f"look into {target}"):
                remove_ours(connection)
                connection.pragma("journal_mode", "wal")
                self._choose(connection)
        finally:
            connection.close()

    def _choose(self, connection: apsw.Connection) -> None:
        if self._take(connection, ordinary_tables(connection)):
            return
        name = add_notes(connection)
        self.remark = (
            f"no table of {self.file_name} has a key, {FEWEST} rows and two columns of text that may be changed"
            f" freely; the copies get one more, {name}"
        )
        taken = self._take(connection, [name])
        assert taken, "it was made for this"

    def _take(self, connection: apsw.Connection, names: Sequence[str]) -> bool:
        """Settle on the tables that take the whole story, the one with most to show first; False when none does."""
        found = [table for name in names if (table := inspect(connection, name)) and table.rows >= FEWEST]
        found.sort(key=lambda table: (min(len(table.free), 4), min(table.rows, 500)), reverse=True)
        growing = [(table, key) for table in found if (key := next_key(connection, table)) is not None]
        for table in (each for each in found if len(each.free) >= 2):
            self._changed, self._grown = table, None
            self._fought = [literal(connection, table, row) for row in FOUGHT]
            if possible(connection, self._story()):
                for self._grown, self._first_key in growing:
                    if possible(connection, self._story()):
                        return True
                self._grown = None
                return True
        return False

    def _story(self) -> list[Statement]:
        """Return every statement that will be run, in an order that could be."""
        works = [self.burst(site, number) for number in BURSTS for site in SITES]
        statements = [one for work in works for transaction in work.transactions for one in transaction]
        clashes = (self.two_columns(), self.one_column())
        return statements + [one for clash in clashes for one in (clash.one, clash.two)]

    def burst(self, site: int, number: int) -> Workload:
        """Add rows under keys of the site's own, and change rows that no other site changes in this burst."""
        table = self._table
        column, mark = table.free[number % 2], f" ({number}/{site})"
        # Neighbours at the beginning: SQLite counts its way to row number n.
        count = min(BURST, table.rows // len(SITES))
        rows = range((site - 1) * count, site * count)
        updates = [[change(table, column, mark, nth(table, row))] for row in rows]
        label = f"{len(updates)} rows of {table.name} changed in column {column}"
        left = (f"SELECT count(*) FROM {quote(table.name)} WHERE instr({quote(column)}, {text(mark)})", len(updates))
        if self._grown is None:
            return Workload(label, updates, left)
        start = self._first_key + site * GAP + number * BURST
        models = [rows[n % len(rows)] % self._grown.rows for n in range(BURST)]
        inserts = [[grow(self._grown, start + n, model) for n, model in enumerate(models)]]
        return Workload(f"{BURST} new rows in {self._grown.name} in one transaction, {label}", inserts + updates, left)

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

    def by_hand(self) -> tuple[str, str]:
        """Append to the column that was fought over."""
        clash = self.one_column()
        return clash.one[0], clash.show

    @property
    def _table(self) -> OwnTable:
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
    """Copy a live SQLite file as SQLite does it: consistent, whatever is being written to it. Raises DatabaseError.

    Leaves nothing beside ``source`` that wasn't there.
    """
    log = Path(f"{source}-wal")
    there = log.exists()
    reader = open_file(source, read_only=True)
    try:
        with mapped(f"copy {source}"):
            writer = open_file(target, create=True)
            try:
                with writer.backup("main", reader, "main") as copy:
                    while not copy.done:
                        copy.step(1024)
            finally:
                writer.close()
    finally:
        reader.close()
    if log.exists() and not there:
        # A reader of a file in WAL mode makes -wal and -shm, and only a connection that might write clears them away.
        with mapped(f"close {source}"), closing(open_file(source)) as last:
            last.pragma("schema_version")


def add_notes(connection: apsw.Connection) -> str:
    """Add a table to play with; return its name, which no table had."""
    taken = {str(name).lower() for (name,) in connection.execute("SELECT name FROM sqlite_schema")}
    name = next(n for n in (NOTES, *(f"{NOTES}_{i}" for i in range(2, len(taken) + 3))) if n not in taken)
    connection.execute(f"CREATE TABLE {quote(name)} (id INTEGER PRIMARY KEY, title TEXT NOT NULL, body TEXT NOT NULL)")
    with connection:
        notes = [(f"note {number}", "nothing yet") for number in range(1, 1 + len(SITES) * BURST)]
        connection.executemany(f"INSERT INTO {quote(name)} (title, body) VALUES (?, ?)", notes)
    return name


def remove_ours(connection: apsw.Connection) -> None:
    """Take out what a node of HarmonyLite left in the copied file: the copies are a cluster of their own."""
    rows = connection.execute("SELECT type, name FROM sqlite_schema ORDER BY type DESC").fetchall()
    for kind, name in rows:
        if is_private(str(name)) and kind in ("table", "trigger", "view"):
            connection.execute(f"DROP {kind} IF EXISTS {quote(str(name))}")


def inspect(connection: apsw.Connection, name: str) -> OwnTable | None:
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
    return OwnTable(name, tuple(key), tuple(free), tuple(column for column, _ in writable), int(str(rows)))


def readable(kind: str) -> bool:
    """Tell whether a column of this declared type holds text, the kind of value that shows a change best."""
    return any(word in kind for word in ("CHAR", "TEXT", "CLOB")) or not kind


def nth(table: OwnTable, row: int) -> str:
    """Return SQL that picks the row number ``row`` by key, by its value before the story."""
    key = ", ".join(quote(column) for column in table.key)
    return f"({key}) = (SELECT {key} FROM {quote(table.name)} ORDER BY {key} LIMIT 1 OFFSET {row})"


def literal(connection: apsw.Connection, table: OwnTable, row: int) -> str:
    """Return SQL that picks row number ``row`` by its key, spelled out for people to read."""
    values = ", ".join(f"quote({quote(column)})" for column in table.key)
    (found,) = connection.execute(f"SELECT {values} FROM {quote(table.name)} WHERE {nth(table, row)}").fetchall()
    return " AND ".join(f"{quote(column)} = {value}" for column, value in zip(table.key, found, strict=True))


def change(table: OwnTable, column: str, mark: str, where: str) -> Statement:
    """Return the statement that appends ``mark`` to a column of the row at ``where``."""
    name = quote(column)
    return f"UPDATE {quote(table.name)} SET {name} = coalesce({name}, '') || {text(mark)} WHERE {where}", ()


def next_key(connection: apsw.Connection, table: OwnTable) -> int | None:
    """Return a key above all others; None when rows can't be added by counting on."""
    if len(table.key) != 1:
        return None
    top = connection.execute(f"SELECT max({quote(table.key[0])}) FROM {quote(table.name)}").get
    return top + 1 if isinstance(top, int) and top <= 2**62 else None


def grow(table: OwnTable, key: int, model: int) -> Statement:
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
