"""Read the log: which keys may have changed since they were last published and ordered.

Invariant: the log is only a hint of what to compare. Its newest row is never deleted, so ids only grow; entries at or
below ``cleared`` are processed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import apsw

from harmonylite.db.sqlite.connection import rows, value
from harmonylite.db.tracking.tracked_table import TrackedTable
from harmonylite.db.tracking.triggers import LOG, STATE
from harmonylite.db.tracking.watermarks import Watermarks
from harmonylite.schema.sql import quote

MANY = 16
"""Of more tables, the log is searched once for where the entries of each are; that sorts all of its new entries."""


class ChangeLog:
    """The log, as far as this connection has read it into the ``logged`` scratch tables.

    Rows above a table's watermark count as logged with the newest id, except those in flight that still equal their
    image. Every method runs in a transaction of the caller that reads (``refresh``, ``keep_images``) or writes (the
    rest) the database. ``settled``: the id up to which this session found nothing pending. The database need not
    record it: the next session checks again. ``busy``: the tables whose scratch tables may hold keys or images, by
    number, so that a commit does not visit all tables.
    """

    def __init__(self, connection: apsw.Connection) -> None:
        self.watermarks = Watermarks(connection)
        self._connection = connection
        self._known = self.settled = 0
        self._settled_at: int | None = None
        self._above: dict[int, int] = {}
        self._captured_at = 0
        self.busy: dict[int, TrackedTable] = {}

    def forget(self) -> None:
        """Start over after a rollback, which also undid the reads and removals of log entries. Images stay."""
        self.watermarks.forget()
        for table in self.busy.values():
            table.forget()
        self.committed()
        self._known = max(self.cleared(), self.settled)

    def start_over(self, tables: Mapping[int, TrackedTable]) -> None:
        """Forget all that the scratch tables of ``tables`` hold, after a rollback that undid an install."""
        for table in tables.values():
            table.forget()
            table.empty("image")
            table.images = False
        self.busy.clear()
        self.forget()

    def committed(self) -> None:
        """Skip from now on tables that hold nothing more, unless a transaction is open that may be rolled back."""
        if self._connection.in_transaction:
            return
        for number in [number for number, table in self.busy.items() if not (table.logged or table.images)]:
            del self.busy[number]

    @property
    def keys(self) -> int:
        """How many keys the scratch tables hold."""
        return sum(table.logged for table in self.busy.values())

    def cleared(self) -> int:
        """Return the id up to which the log is processed."""
        return int(value(self._connection, f"SELECT value FROM main.{quote(STATE)} WHERE name = 'cleared'") or 0)

    def refresh(self, tables: Mapping[int, TrackedTable], *, above: bool = True, unread: bool = True) -> int:
        """Read the entries since the last call; return the newest id of the log.

        ``above``: and the rows above the watermarks; ``unread``: those `find_above_watermark` did not just read.
        """
        newest = int(value(self._connection, f"SELECT max(id) FROM main.{quote(LOG)}") or 0)
        if newest > self._known:
            self._take_entries(tables, newest)
            self._known = newest
        if above:
            if unread:
                self.find_above_watermark(tables)
            for number, top in self._above.items():
                table = tables[number]
                self._take_range(table, self.watermarks.of(table) or 0, top, self._known)
        return self._known

    def seen(self) -> int:
        """Return the number that changes with every commit of another connection (SQLite: PRAGMA data_version)."""
        return int(value(self._connection, "PRAGMA main.data_version"))

    def settle(self, upto: int, seen: int) -> None:
        """Note that nothing logged up to id ``upto`` is pending, nor any row while `seen` returns ``seen``."""
        self.settled, self._settled_at = max(self.settled, upto), seen

    def find_above_watermark(self, tables: Mapping[int, TrackedTable]) -> int:
        """Find which tables have rows above their watermark; return an upper bound of their number."""
        if self.seen() == self._settled_at:
            self._above = {}
            return 0
        self._above = self.watermarks.above_all(tables)
        return sum(top - (self.watermarks.of(tables[number]) or 0) for number, top in self._above.items())

    def name_new(self, tables: Iterable[TrackedTable]) -> None:
        """Raise the watermarks to the newest rows, with an entry for those that may be pending; see `Watermarks`."""
        if self.seen() == self._settled_at:
            listed = {table.id: table for table in tables}
            self.watermarks.raise_all(listed[number] for number in self.watermarks.above(listed.values()))
        else:
            self.watermarks.log_ranges(tables)

    def _take_entries(self, tables: Mapping[int, TrackedTable], newest: int) -> None:
        if newest == self._known + 1:
            found = [(value(self._connection, f"SELECT t FROM main.{quote(LOG)} WHERE id = ?", (newest,)),)]
        else:
            found = rows(
                self._connection,
                f"SELECT DISTINCT t FROM main.{quote(LOG)} WHERE id > ? AND id <= ?",
                (self._known, newest),
            )
        spans = self._spans(newest) if len(found) > MANY else {}
        for (number,) in found:
            table = tables.get(abs(number)) if number is not None else None
            span = spans.get(number, (self._known, newest))
            if table is not None and number > 0:
                self._take_keys(table, span)
            elif table is not None:
                named = f"SELECT k0, k1, id FROM main.{quote(LOG)} WHERE t = ? AND id > ? AND id <= ? ORDER BY id"
                for above, top, entry in rows(self._connection, named, (number, *span)):
                    self._take_range(table, above, top, entry)

    def _spans(self, newest: int) -> dict[int, tuple[int, int]]:
        """Return between which ids the new entries of each table are, so that not all are read for each."""
        each = f"SELECT t, min(id) - 1, max(id) FROM main.{quote(LOG)} WHERE id > ? AND id <= ? GROUP BY t"
        return {number: (low, high) for number, low, high in rows(self._connection, each, (self._known, newest))}

    def _take_keys(self, table: TrackedTable, span: tuple[int, int]) -> None:
        """Read the entries of one table with an id above the first and up to the second of ``span``."""
        keys = table.key_list
        logged = f"FROM main.{quote(LOG)} WHERE t = ? AND id > ? AND id <= ?"
        grouped = f"SELECT {keys}, max(id) AS id {logged} GROUP BY {keys}"
        self._take(table, grouped if table.shape.nullable_key else f"SELECT {keys}, id {logged}", (table.id, *span))

    def _take_range(self, table: TrackedTable, above: int, top: int, entry: int) -> None:
        """Read the keys of rows with a rowid over ``above`` and up to ``top``, as if logged at id ``entry``.

        Rows that equal their image count as logged before that: no trigger reports when they are replaced.
        """
        shape = table.shape
        read = ", ".join(f"{shape.read(column, 'd')} AS k{i}" for i, column in enumerate(shape.keys))
        rowid = f"d.{quote(shape.rowid)}"
        entry_id = f"CASE WHEN {table.as_captured('d')} THEN {self._captured_at} ELSE ? END" if table.images else "?"
        select = f"SELECT {read}, {entry_id} AS id FROM {table.main} AS d WHERE {rowid} > ? AND {rowid} <= ?"
        self._take(table, select, (entry, above, top))

    def _take(self, table: TrackedTable, select: str, bound: Sequence[Any]) -> None:
        """Read the keys and ids of ``select``; of a key that comes twice, the newer id stays."""
        self.busy[table.id] = table
        logged, keys = table.scratch("logged"), table.key_list
        into = f"INSERT INTO {logged}({keys}, id)"
        if not table.shape.nullable_key:
            self._connection.execute(f"{into} {select} ON CONFLICT DO UPDATE SET id = max(id, excluded.id)", bound)
        elif not table.logged:
            self._connection.execute(f"{into} {select}", bound)
        else:
            # in a unique index two NULLs are never equal
            same = " AND ".join(f"l.k{i} IS n.k{i}" for i in range(len(table.shape.keys)))
            older = f"SELECT l.rowid FROM ({select}) AS n CROSS JOIN {logged} AS l ON {same} WHERE l.id <= n.id"
            newer = f"SELECT 1 FROM {logged} AS l WHERE {same}"
            self._connection.execute(f"DELETE FROM {logged} WHERE rowid IN ({older})", bound)
            self._connection.execute(f"{into} SELECT n.* FROM ({select}) AS n WHERE NOT EXISTS ({newer})", bound)
        table.logged = int(value(self._connection, f"SELECT count(*) FROM {logged}"))
        table.suspect = table.suspect or table.shape.blind

    def drop_keys(self, upto: int) -> None:
        """Remove the keys that were logged at or below id ``upto`` from the scratch tables, not from the database.

        The next refresh reads later entries as new ones.
        """
        for table in self.busy.values():
            if table.logged:
                logged = table.scratch("logged")
                # no key was logged after the newest id that was read: without a WHERE no row is compared
                later = "" if self._known <= upto else f" WHERE id <= {upto}"
                self._connection.execute(f"DELETE FROM {logged}{later}")
                table.logged = int(value(self._connection, f"SELECT count(*) FROM {logged}"))

    def drop(self, table: TrackedTable, which: str) -> None:
        """Remove the keys ``x`` for which the condition ``which`` is true from a table's scratch table."""
        self._connection.execute(f"DELETE FROM {table.scratch('logged')} AS x WHERE {which}")
        table.logged = int(value(self._connection, f"SELECT count(*) FROM {table.scratch('logged')}"))

    def clear(self, upto: int) -> None:
        """Clear everything at or below id ``upto``; the transaction writes the database."""
        execute = self._connection.execute
        execute(f"DELETE FROM main.{quote(LOG)} WHERE id < ?", (upto,))
        execute(f"INSERT OR REPLACE INTO main.{quote(STATE)} VALUES ('cleared', ?)", (upto,))
        self.drop_keys(upto)

    def append(self, table: TrackedTable, select: str) -> None:
        """Log the keys that ``select`` returns; the transaction writes the database."""
        self._connection.execute(
            f"INSERT INTO main.{quote(LOG)}(t, {table.key_list}) SELECT {table.id}, x.* FROM ({select}) AS x"
        )

    def keep_images(self, tables: Mapping[int, TrackedTable], log_id: int) -> None:
        """Keep the images of the rows that the last refresh found above the watermarks, with the log at ``log_id``."""
        self.drop_images()
        self._captured_at = log_id
        for number in self._above:
            table = self.busy[number] = tables[number]
            self._connection.execute(
                f"INSERT INTO {table.scratch('image')}({table.column_list}) SELECT {table.shape.read_all('d')}"
                f" FROM {table.main} AS d WHERE d.{quote(table.shape.rowid)} > ?",
                (self.watermarks.of(table),),
            )
            table.images = True

    def keep_base(self, tables: Mapping[int, TrackedTable]) -> None:
        """Keep the mirror's rows of all logged keys, which a fold is about to change; see `Pending`."""
        self.refresh(tables)
        for table in self.busy.values():
            if table.logged:
                table.put_mirrored("kept")
            else:  # the mirror may not have it any more
                table.empty("kept")

    def drop_images(self) -> None:
        """Forget the images: their rows are back, or won't come."""
        for table in self.busy.values():
            if table.images:
                table.empty("image")
                table.images = False
