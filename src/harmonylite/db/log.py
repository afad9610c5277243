"""Read the log: which keys may have changed since they were last published and ordered.

Invariant: the log is a hint of where to look and nothing more. Its newest row is never deleted, so that ids only grow;
what stands at or below ``cleared`` is done with.
"""

from __future__ import annotations

from collections.abc import Mapping

import apsw

from harmonylite.db.connection import rows, value
from harmonylite.db.tracked import Tracked
from harmonylite.db.triggers import LOG, STATE
from harmonylite.schema.sql import quote


class Log:
    """The log as far as this connection has taken it over into the ``logged`` scratch tables.

    Every method runs within a transaction of the caller's that reads (``refresh``) or writes (the rest) the database.
    """

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection
        self._known = 0
        self._columns: list[str] = []

    def forget(self) -> None:
        """Start over: the scratch tables were made anew."""
        self._known = self.cleared()

    def cleared(self) -> int:
        """Return the id up to which the log is done with."""
        return int(value(self._connection, f"SELECT value FROM main.{quote(STATE)} WHERE name = 'cleared'") or 0)

    @property
    def known(self) -> int:
        """The newest id that was taken over."""
        return self._known

    def refresh(self, tables: Mapping[int, Tracked]) -> int:
        """Take over what was logged since the last time; return the newest id of the log."""
        newest = int(value(self._connection, f"SELECT max(id) FROM main.{quote(LOG)}") or 0)
        if newest <= self._known:
            return self._known
        if newest == self._known + 1:
            found = [(value(self._connection, f"SELECT t FROM main.{quote(LOG)} WHERE id = ?", (newest,)),)]
        else:
            found = rows(
                self._connection,
                f"SELECT DISTINCT t FROM main.{quote(LOG)} WHERE id > ? AND id <= ?",
                (self._known, newest),
            )
        for (number,) in found:
            if number in tables:
                self._take(tables[number], newest)
        self._known = newest
        return newest

    def _take(self, table: Tracked, newest: int) -> None:
        logged = table.scratch("logged")
        keys = table.key_list
        if table.shape.nullable_key:
            # NULLs never meet in a unique index: drop what is there before it comes again
            same = " AND ".join(f"{logged}.k{i} IS n.k{i}" for i in range(len(table.shape.keys))).replace("temp.", "")
            self._connection.execute(
                f"DELETE FROM {logged} WHERE EXISTS (SELECT 1 FROM main.{quote(LOG)} AS n"
                f" WHERE n.t = ? AND n.id > ? AND n.id <= ? AND {same})",
                (table.id, self._known, newest),
            )
            distinct = (
                f"SELECT {keys}, max(id) FROM main.{quote(LOG)} WHERE t = ? AND id > ? AND id <= ? GROUP BY {keys}"
            )
        else:
            distinct = f"SELECT {keys}, id FROM main.{quote(LOG)} WHERE t = ? AND id > ? AND id <= ?"
        self._connection.execute(
            f"INSERT OR REPLACE INTO {logged}({keys}, id) {distinct}", (table.id, self._known, newest)
        )
        table.logged = int(value(self._connection, f"SELECT count(*) FROM {logged}"))
        table.suspect = table.suspect or table.shape.blind

    def clear(self, tables: Mapping[int, Tracked], upto: int) -> None:
        """Be done with everything at or below id ``upto``; the transaction writes the database."""
        execute = self._connection.execute
        execute(f"DELETE FROM main.{quote(LOG)} WHERE id < ?", (upto,))
        execute(f"INSERT OR REPLACE INTO main.{quote(STATE)} VALUES ('cleared', ?)", (upto,))
        for table in tables.values():
            if table.logged:
                execute(f"DELETE FROM {table.scratch('logged')} WHERE id <= ?", (upto,))
                table.logged = int(value(self._connection, f"SELECT count(*) FROM {table.scratch('logged')}"))

    def append(self, table: Tracked, select: str) -> None:
        """Log the keys that ``select`` returns; the transaction writes the database."""
        self._connection.execute(
            f"INSERT INTO main.{quote(LOG)}(t, {table.key_list}) SELECT {table.id}, x.* FROM ({select}) AS x"
        )
