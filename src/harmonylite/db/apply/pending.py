"""Pending rows of a merge: which of the touched rows the local writer changed, and their merged values.

A touched row is pending if the log names it and the database's row differs from its merge base. That is the mirror's
row before the fold, with the changes of this node's own change sets in that fold. The base of a held-back row is no
row. Of several change sets in flight, what those that stay in flight hold is pending, too, whatever the values: they
will set it.

Invariant: the local writer's changes stay; every other column becomes the mirror's. If a unique index forces a row to
keep more, the row is logged again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import apsw

from harmonylite.db.apply.own_change_sets import lay_over
from harmonylite.db.capture import merge_base
from harmonylite.db.capture.capture import Outgoing
from harmonylite.db.capture.laying import mark
from harmonylite.db.mirror.schema_history import Own
from harmonylite.db.sqlite.connection import is_unique, rows, try_or_undo, value
from harmonylite.db.sqlite.lossless import exact_rows
from harmonylite.db.tracking.change_log import ChangeLog
from harmonylite.db.tracking.tracked_table import TrackedTable
from harmonylite.db.tracking.triggers import HELD
from harmonylite.schema.shape import any_differs, any_of, differs
from harmonylite.schema.sql import quote
from harmonylite.wire import TableBlock

Changes = Callable[[str, Sequence[Any]], int]
"""Runs a statement that writes the database, and returns how many rows it changed."""


class Pending:
    """The pending rows among the touched ones of one table; works within the merge's transaction.

    ``over``: change sets of this node that stay in flight. ``kept``: the scratch tables ``kept`` have the mirror's
    logged rows before the fold; see `ChangeLog.keep_base`.
    """

    def __init__(
        self,
        connection: apsw.Connection,
        log: ChangeLog,
        changes: Changes,
        *,
        own: Own | None,
        over: Sequence[Outgoing],
        kept: bool,
    ) -> None:
        self._connection = connection
        self._log = log
        self._changes = changes
        self._own = own
        self._kept = kept
        self._over = over
        self._stays = False

    def find(self, table: TrackedTable) -> bool:
        """Fill the scratch tables ``before`` and ``pending``; return whether any touched row is pending."""
        execute = self._connection.execute
        staying = self._in_flight(table)
        self._stays = bool(staying)
        table.empty("pending")
        touched = table.scratch("touched")
        if value(self._connection, f"SELECT 1 FROM {touched} AS x WHERE {table.in_logged} LIMIT 1") is None:
            return False
        shape, before, pending = table.shape, table.scratch("before"), table.scratch("pending")
        held = " AND ".join(f"h.k{i} IS x.k{i}" for i in range(len(shape.keys)))
        table.empty("before")
        base = f"{shape.read_all('b')} FROM {touched} AS x CROSS JOIN {table.base} AS b ON {shape.same('b', 'x')}"
        if self._kept:
            here = f"CROSS JOIN {table.scratch('kept')} AS b ON {table.keys_equal('b.c', 'x.k')}"
            base = f"{', '.join(f'b.c{i}' for i in range(len(shape.columns)))} FROM {touched} AS x {here}"
        execute(
            f"INSERT INTO {before}({table.column_list}) SELECT {base} WHERE {table.in_logged}"
            f" AND NOT EXISTS (SELECT 1 FROM main.{quote(HELD)} AS h WHERE h.t = {table.id} AND {held})"
        )
        if self._own is not None:
            lay_over(self._connection, table, self._own)
        known = f"EXISTS (SELECT 1 FROM {before} AS b WHERE {table.keys_equal('b.c', 'x.k')})"
        there = f"EXISTS (SELECT 1 FROM {table.main} AS d WHERE {shape.same('d', 'x')})"
        changed = any_differs((shape.columns[i], shape.read(shape.columns[i], "d"), f"b.c{i}") for i in shape.compared)
        execute(
            f"INSERT INTO {pending}({table.key_list}) SELECT {table.key_list} FROM {touched} AS x"
            f" WHERE {table.in_logged} AND ({known} IS NOT {there} OR EXISTS (SELECT 1 FROM {before} AS b"
            f" CROSS JOIN {table.main} AS d ON {shape.same('d', 'x')}"
            f" WHERE {table.keys_equal('b.c', 'x.k')} AND ({changed})))"
        )
        if self._stays:
            mark(self._connection, table, staying)
            execute(
                f"INSERT INTO {pending}({table.key_list}) SELECT {table.key_list} FROM {touched} AS x"
                f" WHERE EXISTS (SELECT 1 FROM {table.scratch('flown')} AS f WHERE {table.keys_equal('f.c', 'x.k')})"
                f" AND NOT EXISTS (SELECT 1 FROM {pending} AS p WHERE {table.keys_equal('p.k', 'x.k')})"
            )
        return value(self._connection, f"SELECT 1 FROM {pending} LIMIT 1") is not None

    def _in_flight(self, table: TrackedTable) -> list[TableBlock]:
        """Return what the change sets that stay in flight hold of a table."""
        name, keys = table.shape.name, [column.name for column in table.shape.keys]
        some = [out for out in self._over if name in out.tables]
        parts = [part for out in some for part in out.decoded() if part.table == name]
        return [part for part in parts if part.columns == list(table.shape.names) and part.columns[: part.keys] == keys]

    def merge(self, table: TrackedTable) -> None:
        """Merge all rows with one statement; raises apsw.ConstraintError on a unique violation."""
        if table.shape.compared:
            self._changes(self._update(table, frozenset(), ""), ())

    def merge_one_by_one(self, table: TrackedTable) -> None:
        """Merge row after row; one that conflicts keeps its local values in the columns of unique indexes.

        Rows that only exchange unique values don't conflict: they are removed and inserted together.
        """
        if try_or_undo(self._connection, lambda: self._together(table))[0]:
            return
        for (number,) in rows(self._connection, f"SELECT x.rowid {self._three_ways(table)}"):
            one = f" AND x.rowid = {number}"
            try:
                self._changes(self._update(table, frozenset(), one), ())
            except apsw.ConstraintError as error:
                if not is_unique(error):
                    raise
                self._keep(table, one)

    def _together(self, table: TrackedTable) -> None:
        """Remove all rows and insert them merged; raises apsw.ConstraintError on a unique violation."""
        shape, merged = table.shape, table.scratch("own")
        source = self._three_ways(table)
        # the log may know a row by its rowid only, which changes here
        self._log.append(table, f"SELECT {shape.read_key('d')} {source}")
        table.empty("own")
        for which, chosen in self._outcomes(table):
            reads = [chosen.get(i, shape.read(column, "d")) for i, column in enumerate(shape.columns)]
            self._connection.execute(
                f"INSERT INTO {merged}({table.column_list}) SELECT {', '.join(reads)} {source}{which}"
            )
        self._connection.execute(
            f"DELETE FROM {table.main} WHERE {shape.target()} IN (SELECT {shape.places('d')} {source})"
        )
        self._changes(f"{table.insert_into} {table.main}({shape.write()}) SELECT {table.column_list} FROM {merged}", ())

    def _keep(self, table: TrackedTable, one: str) -> None:
        """Merge one row except for its columns in unique indexes; log it again, as it keeps unchanged columns, too."""
        shape = table.shape
        base = [f"b.c{i}" for i in range(len(shape.columns))]
        for row in exact_rows(self._connection, base, self._three_ways(table, one)):
            merge_base.remember(self._connection, table, row[: len(shape.keys)], row)
        if any(shape.columns[i].name not in shape.unique_columns for i in shape.compared):
            self._changes(self._update(table, shape.unique_columns, one), ())
        keys = ", ".join(f"x.k{i}" for i in range(len(shape.keys)))
        self._log.append(table, f"SELECT {keys} FROM {table.scratch('pending')} AS x WHERE 1{one}")

    def _three_ways(self, table: TrackedTable, more: str = "") -> str:
        """Return the FROM and WHERE of the pending rows that are present in database, mirror and ``before``."""
        shape = table.shape
        flown = f" LEFT JOIN {table.scratch('flown')} AS f ON {table.keys_equal('f.c', 'x.k')}" * self._stays
        return (
            f"FROM {table.scratch('pending')} AS x CROSS JOIN {table.main} AS d ON {shape.same('d', 'x')}"
            f" CROSS JOIN {table.mirror} AS m ON {shape.same('m', 'x')}"
            f" CROSS JOIN {table.scratch('before')} AS b ON {table.keys_equal('b.c', 'x.k')}{flown} WHERE 1{more}"
        )

    def _update(self, table: TrackedTable, kept: frozenset[str], more: str) -> str:
        """Return the statement that merges; the columns ``kept`` keep the local values."""
        which, chosen = self._outcomes(table)[-1]
        merged = {i: value for i, value in chosen.items() if table.shape.columns[i].name not in kept}
        return table.update(merged, self._three_ways(table, which + more))

    def _outcomes(self, table: TrackedTable) -> list[tuple[str, dict[int, str]]]:
        """Return the groups of rows, each as a condition and the expressions of the columns that may change.

        The last one has all rows that change.
        """
        shape = table.shape
        here, there = ({i: shape.read(shape.columns[i], alias) for i in shape.compared} for alias in "dm")
        mine = {i: differs(shape.columns[i], here[i], f"b.c{i}") for i in shape.compared}
        if self._stays:
            keys = len(shape.keys)
            mine = {i: f"({test} OR f.c{i} IS 1)" if i >= keys else test for i, test in mine.items()}
        if table.by_row:
            any_mine = any_of(list(mine.values()))
            return [(f" AND ({any_mine}) IS TRUE", {}), (f" AND ({any_mine}) IS NOT TRUE", there)]
        return [("", {i: f"CASE WHEN {mine[i]} THEN {here[i]} ELSE {there[i]} END" for i in shape.compared})]

    def remember_seen(self, table: TrackedTable) -> None:
        """Record what the local writer saw of rows that will overrule newer values."""
        shape, keys = table.shape, len(table.shape.keys)
        reads = [*(shape.read(c, "m") for c in shape.keys), *(f"b.c{i}" for i in range(len(shape.columns))), "b.rowid"]
        source = (
            f"FROM {table.scratch('pending')} AS x CROSS JOIN {table.mirror} AS m ON {shape.same('m', 'x')}"
            f" LEFT JOIN {table.main} AS d ON {shape.same('d', 'x')}"
            f" LEFT JOIN {table.scratch('before')} AS b ON {table.keys_equal('b.c', 'x.k')}"
            f" WHERE {_overrules(table)}"
        )
        for row in exact_rows(self._connection, reads, source):
            merge_base.remember(self._connection, table, row[:keys], None if row[-1] is None else row[keys:-1])


def _overrules(table: TrackedTable) -> str:
    """Return the condition that the local row ``d`` conflicts with a new value of the mirror in some column."""
    shape = table.shape
    columns = [(shape.columns[i], f"b.c{i}") for i in shape.compared]
    newer = [differs(c, shape.read(c, "m"), base) for c, base in columns]
    other = [differs(c, shape.read(c, "m"), shape.read(c, "d")) for c, _ in columns]
    mine = ["1" if table.by_row else differs(c, shape.read(c, "d"), base) for c, base in columns]
    all_three = [" AND ".join(three) for three in zip(newer, other, mine, strict=True)]
    return (
        f"CASE WHEN {shape.absent('d')} THEN {'b.rowid IS NULL OR ' * bool(columns)}{any_of(newer)}"
        f" WHEN b.rowid IS NULL THEN {any_of(other)} ELSE {any_of(all_three)} END"
    )
