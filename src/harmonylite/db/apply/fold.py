"""Fold: bring one change set into the mirror, the same way on every node.

Invariant: the mirror after a fold depends only on the mirror before it and on the change set: deletes first, then
upserts in the order of the message; an upsert of a present row sets the changed columns, one of a missing row inserts
the image; a row whose unique value it takes is displaced. If a plain statement violates a unique index, the slow way
(remove all rows of the group, insert their merged images, displace others) gives the same result as a statement without
a violation within the group, so the order in which SQLite visits rows doesn't matter.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import apsw

from harmonylite.changes.reassembler import Fragment
from harmonylite.changes.rekeying import renumbered
from harmonylite.db.apply import numbers
from harmonylite.db.apply.overruled import KnownRows, OverruledValues
from harmonylite.db.apply.rowid_conflicts import claims_first, make_room
from harmonylite.db.apply.staging import (
    Effect,
    Folded,
    applicable,
    check_updates,
    check_widths,
    foreign_values,
    stage_updates,
    whole_keys,
)
from harmonylite.db.mirror.conflict_journal import ConflictJournal, whole_row
from harmonylite.db.mirror.schema_history import Named
from harmonylite.db.sqlite.connection import execute_or_not, rows, try_or_undo
from harmonylite.db.sqlite.introspection import find_shape
from harmonylite.db.sqlite.lossless import exact_rows
from harmonylite.db.tracking.tracked_table import TrackedTable
from harmonylite.errors import RowRefusedError
from harmonylite.schema.section import SECTION
from harmonylite.schema.shape import TableShape
from harmonylite.schema.sql import PRIVATE, quote
from harmonylite.wire import SECTIONS, TableBlock

DISPLACING = quote(PRIVATE + "displacing")
"""The trigger that keeps displaced rows."""
Tables = dict[str, TrackedTable]
"""By name; those in which a fragment displaced rows."""


@dataclass
class Fold:
    """Folds fragments within one transaction of the caller; ``done`` has the effect on each table.

    ``displaced``: a row gave way to another one with its unique value.
    """

    connection: apsw.Connection
    tables: Named
    journal: ConflictJournal
    known: KnownRows
    done: dict[str, Folded] = field(default_factory=dict)
    displaced: bool = False

    def __post_init__(self) -> None:
        self._like: dict[str, TableShape | None] = {}
        self.overruled = OverruledValues(self.connection, self.journal)
        self._saw_all = False

    def fragment(self, fragment: Fragment) -> int:
        """Fold one fragment; return its number of rows. Raises SchemaWaitError, PoisonError."""
        displacing: Tables = {}
        self.journal.begin()
        count = 0
        self._saw_all = self._has_seen_all(fragment)
        for block in fragment.decoded():
            for found in block:
                if found.table == SECTION and fragment.kind in SECTIONS:
                    continue
                part = self.tables.meant(fragment, found)
                if part is None:
                    self.journal.write_dropped(fragment, found)
                    continue
                here, table, present = applicable(self.tables, fragment, part)
                with foreign_values(fragment, here):
                    count += self._part(fragment, table, present, here, displacing)
        for folded in self.done.values():
            self._settle(fragment, folded.table, folded, displacing)
        for table in displacing.values():
            self._journal_displaced(fragment, table)
        self.displaced = self.displaced or bool(displacing)
        self.known.folded(fragment)
        return count

    def _has_seen_all(self, fragment: Fragment) -> bool:
        """Return whether the writer of ``fragment`` saw the rows as the mirror has them; not those with new numbers."""
        return self.known.are_known(fragment) and not self.tables.moved

    def _part(
        self, fragment: Fragment, table: TrackedTable, present: tuple[int, ...], part: TableBlock, displacing: Tables
    ) -> int:
        check_widths(fragment, part)
        part = self.tables.numbered(fragment.id, table, part)
        folded = self.done.get(table.shape.name)
        if folded is not None and folded.table is not table:  # it was widened meanwhile
            self._settle(fragment, folded.table, folded, displacing)
            folded = None
        if folded is None:
            fresh = whole_keys(table, part.inserts)
            nothing = Effect(gone=False, new=False, columns=frozenset())
            folded = self.done[table.shape.name] = Folded(table, fresh, present=present, effect=nothing)
        if part.deletes:
            self._settle(fragment, table, folded, displacing)
            self._leave_fresh(table, folded)
            table.put("incoming", present, part.deletes)
            self._delete(fragment, table, present)
        if table.shape.identity or fragment.id in self.tables.moved:
            part = self._number(fragment, table, folded, part, displacing)
        if part.inserts:
            self._insert(fragment, folded, present, part.inserts, displacing)
        for group in part.updates:
            self._settle(fragment, table, folded, displacing)
            self._leave_fresh(table, folded)
            stage_updates(self.connection, fragment, table, present, group)
            changed = [present[i] for i in group.changed]
            self._update(fragment, table, present, changed, len(group.rows), displacing)
        return part.count

    def _number(
        self,
        fragment: Fragment,
        table: TrackedTable,
        folded: Folded,
        part: TableBlock,
        displacing: Tables,
    ) -> TableBlock:
        """Return ``part`` with new numbers for new rows whose number or identity the mirror has; see `numbers`."""
        self._settle(fragment, table, folded, displacing)
        for group in part.updates:
            check_updates(fragment, table.shape.name, group, len(part.columns))
        taken = numbers.of_part(self.connection, table, part) if table.shape.identity else {}
        if taken:
            self.tables.renumber(fragment.id, table, taken)
        if fragment.id in self.tables.moved:
            self._leave_fresh(table, folded)
            folded.touched = True
            folded.effect.anything()
        return renumbered(table.shape, part, {table.shape.name: taken}) if taken else part

    # rows that are new ------------------------------------------------------------------------------------------

    def _leave_fresh(self, table: TrackedTable, folded: Folded) -> None:
        """Track the table's keys one by one from now on."""
        if folded.fresh:
            folded.fresh = False
            if folded.rows:
                self._touch(table, folded)
                folded.effect.adds()

    def _touch(self, table: TrackedTable, folded: Folded) -> None:
        """Add the keys in ``incoming`` to ``touched``."""
        folded.touched = True
        keys = ", ".join(f"c{i}" for i in range(len(table.shape.keys)))
        self.connection.execute(
            f"INSERT OR IGNORE INTO {table.scratch('touched')}({table.key_list})"
            f" SELECT {keys} FROM {table.scratch('incoming')}"
        )

    # deletes ---------------------------------------------------------------------------------------------------

    def _delete(self, fragment: Fragment, table: TrackedTable, present: Sequence[int]) -> None:
        self._touch(table, self.done[table.shape.name])
        self.done[table.shape.name].effect.removes()
        shape = table.shape
        join = f"{table.scratch('incoming')} AS x CROSS JOIN {table.mirror} AS m ON {shape.same('m', 'x', 'c')}"
        others = [i for i in present if shape.columns[i].key < 0]
        if not self._saw_all or shape.identity:
            self.overruled.by_deletes(fragment, table, others)
        self.connection.execute(
            f"DELETE FROM {table.mirror} WHERE {shape.target()} IN (SELECT {shape.places('m')} FROM {join})"
        )

    # inserts ---------------------------------------------------------------------------------------------------

    def _insert(
        self, fragment: Fragment, folded: Folded, present: tuple[int, ...], images: list[list[Any]], displacing: Tables
    ) -> None:
        table, there = folded.table, folded.rows + sum(folded.waiting)
        fits = folded.fresh and folded.present == present and whole_keys(table, images)
        if fits and (there == 0 or len(images) > 1 or there < 10_000):
            table.put("incoming", present, images, add=there > 0)
            folded.waiting.append(len(images))
            return
        self._settle(fragment, table, folded, displacing)
        self._leave_fresh(table, folded)
        table.put("incoming", present, images)
        self._insert_staged(fragment, table, folded, present, displacing)

    def _settle(self, fragment: Fragment, table: TrackedTable, folded: Folded, displacing: Tables) -> None:
        """Insert the waiting parts: all at once if no row violates a unique index, else one after the other."""
        parts, folded.waiting = folded.waiting, []
        if not parts:
            return
        if self._plain_insert(table, folded.present, f"x.rowid > {folded.rows}", whole=True):
            folded.rows += sum(parts)
            return
        incoming, waiting = table.scratch("incoming"), table.scratch("waiting")
        self.connection.execute(f"INSERT INTO {waiting} SELECT * FROM {incoming} WHERE rowid > {folded.rows}")
        self.connection.execute(f"DELETE FROM {incoming} WHERE rowid > {folded.rows}")
        self._leave_fresh(table, folded)
        start = 0
        for size in parts:
            table.empty("incoming")
            self.connection.execute(
                f"INSERT INTO {incoming} SELECT * FROM {waiting} WHERE rowid > {start} AND rowid <= {start + size}"
            )
            start += size
            self._insert_staged(fragment, table, folded, folded.present, displacing)
        table.empty("waiting")

    def _insert_staged(
        self, fragment: Fragment, table: TrackedTable, folded: Folded, present: tuple[int, ...], displacing: Tables
    ) -> None:
        """Insert the rows in ``incoming``."""
        self._touch(table, folded)
        folded.effect.adds()
        if not self._plain_insert(table, present, "1", whole=not table.shape.nullable_key):
            self.overruled.by_rows(fragment, table, [i for i in present if i in table.shape.compared], None)
            self._slowly(table, present, None)
            displacing[table.shape.name] = table

    def _plain_insert(self, table: TrackedTable, present: Sequence[int], which: str, *, whole: bool) -> bool:
        """Insert rows of ``incoming`` unless one violates a unique index; ``whole``: no key among them holds NULL."""
        shape = table.shape
        columns, values = self._into(table, present)
        sql = (
            f"{table.insert_into} {table.mirror}({columns}) SELECT {values} FROM {table.scratch('incoming')} AS x"
            f" WHERE {which}{claims_first(table, 'x.c') or ' ORDER BY x.rowid'}"
        )
        if not whole:
            make_room(self.connection, table, table.mirror, "incoming", "c")
            # SQLite finds no violation for a key that holds NULL, so its presence is checked first
            there = f"SELECT 1 FROM {table.scratch('incoming')} AS x CROSS JOIN {table.mirror} AS m"
            if self.connection.execute(f"{there} ON {shape.same('m', 'x', 'c')} LIMIT 1").fetchone():
                return False
        return execute_or_not(self.connection, sql)

    def _into(self, table: TrackedTable, present: Sequence[int]) -> tuple[str, str]:
        """Return columns and values of an insert; what rows lack is the same on every node that folds them."""
        if not table.streamed or len(present) == len(table.shape.columns):
            return table.shape.into(present, "x.c{}".format)
        name = table.shape.name
        if name not in self._like:
            self._like[name] = find_shape(self.connection, name, "mirror")[0]
        return table.shape.into(present, "x.c{}".format, like=self._like[name])

    # updates ---------------------------------------------------------------------------------------------------

    def _update(
        self,
        fragment: Fragment,
        table: TrackedTable,
        present: tuple[int, ...],
        changed: list[int],
        count: int,
        displacing: Tables,
    ) -> None:
        """Set the columns ``changed`` of the ``count`` rows in ``incoming``; one that is missing is inserted."""
        shape, folded = table.shape, self.done[table.shape.name]
        self._touch(table, folded)
        folded.effect.changes(changed)
        if not self._saw_all or shape.identity:
            self.overruled.by_rows(fragment, table, changed, changed)
        sets = ", ".join(f"{quote(shape.columns[i].name)} = x.c{i}" for i in changed if not shape.columns[i].pseudo)
        incoming = table.scratch("incoming")
        absent = f"NOT EXISTS (SELECT 1 FROM {table.mirror} AS m WHERE {shape.same('m', 'x', 'c')})"
        columns, values = self._into(table, present)

        make_room(self.connection, table, table.mirror, "incoming", "c")

        def plain() -> None:
            if sets:
                self.connection.execute(
                    f"{table.update_verb} {table.mirror} AS m SET {sets} FROM {incoming} AS x"
                    f" WHERE {shape.same('m', 'x', 'c')}"
                )
                if self.connection.changes() == count and not shape.nullable_key:
                    return  # a row of the mirror for each
            folded.effect.adds()
            self.connection.execute(
                f"{table.insert_into} {table.mirror}({columns}) SELECT {values} FROM {incoming} AS x WHERE {absent}"
                f"{claims_first(table, 'x.c')}"
            )

        if not try_or_undo(self.connection, plain)[0]:
            self._slowly(table, present, changed)
            displacing[table.shape.name] = table

    def _slowly(self, table: TrackedTable, present: Sequence[int], changed: Sequence[int] | None) -> None:
        """Remove the rows of the group, then insert their merged images one after the other, displacing others."""
        shape = table.shape
        self.done[shape.name].effect.anything()
        incoming = table.scratch("incoming")
        kept = [i for i in range(len(shape.columns)) if i not in (present if changed is None else changed)]
        kept = [i for i in kept if shape.columns[i].key < 0]
        execute = self.connection.execute
        match = f"{table.mirror} AS m WHERE {shape.same('m', 'x', 'c')}"
        if kept:
            # unchanged columns come from the present row, if there is one
            names = ", ".join(f"c{i}" for i in kept)
            reads = ", ".join(shape.read(shape.columns[i], "m") for i in kept)
            execute(
                f"UPDATE {incoming} AS x SET ({names}) = (SELECT {reads} FROM {match})"
                f" WHERE EXISTS (SELECT 1 FROM {match})"
            )
        some = len(present) < len(shape.columns)
        there = self._rowids(table, f" WHERE EXISTS (SELECT 1 FROM {match})") if some else None
        execute(
            f"DELETE FROM {table.mirror} WHERE {shape.target()} IN (SELECT {shape.places('m')}"
            f" FROM {incoming} AS x CROSS JOIN {table.mirror} AS m ON {shape.same('m', 'x', 'c')})"
        )
        displaced = table.scratch("displaced").removeprefix("temp.")  # a trigger's statements name no schema
        execute(
            f"CREATE TEMP TRIGGER {DISPLACING} AFTER DELETE ON {table.mirror} BEGIN"
            f" INSERT INTO {displaced} SELECT {shape.read_all('OLD')}; END"
        )
        make_room(self.connection, table, table.mirror, "incoming", "c")
        self._refuse_nulls(table, present)
        self._put_in(table, present, there)
        execute(f"DROP TRIGGER temp.{DISPLACING}")
        self._touch_displaced(table)

    def _rowids(self, table: TrackedTable, then: str) -> list[int]:
        return [
            number for (number,) in rows(self.connection, f"SELECT x.rowid FROM {table.scratch('incoming')} AS x{then}")
        ]

    def _refuse_nulls(self, table: TrackedTable, present: Sequence[int]) -> None:
        """Raise RowRefusedError for a NULL that OR REPLACE would turn into a default (SQLite: lang_conflict)."""
        for i in present:
            column = table.shape.columns[i]
            if column.not_null and column.defaulted and self._rowids(table, f" WHERE x.c{i} IS NULL LIMIT 1"):
                raise RowRefusedError(f"NOT NULL constraint failed: {table.shape.name}.{column.name}")

    def _put_in(self, table: TrackedTable, present: Sequence[int], there: Sequence[int] | None) -> None:
        """Insert the rows of ``incoming`` into the mirror one after the other, displacing others.

        A row that was not ``there`` gets defaults for the columns that the change set lacks; None: it lacks none.
        """
        everything = range(len(table.shape.columns))
        order = claims_first(table, "x.c") or " ORDER BY x.rowid"

        def put(which: Sequence[int], where: str, *bindings: str) -> None:
            columns, values = self._into(table, which)
            self.connection.execute(
                f"INSERT OR REPLACE INTO {table.mirror}({columns}) SELECT {values}"
                f" FROM {table.scratch('incoming')} AS x{where}{order}",
                bindings,
            )

        if there is None:
            put(everything, "")
            return
        whole = set(there)
        for known, some in groupby(self._rowids(table, order), whole.__contains__):
            where = " WHERE x.rowid IN (SELECT value FROM json_each(?))"
            put(everything if known else present, where, json.dumps(list(some)))

    def _touch_displaced(self, table: TrackedTable) -> None:
        keys = ", ".join(f"c{i}" for i in range(len(table.shape.keys)))
        self.connection.execute(
            f"INSERT OR IGNORE INTO {table.scratch('touched')}({table.key_list})"
            f" SELECT {keys} FROM {table.scratch('displaced')}"
        )

    # the journal -----------------------------------------------------------------------------------------------

    def _journal_displaced(self, fragment: Fragment, table: TrackedTable) -> None:
        """Journal the rows that were displaced and that the same change set did not insert again."""
        shape = table.shape
        absent = f"NOT EXISTS (SELECT 1 FROM {table.mirror} AS m WHERE {shape.same('m', 'x', 'c')})"
        displaced = table.scratch("displaced")
        reads = [f"x.c{i}" for i in range(len(shape.columns))]
        for row in exact_rows(self.connection, reads, f"FROM {displaced} AS x WHERE {absent}"):
            self.journal.write(fragment, table, row, "unique", whole_row(shape, row))
        table.empty("displaced")
