"""What change sets of an older schema mean under the database's of today.

A change set names tables and columns as its writer's database had them. What was renamed here since is found under its
new name. A column that went is left out of the rows, for nothing here holds it any more. A table that went is folded
into the mirror's, which stays: when it comes back, its rows do.

Invariant: a name that the database has (again) means what the database says.
"""

from __future__ import annotations

import glob
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import apsw

from harmonylite.changes.reassembler import Fragment
from harmonylite.changes.rekeying import rekeyed
from harmonylite.changes.renumbering import renumbered
from harmonylite.db.mirror.former_names import FORMER, TABLES, UNSURE, columns_of
from harmonylite.db.sqlite.connection import rows, value
from harmonylite.db.sqlite.introspection import TableRules, read_inventory
from harmonylite.db.sqlite.lossless import insert_rows
from harmonylite.db.tracking.tracked_table import TrackedTable
from harmonylite.model import ChangeSetId
from harmonylite.schema.names import find, folded
from harmonylite.schema.sql import quote
from harmonylite.wire import TableBlock, Updates

log = logging.getLogger(__name__)


@dataclass
class Named:
    """The tables that change sets name, whatever they were called when they were captured.

    Lives for one transaction: scratch tables that it makes for a table that went would not outlive one that is undone.
    ``tables``: those that the database has. ``placeless``: sentences on new rows that have no place under today's key.
    ``moved``: the numbers that the fold under way gave rows of a change set, see `harmonylite.changes.renumbering`.
    """

    connection: apsw.Connection
    tables: Mapping[str, TrackedTable]
    placeless: list[str] = field(default_factory=list)
    moved: dict[ChangeSetId, dict[str, dict[int, int]]] = field(default_factory=dict)
    _made: int = 0
    _others: dict[str, TrackedTable | None] = field(default_factory=dict)
    _columns: dict[str, dict[str, str | None]] = field(default_factory=dict)

    def get(self, name: str) -> TrackedTable | None:
        """Return the table that a change set calls ``name``; None: neither database nor mirror ever had it."""
        table = self.tables.get(name)
        if table is None and name not in self._others:
            self._others[name] = self._other(name)
        return table or self._others.get(name)

    def is_gone(self, name: str) -> bool:
        """Return whether the mirror alone has the table that a change set calls ``name``."""
        table = self.get(name)
        return table is not None and table.shape.name not in self.tables

    def widened(self, table: TrackedTable, columns: Sequence[str]) -> TrackedTable:
        """Return a table that went with more columns: others have migrated it, and nothing here is in the way."""
        name = table.shape.name
        strict = rows(
            self.connection, "SELECT strict FROM pragma_table_list WHERE schema = 'mirror' AND name = ?", (name,)
        )
        for column in columns:
            kind = " ANY" if strict[0][0] else ""
            self.connection.execute(f"ALTER TABLE {table.mirror} ADD COLUMN {quote(column)}{kind}")
        wider = self._mirrors(name) or table
        self._others = {called: wider if found is table else found for called, found in self._others.items()}
        return wider

    def _mirrors(self, called: str) -> TrackedTable | None:
        name = value(
            self.connection,
            "SELECT name FROM mirror.sqlite_schema WHERE type = 'table' AND lower(name) = lower(?)",
            (called,),
        )
        if name is None:
            return None
        shape = read_inventory(self.connection, TableRules(include=(glob.escape(name),)), "mirror").tables.get(name)
        if shape is None:
            return None
        self._made += 1
        table = TrackedTable(self.connection, -self._made, shape)
        table.drop_scratch()
        return table

    def _other(self, name: str) -> TrackedTable | None:
        same = find(name, self.tables)
        if same is not None:
            return self.tables[same]
        if (table := self._mirrors(name)) is not None:
            return table
        found = rows(self.connection, f"SELECT now FROM mirror.{FORMER} WHERE tbl = ? AND name = ?", (TABLES, name))
        return self.get(found[0][0]) if found else None

    def unsure(self, table: TrackedTable, column: str) -> bool:
        """Return whether ``column`` may be one that went, or that has another name now."""
        return self._former(table.shape.name).get(column) == UNSURE

    def _former(self, table: str) -> dict[str, str | None]:
        if table not in self._columns:
            self._columns[table] = columns_of(self.connection, table)
        return self._columns[table]

    def renumber(self, change_set: ChangeSetId, table: TrackedTable, taken: Mapping[int, int]) -> None:
        """Remember the new numbers of rows of ``change_set``; what is under the old ones is merged."""
        self.moved.setdefault(change_set, {}).setdefault(table.shape.name, {}).update(taken)
        self._touch(table, [[old] for old in taken])

    def numbered(self, change_set: ChangeSetId, table: TrackedTable, part: TableBlock) -> TableBlock:
        """Return ``part`` of ``change_set`` with the new numbers of what it refers to."""
        moved = self.moved.get(change_set)
        if not moved:
            return part
        if any(table.shape.column(column).key >= 0 for column, to in table.shape.refers if to in moved):
            self._touch(table, [row[: part.keys] for row in part.inserts])
        return renumbered(table.shape, part, moved)

    def _touch(self, table: TrackedTable, keys: list[list[object]]) -> None:
        insert_rows(
            self.connection,
            f"INSERT OR IGNORE INTO {table.scratch('touched')}({table.key_list})",
            len(table.shape.keys),
            keys,
        )

    def log_placeless(self) -> None:
        """Log what was left out of change sets of a transaction that is committed now."""
        for sentence in self.placeless:
            log.warning("%s", sentence)

    def as_here(self, table: TrackedTable, part: TableBlock) -> TableBlock:
        """Return what ``part``, whose rows are as wide as its columns, says of ``table`` with today's columns and key.

        A column that is not known stays as it is, and so does a key that does not lead to today's. A row of which
        nothing is left to update stays, with no column.
        """
        named = self._under_names_of_today(table, part)
        return rekeyed(table.shape, named) or named

    def _under_names_of_today(self, table: TrackedTable, part: TableBlock) -> TableBlock:
        shape = table.shape
        if part.table == shape.name and all(column in shape.names for column in part.columns):
            return part
        here = {folded(name): name for name in shape.names}
        now = {name: now for name, now in self._former(shape.name).items() if now != UNSURE}
        names = [here.get(folded(column), now.get(column, column)) for column in part.columns]
        # A writer that has a column by the new name, too, means that one.
        kept = [i for i, n in enumerate(names) if n is not None and (n == part.columns[i] or n not in part.columns)]
        if any(i not in kept for i in range(part.keys)):
            return part
        columns = [name for i in kept if (name := names[i]) is not None]
        if len(kept) == len(names):
            return TableBlock(shape.name, columns, part.keys, part.deletes, part.inserts, part.updates)

        def cut(images: Sequence[Sequence[object]]) -> list[list[object]]:
            return [[image[i] for i in kept] for image in images]

        updates = [_without(group, kept, cut(group.rows)) for group in part.updates]
        return TableBlock(shape.name, columns, part.keys, cut(part.deletes), cut(part.inserts), updates)


@dataclass(frozen=True)
class Own:
    """What ``fragments``, change sets of this node, say of the database's tables, in today's names.

    What names a column that nothing is known of is left out: a mirror that was taken over may not know it.
    Each iteration reads it again: there may be more of it than memory should hold.
    """

    named: Named
    fragments: Sequence[Fragment]

    def __iter__(self) -> Iterator[tuple[TrackedTable, TableBlock]]:
        for fragment in self.fragments:
            for block in fragment.decoded():
                for part in block:
                    table = self.named.get(part.table)
                    if table is not None and table.shape.name in self.named.tables:
                        here = self.named.as_here(table, part)
                        if set(here.columns) <= set(table.shape.names):
                            yield table, renumbered(table.shape, here, self.named.moved.get(fragment.id, {}))


def _without(group: Updates, kept: Sequence[int], images: list[list[object]]) -> Updates:
    """Return updates of which only the columns ``kept`` are left, ``images`` cut to them; they may have none."""
    left = [n for n, i in enumerate(group.changed) if i in kept]
    old = [[row[n] for n in left] for row in group.old]
    return Updates([kept.index(group.changed[n]) for n in left], images, old)
