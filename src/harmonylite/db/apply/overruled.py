"""The journal's entries of a fold: values of the mirror that give way to the rows in ``incoming``.

Invariant: a value is in the journal exactly if the writer that overrules or deletes it saw another one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import apsw

from harmonylite.changes.reassembler import Fragment
from harmonylite.db.mirror.conflict_journal import ConflictJournal, Overruled
from harmonylite.db.sqlite.lossless import exact_rows
from harmonylite.db.tracking.tracked_table import TrackedTable
from harmonylite.schema.shape import any_of, differs

WIDE = 200
"""Columns that one statement searches for the journal: it reads three values of each (SQLite: limits)."""


@dataclass
class OverruledValues:
    """Finds overruled values in the mirror's rows, before the fold writes them."""

    connection: apsw.Connection
    journal: ConflictJournal

    def by_deletes(self, fragment: Fragment, table: TrackedTable, columns: Sequence[int]) -> None:
        """Journal what deletes overrule: values that differ from those that their writer last saw."""
        self._write(fragment, table, "delete", {i: self._other(table, i, "c") for i in columns})

    def by_rows(
        self, fragment: Fragment, table: TrackedTable, columns: Sequence[int], changed: Sequence[int] | None
    ) -> None:
        """Journal present values that differ both from what the writer last saw and from what it writes.

        ``changed`` None: an insert; its writer saw no row at all.
        """
        terms = {i: self._other(table, i, "c") for i in columns}
        if changed is not None:
            terms = {i: f"({term} AND {self._other(table, i, 'o')})" for i, term in terms.items()}
        self._write(fragment, table, "insert" if changed is None else "update", terms)

    @staticmethod
    def _other(table: TrackedTable, index: int, prefix: str) -> str:
        """Return the condition that a value of the mirror differs from the incoming one."""
        column = table.shape.columns[index]
        return differs(column, table.shape.read(column, "m"), f"x.{prefix}{index}")

    def _write(self, fragment: Fragment, table: TrackedTable, kind: str, terms: Mapping[int, str]) -> None:
        """Journal what the rows in ``incoming`` overrule: each column whose condition in ``terms`` is true."""
        shape, keys = table.shape, len(table.shape.keys)
        both = f"{table.scratch('incoming')} AS x CROSS JOIN {table.mirror} AS m ON {shape.same('m', 'x', 'c')}"
        columns = list(terms)
        for some in (columns[start : start + WIDE] for start in range(0, len(columns), WIDE)):
            reads = [shape.read(column, "m") for column in shape.keys]
            for i in some:
                reads += [shape.read(shape.columns[i], "m"), "NULL" if kind == "delete" else f"x.c{i}", terms[i]]
            where = any_of([terms[i] for i in some])
            for row in exact_rows(self.connection, reads, f"FROM {both} WHERE {where}"):
                each = zip(some, row[keys::3], row[keys + 1 :: 3], row[keys + 2 :: 3], strict=True)
                overruled = [Overruled(i, new, present) for i, present, new, holds in each if holds]
                self.journal.write(fragment, table, row[:keys], kind, overruled)
