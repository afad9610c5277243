"""The journal's entries of a fold: values of the mirror that give way to the rows in ``incoming``.

Invariant: a value is in the journal exactly if the writer that overrules or deletes it saw another one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import apsw

from harmonylite.changes.reassembler import Fragment
from harmonylite.db.mirror import mirror_file
from harmonylite.db.mirror.conflict_journal import ConflictJournal, Overruled
from harmonylite.db.mirror.state import history_of
from harmonylite.db.sqlite.lossless import exact_rows
from harmonylite.db.tracking.tracked_table import TrackedTable
from harmonylite.model import ChangeSetId
from harmonylite.schema.shape import any_of, differs
from harmonylite.wire import SECTIONS

WIDE = 200
"""Columns that one statement searches for the journal: it reads three values of each (SQLite: limits)."""


class KnownRows:
    """Says which writers had folded all rows that the mirror has: what they saw is what it holds.

    Most change sets are such: one node writes, or each sees the others' rows before it writes again. So the fold need
    not compare their old values with the mirror's. ``forget`` when the mirror got rows in another way than by a fold.
    """

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection
        self._newest: dict[int, tuple[int, ChangeSetId | None, int]] = {}
        """By shard the newest place with rows, whose they are, and the place before that change set."""

    def forget(self) -> None:
        """Count all that the mirror has as just come."""
        self._newest = {}

    def are_known(self, fragment: Fragment) -> bool:
        """Return whether the writer of ``fragment`` had folded all that the mirror has, and saw its rows so.

        It did not see the newest of a row that its application changed before others' change came (see `merge_base`).
        """
        if not self._newest:
            places = mirror_file.positions(self._connection, "mirror")
            self._newest = {shard: (place.seq, None, place.seq) for shard, place in places.items()}
        if not fragment.current or fragment.kind in SECTIONS:
            return False
        folded_all = all(
            fragment.base.get(shard, -1) >= (before if whose == fragment.id else seq)
            for shard, (seq, whose, before) in self._newest.items()
        )
        return folded_all and fragment.history == history_of(self._connection, "mirror")

    def folded(self, fragment: Fragment) -> None:
        """Take note that the mirror has the rows of ``fragment``; also if its transaction fails, which is no harm.

        Rows that come with a change of the schema count as known only with what comes behind them: their writer's
        position may be the section's alone (see `schema_section.known_up_to`).
        """
        before = self._newest.get(fragment.shard, (fragment.seq, None, fragment.seq))[0]
        self._newest[fragment.shard] = (fragment.seq + (fragment.kind in SECTIONS), fragment.id, before)


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
