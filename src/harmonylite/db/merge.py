"""Merge: bring the rows that a fold touched from the mirror into the database, three ways where the writer was faster.

Invariant: afterwards a touched row that the log doesn't name is equal in database and mirror, or held back; of a row
that the log names, what the local writer changed stays and everything else is the mirror's.

The whole runs in the transaction of the fold, with the database's write lock held. ``base.T`` is the mirror before the
transaction: the same file, attached a second time, which still reads the last committed state.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import apsw

from harmonylite.db import bases
from harmonylite.db.connection import is_unique, rows, try_or_undo, value
from harmonylite.db.exact import exact_rows
from harmonylite.db.fold import Folded, same_bits
from harmonylite.db.tracked import Tracked
from harmonylite.db.triggers import HELD
from harmonylite.schema.shape import any_differs, differs
from harmonylite.schema.sql import quote


class Merge:
    """Merges one table after the other within one transaction; ``rows`` counts rows of the database that changed."""

    def __init__(self, connection: apsw.Connection, *, in_flight: int = 0) -> None:
        self._connection = connection
        self._in_flight = in_flight
        self.rows = 0

    def table(self, table: Tracked, folded: Folded, *, held: bool) -> None:
        """Merge what a fold did to one table; ``held``: some of its rows are held back and tried again now."""
        if folded.fresh and not held and not table.logged and self._fresh(table, folded):
            return
        if folded.fresh:
            self._touch_incoming(table)
        if held:
            self._touch_held(table)
        pending = self._pending(table) if table.logged else False
        if not try_or_undo(self._connection, lambda: self._plainly(table, pending=pending))[0]:
            self._slowly(table, pending=pending)
        self._connection.execute(f"DELETE FROM {table.scratch('touched')}")

    # rows that are in nobody's way -----------------------------------------------------------------------------

    def _fresh(self, table: Tracked, folded: Folded) -> bool:
        """Insert rows that the mirror did not have either, straight from what came in."""
        shape = table.shape
        columns = shape.write([shape.columns[i].name for i in folded.present])
        values = ", ".join(f"x.c{i}" for i in folded.present)
        sql = f"INSERT INTO {table.main}({columns}) SELECT {values} FROM {table.scratch('incoming')} AS x"
        done, _ = try_or_undo(self._connection, lambda: self._changes(sql))
        return done

    def _changes(self, sql: str, bindings: Sequence[Any] = ()) -> int:
        self._connection.execute(sql, bindings)
        self.rows += self._connection.changes()
        return int(self._connection.changes())

    def _touch_incoming(self, table: Tracked) -> None:
        keys = ", ".join(f"c{i}" for i in range(len(table.shape.keys)))
        self._connection.execute(
            f"INSERT OR IGNORE INTO {table.scratch('touched')}({table.key_list})"
            f" SELECT {keys} FROM {table.scratch('incoming')}"
        )

    def _touch_held(self, table: Tracked) -> None:
        self._connection.execute(
            f"INSERT OR IGNORE INTO {table.scratch('touched')}({table.key_list})"
            f" SELECT {table.key_list} FROM main.{quote(HELD)} WHERE t = ?",
            (table.id,),
        )
        self._connection.execute(f"DELETE FROM main.{quote(HELD)} WHERE t = ?", (table.id,))

    def _plainly(self, table: Tracked, *, pending: bool) -> None:
        before = self.rows
        try:
            self._delete_unlogged(table)
            if pending:
                self._merge_pending(table)
            self._update_unlogged(table)
            self._insert_unlogged(table)
        except apsw.ConstraintError:
            self.rows = before
            raise

    # rows that the log doesn't name: the mirror's row, whatever it is -------------------------------------------

    def _free(self, table: Tracked) -> str:
        return f"NOT {table.in_logged}" if table.logged else "1"

    def _delete_unlogged(self, table: Tracked) -> None:
        shape = table.shape
        self._changes(
            f"DELETE FROM {table.main} WHERE {shape.target()} IN (SELECT {shape.places('d')}"
            f" FROM {table.scratch('touched')} AS x CROSS JOIN {table.main} AS d ON {shape.same('d', 'x')}"
            f" WHERE NOT EXISTS (SELECT 1 FROM {table.mirror} AS m WHERE {shape.same('m', 'x')})"
            f" AND {self._free(table)})"
        )

    def _update_unlogged(self, table: Tracked) -> None:
        shape = table.shape
        columns = [shape.columns[i] for i in shape.compared]
        if not columns:
            return
        sets = ", ".join(f"{quote(c.name)} = {shape.read(c, 'm')}" for c in columns)
        test = any_differs((c, shape.read(c, "d"), shape.read(c, "m")) for c in columns)
        self._changes(
            f"UPDATE {table.main} AS d SET {sets} FROM {table.scratch('touched')} AS x CROSS JOIN {table.mirror} AS m"
            f" ON {shape.same('m', 'x')} WHERE {shape.same('d', 'x')} AND {self._free(table)} AND ({test})"
        )

    def _insert_unlogged(self, table: Tracked, which: str = "1", bindings: Sequence[Any] = ()) -> int:
        shape = table.shape
        distinct = "DISTINCT " if shape.nullable_key else ""
        return self._changes(
            f"INSERT INTO {table.main}({shape.write()}) SELECT {distinct}{shape.read_all('m')}"
            f" FROM {table.scratch('touched')} AS x CROSS JOIN {table.mirror} AS m ON {shape.same('m', 'x')}"
            f" WHERE NOT EXISTS (SELECT 1 FROM {table.main} AS d WHERE {shape.same('d', 'x')})"
            f" AND {self._free(table)} AND {which}",
            bindings,
        )

    # rows that the log names: three ways ------------------------------------------------------------------------

    def _pending(self, table: Tracked) -> bool:
        """Write down the rows that the logged ones of the touched started from; tell whether there are logged ones.

        That is the image that was published where this fold brought the node's own change set back (``own``), else
        the mirror's row before this fold.
        """
        shape = table.shape
        before, own = table.scratch("before"), table.scratch("own")
        if value(self._connection, f"SELECT 1 FROM {table.scratch('touched')} AS x WHERE {table.in_logged} LIMIT 1") is None:
            return False
        names = table.column_list
        self._connection.execute(f"DELETE FROM {before}")
        mine = f"SELECT 1 FROM {own} AS o WHERE " + self._keys_equal(table, "o.c", "x.k")
        self._connection.execute(
            f"INSERT INTO {before}({names}) SELECT {shape.read_all('b')} FROM {table.scratch('touched')} AS x"
            f" CROSS JOIN {table.base} AS b ON {shape.same('b', 'x')} WHERE {table.in_logged} AND NOT EXISTS ({mine})"
        )
        self._connection.execute(
            f"INSERT INTO {before}({names}) SELECT {names} FROM {own} AS x WHERE gone = 0 AND "
            + table.in_logged.replace("x.k", "x.c")
        )
        return True

    @staticmethod
    def _keys_equal(table: Tracked, left: str, right: str) -> str:
        return " AND ".join(
            f"{left}{i} IS {right}{i} COLLATE {quote(c.collation)}" for i, c in enumerate(table.shape.keys)
        )

    def _three_ways(self, table: Tracked, *, reads: str = "") -> str:
        """Return the FROM and WHERE of rows that are logged and present in database, mirror and ``before``."""
        shape = table.shape
        return (
            f"FROM {table.scratch('touched')} AS x CROSS JOIN {table.main} AS d ON {shape.same('d', 'x')}"
            f" CROSS JOIN {table.mirror} AS m ON {shape.same('m', 'x')}"
            f" CROSS JOIN {table.scratch('before')} AS b ON {self._keys_equal(table, 'b.c', 'x.k')}"
            f" WHERE {table.in_logged}{reads}"
        )

    def _merged(self, table: Tracked, kept: frozenset[str] = frozenset()) -> list[tuple[str, str]]:
        """Return column and expression of the three-way merge; the columns ``kept`` stay the local writer's."""
        shape = table.shape
        changed = " OR ".join(
            differs(shape.columns[i], shape.read(shape.columns[i], "d"), f"b.c{i}") for i in shape.compared
        )
        merged = []
        for i in shape.compared:
            column = shape.columns[i]
            if column.name in kept:
                continue
            mine, theirs = shape.read(column, "d"), shape.read(column, "m")
            test = changed if table.by_row else differs(column, mine, f"b.c{i}")
            merged.append((quote(column.name), f"CASE WHEN {test} THEN {mine} ELSE {theirs} END"))
        return merged

    def _merge_pending(self, table: Tracked) -> None:
        self._remember_seen(table)
        self._delete_pending(table)
        merged = self._merged(table)
        if merged:
            shape = table.shape
            sets = ", ".join(f"{name} = n.n{i}" for i, (name, _) in enumerate(merged))
            places = [quote(shape.rowid)] if shape.rowid else [quote(c.name) for c in shape.keys]
            reads = ", ".join(
                [f"d.{place} AS p{i}" for i, place in enumerate(places)]
                + [f"{expression} AS n{i}" for i, (_, expression) in enumerate(merged)]
            )
            here = " AND ".join(f"t.{place} = n.p{i}" for i, place in enumerate(places))
            self._changes(
                f"UPDATE {table.main} AS t SET {sets} FROM (SELECT {reads} {self._three_ways(table)}) AS n WHERE {here}"
            )
        self._insert_pending(table)

    def _delete_pending(self, table: Tracked) -> None:
        """Delete logged rows that the local writer left as they were and that the mirror has no more."""
        shape = table.shape
        changed = any_differs((shape.columns[i], shape.read(shape.columns[i], "d"), f"b.c{i}") for i in shape.compared)
        self._changes(
            f"DELETE FROM {table.main} WHERE {shape.target()} IN (SELECT {shape.places('d')}"
            f" FROM {table.scratch('before')} AS b CROSS JOIN {table.main} AS d ON {shape.same('d', 'b', 'c')}"
            f" WHERE NOT EXISTS (SELECT 1 FROM {table.mirror} AS m WHERE {shape.same('m', 'b', 'c')})"
            f" AND NOT ({changed}))"
        )

    def _insert_pending(self, table: Tracked, which: str = "1", bindings: Sequence[Any] = ()) -> None:
        """Insert logged rows that the database has not and never had: the log named them for nothing."""
        shape = table.shape
        self._changes(
            f"INSERT INTO {table.main}({shape.write()}) SELECT {shape.read_all('m')}"
            f" FROM {table.scratch('touched')} AS x CROSS JOIN {table.mirror} AS m ON {shape.same('m', 'x')}"
            f" WHERE {table.in_logged} AND {which}"
            f" AND NOT EXISTS (SELECT 1 FROM {table.main} AS d WHERE {shape.same('d', 'x')})"
            f" AND NOT EXISTS (SELECT 1 FROM {table.scratch('before')} AS b WHERE {self._keys_equal(table, 'b.c', 'x.k')})",
            bindings,
        )

    def _remember_seen(self, table: Tracked) -> None:
        """Remember what the local writer saw of rows that are not captured yet and will overrule newer values."""
        shape = table.shape
        width = len(shape.columns)
        fresh = f" AND EXISTS (SELECT 1 FROM {table.scratch('logged')} AS l WHERE l.id > {self._in_flight} AND " + (
            " AND ".join(f"l.k{i} IS x.k{i}" for i in range(len(shape.keys))) + ")"
        )
        present = f"EXISTS (SELECT 1 FROM {table.main} AS e WHERE {shape.same('e', 'x')})"
        reads = [shape.read(c, alias) for alias in "dm" for c in shape.columns]
        reads += [*(f"b.c{i}" for i in range(width)), "b.rowid", present]
        source = (
            f"FROM {table.scratch('touched')} AS x CROSS JOIN {table.mirror} AS m ON {shape.same('m', 'x')}"
            f" LEFT JOIN {table.main} AS d ON {shape.same('d', 'x')}"
            f" LEFT JOIN {table.scratch('before')} AS b ON {self._keys_equal(table, 'b.c', 'x.k')}"
            f" WHERE {table.in_logged}{fresh}"
        )
        for row in exact_rows(self._connection, reads, source):
            mine, theirs, base = row[:width], row[width : 2 * width], row[2 * width : 3 * width]
            known, there = row[-2] is not None, bool(row[-1])
            if not known and not there:
                continue
            overruled = any(
                (not known or not same_bits(theirs[i], base[i]))
                and (not there or not same_bits(theirs[i], mine[i]))
                and (not there or not known or table.by_row or not same_bits(mine[i], base[i]))
                for i in shape.compared
            )
            if overruled:
                bases.remember(self._connection, table, theirs[: len(shape.keys)], base if known else None)

    # when a unique index objects --------------------------------------------------------------------------------

    def _slowly(self, table: Tracked, *, pending: bool) -> None:
        """Take every touched row that is to change out, merge the logged ones, then put back what fits.

        A logged row that would clash with another logged one keeps its local values in the columns of unique indexes;
        an unlogged one that would clash is held back: its own change set, or the other's, settles it.
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
            self._remember_seen(table)
            self._delete_pending(table)
            self._pending_slowly(table)
        for (number,) in rows(self._connection, f"SELECT x.rowid FROM {table.scratch('touched')} AS x ORDER BY x.rowid"):
            try:
                self._insert_unlogged(table, "x.rowid = ?", (number,))
                if pending:
                    self._insert_pending(table, "x.rowid = ?", (number,))
            except apsw.ConstraintError as error:
                if not is_unique(error):
                    raise
                self._hold(table, number)

    def _pending_slowly(self, table: Tracked) -> None:
        shape = table.shape
        merged = self._merged(table)
        kept = self._merged(table, shape.unique_columns)
        places = [quote(shape.rowid)] if shape.rowid else [quote(c.name) for c in shape.keys]
        here = " AND ".join(f"t.{place} = n.p{i}" for i, place in enumerate(places))
        for (number,) in rows(self._connection, f"SELECT x.rowid {self._three_ways(table)}"):
            for choice in (merged, kept):
                if not choice:
                    continue
                sets = ", ".join(f"{name} = n.n{i}" for i, (name, _) in enumerate(choice))
                reads = ", ".join(
                    [f"d.{place} AS p{i}" for i, place in enumerate(places)]
                    + [f"{expression} AS n{i}" for i, (_, expression) in enumerate(choice)]
                )
                chosen = self._three_ways(table, reads=" AND x.rowid = ?")
                sql = f"UPDATE {table.main} AS t SET {sets} FROM (SELECT {reads} {chosen}) AS n WHERE {here}"
                try:
                    self._changes(sql, (number,))
                    break
                except apsw.ConstraintError as error:
                    if not is_unique(error):
                        raise

    def _hold(self, table: Tracked, number: int) -> None:
        self._connection.execute(
            f"INSERT INTO main.{quote(HELD)}(t, {table.key_list}) SELECT {table.id}, {table.key_list}"
            f" FROM {table.scratch('touched')} WHERE rowid = ?",
            (number,),
        )
