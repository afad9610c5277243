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
from functools import cached_property

import apsw

from harmonylite.changes.reassembler import Fragment
from harmonylite.changes.rekeying import rekeyed
from harmonylite.changes.renumbering import renumbered
from harmonylite.db.mirror.former_names import AGAIN, FORMER, GONE, TABLES, UNSURE, columns_of, history
from harmonylite.db.sqlite.connection import rows, value
from harmonylite.db.sqlite.introspection import TableRules, read_inventory
from harmonylite.db.sqlite.lossless import insert_rows
from harmonylite.db.tracking.tracked_table import TrackedTable
from harmonylite.db.tracking.waiting_schema import made_again
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
    ``made_again``: names of tables of which this database has the older one, whose drop waits; read before the fold's
    transaction, which could not write any more if the application commits after its first read of the database.
    ``numbers``: by which number in the log the database knows a table that the stream calls so (in small letters).
    """

    connection: apsw.Connection
    tables: Mapping[str, TrackedTable]
    numbers: Mapping[str, int]
    placeless: list[str] = field(default_factory=list)
    moved: dict[ChangeSetId, dict[str, dict[int, int]]] = field(default_factory=dict)
    made_again: set[str] = field(init=False)
    _made: int = 0
    _others: dict[str, TrackedTable | None] = field(default_factory=dict)
    _columns: dict[str, dict[str, str | None]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.made_again = made_again(self.connection)

    def get(self, name: str) -> TrackedTable | None:
        """Return the table that a change set calls ``name``; None: neither database nor mirror ever had it."""
        table = self.tables.get(name)
        if table is None and name not in self._others:
            self._others[name] = self._other(name)
        return table or self._others.get(name)

    def meant(self, fragment: Fragment, part: TableBlock) -> TableBlock | None:
        """Return a part under the name that its table has now; None where that was dropped after it was written, or
        before it came.
        """
        if not self.anything_gone or not fragment.base:
            return self._carrying(part, part.table)
        name, seq = part.table, fragment.base.get(fragment.shard, 0)
        while True:
            # a writer that made such a change, too, means by the name what it made of it
            found = rows(
                self.connection,
                f"SELECT seq, now FROM mirror.{GONE} AS g WHERE name = ?1 AND shard = ?2 AND seq > ?3 AND seq < ?4"
                f" AND history = ?5 AND NOT EXISTS (SELECT 1 FROM mirror.{GONE} AS o WHERE o.name = g.name"
                " AND o.shard = ?2 AND o.seq > ?6 AND o.seq <= ?4 AND o.history = ?5 AND o.node = ?7)"
                " ORDER BY seq LIMIT 1",
                (
                    folded(name),
                    fragment.shard,
                    seq,
                    fragment.seq,
                    history(self.connection),
                    fragment.base.get(fragment.shard, 0),
                    fragment.id.node,
                ),
            )
            if not found:
                if self.get(name) is None and self._dropped(name, fragment):
                    return None
                return self._carrying(part, name)
            seq, now = found[0]
            if now is None:
                return None
            name = now

    def _carrying(self, part: TableBlock, name: str) -> TableBlock | None:
        """Return a part of the table that the stream calls ``name`` under the name that the database gave it since.

        None where the database dropped that one and made another one of its name; it is still to say so.
        """
        number, table = self.numbers.get(folded(name), 0), self.get(name)
        if number and table is not None and table.id != number and table.shape.name in self.tables:
            here = next((each for each in self.tables.values() if each.id == number), None)
            if here is not None:
                return replace_name(part, here.shape.name)
            if table.id in self.numbers.values():  # else a migration made the same table again
                return None
        return part if name == part.table else replace_name(part, name)

    def _dropped(self, name: str, fragment: Fragment) -> bool:
        """Return whether a table was dropped that a writer which waits has still."""
        sql = f"SELECT 1 FROM mirror.{GONE} WHERE name = ? AND shard = ? AND seq < ? AND history = ? AND now IS NULL"
        return (
            value(self.connection, sql, (folded(name), fragment.shard, fragment.seq, history(self.connection)))
            is not None
        )

    @cached_property
    def anything_gone(self) -> bool:
        """Return whether any name means another table than it once did."""
        return value(self.connection, f"SELECT 1 FROM mirror.{GONE} LIMIT 1") is not None

    @cached_property
    def anything_again(self) -> bool:
        """Whether any column has a name by which the stream knows another one."""
        return value(self.connection, f"SELECT 1 FROM mirror.{FORMER} WHERE now = ? LIMIT 1", (AGAIN,)) is not None

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
        known = part.table == shape.name and all(column in shape.names for column in part.columns)
        if known and not self.anything_again:
            return part
        here = {folded(name): name for name in shape.names}
        now: dict[str, str | None] = {name: at for name, at in self._former(shape.name).items() if at != UNSURE}
        for again in [name for name, at in now.items() if at == AGAIN]:  # the stream means the column that had it
            now[again] = None
            here.pop(folded(again), None)
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
                for found in block:
                    part = self.named.meant(fragment, found)
                    table = self.named.get(part.table) if part is not None else None
                    if part is not None and table is not None and table.shape.name in self.named.tables:
                        here = self.named.as_here(table, part)
                        if set(here.columns) <= set(table.shape.names):
                            yield table, renumbered(table.shape, here, self.named.moved.get(fragment.id, {}))


def replace_name(part: TableBlock, name: str) -> TableBlock:
    """Return a part under another name of its table."""
    return TableBlock(name, part.columns, part.keys, part.deletes, part.inserts, part.updates)


def _without(group: Updates, kept: Sequence[int], images: list[list[object]]) -> Updates:
    """Return updates of which only the columns ``kept`` are left, ``images`` cut to them; they may have none."""
    left = [n for n, i in enumerate(group.changed) if i in kept]
    old = [[row[n] for n in left] for row in group.old]
    return Updates([kept.index(group.changed[n]) for n in left], images, old)
