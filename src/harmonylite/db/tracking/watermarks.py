"""Watermarks: up to which rowid a table's inserts are logged one by one. Rows above it are new.

Most inserts take a rowid above all others. The trigger then logs nothing, which saves the application a page per
commit: the rowid shows that the row is new. The triggers log everything else: an insert at or below the watermark,
every update, every delete.

Invariant: a row above the watermark counts as just logged. A watermark is raised over rows only together with a log
entry that names their range, or if no other connection can have changed them since they were captured, or if the node
wrote them in the same transaction.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import apsw

from harmonylite.db.sqlite.connection import rows, value
from harmonylite.db.tracking.tracked_table import TrackedTable
from harmonylite.db.tracking.triggers import LOG, POSITION, WATERMARK
from harmonylite.schema.sql import quote

MOST = 2**63 - 1
"""The largest rowid."""
TERMS = 200
"""Tables that one statement asks for their newest row (SQLite: limits, compound select)."""


class Watermarks:
    """The watermarks of the tables that have a rowid. Every method runs in a transaction of the caller."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection
        self._at: dict[int, int] | None = None
        self._all: tuple[Mapping[int, TrackedTable], list[str]] = ({}, [])

    def forget(self) -> None:
        """Read them again next time: another part wrote them, or a transaction was rolled back."""
        self._at = None

    def of(self, table: TrackedTable) -> int | None:
        """Return the table's watermark; None: it has none, so each of its inserts is logged."""
        return self._marks().get(table.id)

    def _marks(self) -> dict[int, int]:
        if self._at is None:
            self._at = dict(rows(self._connection, _all("main")))
        return self._at

    def above(self, tables: Iterable[TrackedTable]) -> dict[int, int]:
        """Return the tables that have rows above their watermark: number and largest rowid."""
        return self._above(self._statements(tables))

    def above_all(self, tables: Mapping[int, TrackedTable]) -> dict[int, int]:
        """Return what `above` does, for all tables by number: the same mapping each time until the next install."""
        if self._at is None or self._all[0] is not tables:
            self._all = tables, self._statements(tables.values())
        return self._above(self._all[1])

    def _statements(self, tables: Iterable[TrackedTable]) -> list[str]:
        at = self._marks()
        marked = [table.newest for table in tables if table.id in at and table.shape.rowid]
        return [" UNION ALL ".join(marked[start : start + TERMS]) for start in range(0, len(marked), TERMS)]

    def _above(self, statements: Iterable[str]) -> dict[int, int]:
        at = self._marks()
        found = (row for sql in statements for row in rows(self._connection, sql))
        return {number: top for number, top in found if top is not None and top > at[number]}

    def log_ranges(self, tables: Iterable[TrackedTable]) -> None:
        """Write the ranges of rows above the watermarks to the log, and raise those watermarks.

        The transaction writes the database.
        """
        by_id = {table.id: table for table in tables}
        for number, top in self.above(by_id.values()).items():
            self._connection.execute(
                f"INSERT INTO main.{quote(LOG)}(t, k0, k1) VALUES (?, ?, ?)", (-number, self.of(by_id[number]), top)
            )
            self._raise(by_id[number])

    def raise_all(self, tables: Iterable[TrackedTable]) -> None:
        """Raise the watermarks to the newest rows; the module says when that is allowed."""
        for table in tables:
            if self.of(table) is not None:
                self._raise(table)

    def _raise(self, table: TrackedTable) -> None:
        raised = _set(self._connection, table, self.of(table))
        if raised is not None and self._at is not None:
            self._at[table.id] = raised


def _all(schema: str) -> str:
    """Return a query for number and watermark of each table."""
    return f"SELECT -shard AS t, seq AS row FROM {schema}.{quote(POSITION)} WHERE shard < 0"


def move_here(connection: apsw.Connection) -> None:
    """Take over the watermarks of an earlier version, which had a separate table, in one transaction.

    It also replaces the triggers that read that table. A watermark that is here already stays: the table comes from an
    older version that opened the file since. It set each watermark to the newest row and then refused to start, because
    it can't read these rows of the positions: what lies between the two watermarks is still to be captured.
    """
    columns = rows(connection, "SELECT name FROM pragma_table_info(?, 'main')", (WATERMARK,))
    keys = [name for (name,) in columns if name not in ("t", "row")]
    if columns:
        listed = ", ".join(keys)
        connection.execute(
            f"INSERT OR IGNORE INTO main.{quote(POSITION)}(shard, seq, resume, created, {listed})"
            f" SELECT -t, row, 0, '', {listed} FROM main.{quote(WATERMARK)} WHERE row IS NOT NULL"
        )
        connection.execute(f"DROP TABLE main.{quote(WATERMARK)}")


