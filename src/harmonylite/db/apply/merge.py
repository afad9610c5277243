"""Merge: bring the rows that a fold touched from the mirror into the database, three ways if the local writer changed
them, too.

Invariant: afterwards a touched row that is not pending is equal in database and mirror, or held back; a pending row
keeps the local writer's changes, and everything else in it is the mirror's.

It all runs in the transaction of the fold, under the database's write lock. ``base.T`` is the mirror before the
transaction: the same file, attached a second time, which still reads the last committed state. Where that transaction
also changes the schema, ``base`` has the former one, so the rows that may be pending are kept before the fold.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import apsw

from harmonylite.db.apply.pending import Pending
from harmonylite.db.apply.rowid_conflicts import claims_first, make_room
from harmonylite.db.apply.staging import Effect, Folded
from harmonylite.db.capture.capture import Outgoing
from harmonylite.db.mirror.schema_history import Own
from harmonylite.db.sqlite.connection import execute_or_not, is_unique, rows, try_or_undo
from harmonylite.db.tracking.change_log import ChangeLog
from harmonylite.db.tracking.tracked_table import TrackedTable
from harmonylite.db.tracking.triggers import HELD
from harmonylite.schema.shape import any_differs
from harmonylite.schema.sql import quote


class Merge:
    """Merges one table after the other within one transaction; ``rows`` counts rows of the database that changed,
    ``held`` those that were held back.

    ``own``: this node's change sets among the folded ones; ``over``: those that stay in flight, the oldest first;
    ``kept``: see `Pending`.
    """

    def __init__(
        self,
        connection: apsw.Connection,
        log: ChangeLog,
        *,
        own: Own | None = None,
        over: Sequence[Outgoing] = (),
        kept: bool = False,
    ) -> None:
        self._connection = connection
        self._log = log
        self._pending = Pending(connection, log, self._changes, own=own, over=over, kept=kept)
        self.rows = self.held = 0

    def table(self, table: TrackedTable, folded: Folded, *, held: bool) -> None:
        """Merge the effect of a fold on one table; ``held``: it also has held-back rows, which are tried again."""
        if folded.fresh and not held and not table.logged and self._fresh(table, folded):
            return
        pending = self._find(table, folded, held=held)
        if held:
            self._connection.execute(f"DELETE FROM main.{quote(HELD)} WHERE t = ?", (table.id,))
        if pending:
            self._pending.remember_seen(table)
        before = self.rows
        effect = folded.effect
        if held or folded.fresh:
            effect.anything()
        if not try_or_undo(self._connection, lambda: self._plainly(table, effect, pending=pending))[0]:
            self.rows = before
            self._slowly(table, pending=pending)
        table.empty("touched")

    def _find(self, table: TrackedTable, folded: Folded, *, held: bool) -> bool:
        """Collect all touched keys; return whether some are pending."""
        keys = len(table.shape.keys)
        sources = []
        if folded.fresh:
            sources.append(f"SELECT {', '.join(f'c{i}' for i in range(keys))} FROM {table.scratch('incoming')}")
        if held:
            sources.append(f"SELECT {table.key_list} FROM main.{quote(HELD)} WHERE t = {table.id}")
        for source in sources:
            self._connection.execute(f"INSERT OR IGNORE INTO {table.scratch('touched')}({table.key_list}) {source}")
        if table.shape.nullable_key:
            # in a unique index two NULLs are never equal; a key that was folded a thousand times is merged once
            touched = table.scratch("touched")
            firsts = f"SELECT min(rowid) FROM {touched} GROUP BY {table.key_list}"
            self._connection.execute(f"DELETE FROM {touched} WHERE rowid NOT IN ({firsts})")
        table.empty("pending")
        return bool(table.logged) and self._pending.find(table)

    def _changes(self, sql: str, bindings: Sequence[Any] = ()) -> int:
        self._connection.execute(sql, bindings)
        self.rows += self._connection.changes()
        return int(self._connection.changes())

    # rows that are in no other's way -----------------------------------------------------------------------------

    def _fresh(self, table: TrackedTable, folded: Folded) -> bool:
        """Insert rows that the mirror lacked, too, directly from ``incoming``."""
        shape = table.shape
        if len(folded.present) < len(shape.columns):
            return False  # the mirror has computed a default, which must not be computed a second time
        columns = shape.write([shape.columns[i].name for i in folded.present])
        values = ", ".join(f"x.c{i}" for i in folded.present)
        sql = f"{table.insert_into} {table.main}({columns}) SELECT {values} FROM {table.scratch('incoming')} AS x"
        if not execute_or_not(self._connection, sql):
            return False
        self.rows += self._connection.changes()
        return True

    def _plainly(self, table: TrackedTable, effect: Effect, *, pending: bool) -> None:
        """Bring over what the fold may have done: a row that is not pending was equal in both files before it."""
        if effect.gone:
            self._delete(table, all_gone=effect.only_removes)
        if pending:
            self._pending.merge(table)
        self._update(table, effect.columns)
        if effect.new:
            make_room(self._connection, table, table.main, "touched", "k", log=self._log)
            self._insert(table)

    # rows that are not pending: the mirror's row, whatever it is -------------------------------------------------

    @staticmethod
    def _free(table: TrackedTable) -> str:
        if not table.logged:
            return "1"
        return f"NOT EXISTS (SELECT 1 FROM {table.scratch('pending')} AS p WHERE {table.keys_equal('p.k', 'x.k')})"

    def _delete(self, table: TrackedTable, *, all_gone: bool) -> None:
        logged = bool(table.logged)
        self._changes(table.once(lambda: self._delete_sql(table, all_gone), "merge's delete", logged, all_gone))

    def _delete_sql(self, table: TrackedTable, all_gone: bool) -> str:
        shape = table.shape
        there = f"EXISTS (SELECT 1 FROM {table.mirror} AS m WHERE {shape.same('m', 'x')})"
        return (
            f"DELETE FROM {table.main} WHERE {shape.target()} IN (SELECT {shape.places('d')}"
            f" FROM {table.scratch('touched')} AS x CROSS JOIN {table.main} AS d ON {shape.same('d', 'x')}"
            f" WHERE NOT {'0' if all_gone else there} AND {self._free(table)})"
        )

    def _update(self, table: TrackedTable, columns: frozenset[int] | None) -> None:
        """Set ``columns`` (None: all); SQLite writes the indexes of each column that is set, also to the same value."""
        some = tuple(i for i in table.shape.compared if columns is None or i in columns)
        if some:
            self._changes(table.once(lambda: self._update_sql(table, some), "merge's update", bool(table.logged), some))

    def _update_sql(self, table: TrackedTable, some: Sequence[int]) -> str:
        shape = table.shape
        columns = [shape.columns[i] for i in some]
        test = any_differs((c, shape.read(c, "d"), shape.read(c, "m")) for c in columns)
        return table.update(
            {i: shape.read(shape.columns[i], "m") for i in some},
            f"FROM {table.scratch('touched')} AS x CROSS JOIN {table.mirror} AS m ON {shape.same('m', 'x')}"
            f" CROSS JOIN {table.main} AS d ON {shape.same('d', 'x')} WHERE {self._free(table)} AND ({test})",
        )

    def _insert(self, table: TrackedTable, which: str = "") -> None:
        sql = table.once(lambda: self._insert_sql(table), "merge's insert", bool(table.logged))
        self._changes(f"{sql}{which}{claims_first(table, 'x.k')}")

    def _insert_sql(self, table: TrackedTable) -> str:
        shape = table.shape
        return (
            f"{table.insert_into} {table.main}({shape.write()}) SELECT {shape.read_all('m')}"
            f" FROM {table.scratch('touched')} AS x CROSS JOIN {table.mirror} AS m ON {shape.same('m', 'x')}"
            f" WHERE NOT EXISTS (SELECT 1 FROM {table.main} AS d WHERE {shape.same('d', 'x')})"
            f" AND {self._free(table)}"
        )

    # when a unique index objects --------------------------------------------------------------------------------

    def _slowly(self, table: TrackedTable, *, pending: bool) -> None:
        """Remove every touched row that must change, merge the pending ones, then insert the rows that fit.

        A row that conflicts with a pending one is held back: one of the two change sets will resolve it.
        """
        shape = table.shape
        columns = [shape.columns[i] for i in shape.compared]
        test = any_differs((c, shape.read(c, "d"), shape.read(c, "m")) for c in columns)
        self._changes(
            f"DELETE FROM {table.main} WHERE {shape.target()} IN (SELECT {shape.places('d')}"
            f" FROM {table.scratch('touched')} AS x CROSS JOIN {table.main} AS d ON {shape.same('d', 'x')}"
            f" WHERE {self._free(table)} AND NOT EXISTS (SELECT 1 FROM {table.mirror} AS m"
            f" WHERE {shape.same('m', 'x')} AND NOT ({test})))"
        )
        if pending:
            self._pending.merge_one_by_one(table)
        make_room(self._connection, table, table.main, "touched", "k", log=self._log)
        order = claims_first(table, "x.k") or " ORDER BY x.rowid"
        for (number,) in rows(self._connection, f"SELECT x.rowid FROM {table.scratch('touched')} AS x{order}"):
            try:
                self._insert(table, f" AND x.rowid = {number}")
            except apsw.ConstraintError as error:
                if not is_unique(error):
                    raise
                self._hold(table, number)

    def _hold(self, table: TrackedTable, number: int) -> None:
        self.held += 1
        self._connection.execute(
            f"INSERT INTO main.{quote(HELD)}(t, {table.key_list}) SELECT {table.id}, {table.key_list}"
            f" FROM {table.scratch('touched')} WHERE rowid = ?",
            (number,),
        )
