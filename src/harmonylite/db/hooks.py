"""The application's own triggers on this node's connection.

The connection runs with triggers off: what they wrote to replicated tables at the origin comes as rows of its own. A
trigger that writes *only* tables that are not replicated (an FTS5 index, say) must run on every node; it is made anew
as a TEMP trigger, which SQLite fires all the same (SQLite: sqlite3_db_config, ENABLE_TRIGGER). So are the triggers that
such a one fires.

Invariant: a trigger runs here only if an authorizer saw every table that it writes, and none of them is replicated.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from re import IGNORECASE
from re import compile as pattern

import apsw

from harmonylite.db.connection import open_file, rows
from harmonylite.schema.sql import PRIVATE, is_private, quote, text

_WRITES = {apsw.SQLITE_INSERT, apsw.SQLITE_UPDATE, apsw.SQLITE_DELETE}
_NAME = r"""(?:"(?:[^"]|"")*"|\[[^\]]*\]|`(?:[^`]|``)*`|'(?:[^']|'')*'|[^\s."'`\[]+)"""
_HEAD = pattern(rf"CREATE\s+TRIGGER\s+(?:IF\s+NOT\s+EXISTS\s+)?(?:{_NAME}\s*\.\s*)?{_NAME}", IGNORECASE)


def written_tables(path: Path, table: str, columns: Collection[str]) -> dict[str, set[str]]:
    """Return, for each trigger that a write to ``table`` fires, the tables that it writes itself.

    An authorizer sees them on EXPLAIN, also those of triggers that others of these fire.
    """
    found: dict[str, set[str]] = {}

    def watch(action: int, first: str | None, _second: str | None, _schema: str | None, trigger: str | None) -> int:
        if trigger and action in _WRITES and first:
            found.setdefault(trigger, set()).add(first)
        return int(apsw.SQLITE_OK)

    connection = open_file(path, read_only=True)
    try:
        connection.authorizer = watch
        sets = ", ".join(f"{quote(c)} = {quote(c)}" for c in columns)
        for sql in (
            f"EXPLAIN INSERT INTO {quote(table)} DEFAULT VALUES",
            f"EXPLAIN UPDATE {quote(table)} SET {sets}",
            f"EXPLAIN DELETE FROM {quote(table)}",
        ):
            connection.execute(sql).fetchall()
    finally:
        connection.close()
    return found


class Hooks:
    """The application's triggers that run on this connection. ``names``: theirs, after `renew`."""

    def __init__(self, connection: apsw.Connection, path: Path) -> None:
        self._connection = connection
        self._path = path
        self.names: list[str] = []

    def renew(self, replicated: Collection[str]) -> dict[str, str]:
        """Make the TEMP triggers anew; return a sentence for each trigger that can't run here.

        Runs outside any transaction.
        """
        for name in self.names:
            self._connection.execute(f"DROP TRIGGER IF EXISTS temp.{quote(name)}")
        self.names = []
        warnings: dict[str, str] = {}
        writes: dict[str, set[str]] = {}
        listing = rows(self._connection, "SELECT name, tbl_name, sql FROM main.sqlite_schema WHERE type = 'trigger'")
        theirs = [(name, table, sql) for name, table, sql in listing if not is_private(name)]
        for table in sorted({table for _, table, _ in theirs} & set(replicated)):
            columns = [
                row[0]
                for row in rows(
                    self._connection, "SELECT name FROM pragma_table_xinfo(?, 'main') WHERE hidden = 0", (table,)
                )
            ]
            try:
                writes |= written_tables(self._path, table, columns)
            except apsw.Error as error:
                warnings[f"triggers of {table}"] = f"the triggers of {table} don't run for rows of other nodes: {error}"
        for name, _, sql in theirs:
            self._hook(name, sql, writes.get(name, set()), replicated, warnings)
        return warnings

    def _hook(
        self, name: str, sql: str, writes: set[str], replicated: Collection[str], warnings: dict[str, str]
    ) -> None:
        shared = sorted(writes & set(replicated))
        if not writes or shared:
            if shared and writes - set(replicated):
                warnings[f"trigger {name}"] = (
                    f"trigger {name} writes {shared[0]}, which is replicated, and tables that are not:"
                    " it does not run for rows of other nodes"
                )
            return
        own = f"{PRIVATE}hook_{name}"
        made = _HEAD.sub(lambda _: f"CREATE TEMP TRIGGER {quote(own)}", sql, count=1)
        try:
            self._connection.execute(made)
        except apsw.Error as error:
            warnings[f"trigger {name}"] = f"trigger {name} does not run for rows of other nodes: {error}"
        else:
            self.names.append(own)


def drop_statement(kind: str, name: str) -> str:
    """Return the statement that drops one object of the database."""
    if kind not in ("trigger", "table", "index"):
        raise ValueError(f"{text(kind)} is not a kind of object that we make")
    return f"DROP {kind.upper()} IF EXISTS main.{quote(name)}"