def _set(connection: apsw.Connection, table: TrackedTable, above: int | None) -> int | None:
    """Set a watermark to the newest row whose rowid is over ``above``, with that row's key; None when there is none."""
    shape = table.shape
    rowid = f"d.{quote(shape.rowid)}"
    raised: int | None = value(
        connection,
        f"INSERT OR REPLACE INTO main.{quote(POSITION)}(shard, seq, resume, created, {table.key_list})"
        f" SELECT {-table.id}, {rowid}, 0, '', {shape.read_key('d')} FROM {table.main} AS d WHERE {rowid} > ?"
        f" ORDER BY {rowid} DESC LIMIT 1 RETURNING seq",
        (above or 0,),
    )
    return raised


def begin(connection: apsw.Connection, tables: Mapping[int, TrackedTable], reset: Collection[int]) -> None:
    """Set the watermarks of tables, by number, to their newest rows, and forget those of dropped ones.

    A table that has one keeps it, except those in ``reset``. The caller accounts for the rows below it.
    """
    there = {number for number, _ in rows(connection, _all("main"))}
    for number, table in tables.items():
        begins = table.shape.rowid and (number in reset or number not in there)
        if begins and _set(connection, table, 0) is None:
            into = f"INSERT OR REPLACE INTO main.{quote(POSITION)}(shard, seq, resume, created)"
            connection.execute(f"{into} VALUES (?, 0, 0, '')", (-number,))
    for number in there - tables.keys():
        connection.execute(f"DELETE FROM main.{quote(POSITION)} WHERE shard = ?", (-number,))


def rows_above(table: TrackedTable) -> str:
    """Return the condition on a row ``d`` of the database's table to be above its watermark; none is without one."""
    at = f"SELECT seq FROM main.{quote(POSITION)} WHERE shard = {-table.id}"
    return f" WHERE d.{quote(table.shape.rowid)} > ({at})" if table.shape.rowid else " WHERE 0"


def still_holds(connection: apsw.Connection, table: TrackedTable) -> bool:
    """Return whether the watermark is certainly still valid, although rows may have been renumbered.

    ``VACUUM`` may number the rows of a table without INTEGER PRIMARY KEY again, in their order and without gaps
    (SQLite: lang_vacuum). If the row at the watermark still has its number, no row before it moved.
    """
    shape = table.shape
    if not shape.rowid or shape.integer_key:
        return True
    if any(column.pseudo == "rowid" for column in shape.keys):
        return False
    return bool(
        value(
            connection,
            f"SELECT m.seq <= 0 OR EXISTS (SELECT 1 FROM {table.main} AS d WHERE d.{quote(shape.rowid)} = m.seq"
            f" AND {shape.same('d', 'm')}) FROM main.{quote(POSITION)} AS m WHERE m.shard = ?",
            (-table.id,),
        )
    )


def new_rows(connection: apsw.Connection, number: int, cleared: int, schema: str) -> list[tuple[int, int]]:
    """Return the ranges of rowids (above, up to) that the log names or that are above a table's watermark."""
    earlier = value(connection, f"SELECT 1 FROM {schema}.sqlite_schema WHERE name = ?", (WATERMARK,))
    mark = f"SELECT -shard AS t, seq AS row FROM {schema}.{quote(POSITION)} WHERE shard = ?1"
    both = f"{mark} UNION ALL SELECT t, row FROM {schema}.{quote(WATERMARK)}"  # see `move_here`
    marks = f"SELECT t, min(row) AS row FROM ({both}) GROUP BY t" if earlier else mark
    return rows(
        connection,
        f"SELECT k0, k1 FROM {schema}.{quote(LOG)} WHERE t = ?1 AND id > ?2"
        f" UNION ALL SELECT row, {MOST} FROM ({marks}) WHERE t = ?3",
        (-number, cleared, number),
    )
