"""The meaning of change sets of an older schema under the database's present one.

A change set names tables and columns as its writer's database had them. Tables and columns that were renamed here since
are found under their new names. Values of a dropped column are ignored. Rows of a dropped table are folded into the
mirror's table, which stays: when the table comes back, so do its rows.

Invariant: a name that the database has (again) means the database's object.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import apsw

from harmonylite.changes.reassembler import Fragment
from harmonylite.changes.rekeying import rekeyed, renumbered
from harmonylite.db.mirror.former_names import FORMER, GONE, TABLES, UNSURE, columns_of
from harmonylite.db.mirror.state import history_of
from harmonylite.db.mirror.stream_names import without
from harmonylite.db.mirror.table_shapes import mirrored
from harmonylite.db.sqlite.connection import rows, value
from harmonylite.db.sqlite.lossless import insert_rows
from harmonylite.db.tracking.installed import Meanings
from harmonylite.db.tracking.tracked_table import TrackedTable
from harmonylite.db.tracking.waiting_schema import made_again
from harmonylite.model import ChangeSetId
from harmonylite.schema.names import find, folded
from harmonylite.schema.sql import quote
from harmonylite.wire import TableBlock

log = logging.getLogger(__name__)


@dataclass
class Named:
    """The tables that change sets name, whatever their names were at the capture.

    Lives for one transaction, because a rollback removes the scratch tables that it creates for a dropped table.
    ``tables``: those of the database. ``placeless``: sentences on new rows that have no place under the present key.
    ``moved``: the numbers that the current fold gave rows of a change set, see `harmonylite.changes.rekeying`.
    ``made_again``: names of tables of which this database has the older one, whose drop waits. They are read before the
    fold's transaction, which could not write any more if the application commits after its first read of the database.
    ``numbers``: the log's number of each table, by the stream's name in lower case. ``names``: what the stream's names
    mean, where identities are kept.
    """

    connection: apsw.Connection
    tables: Mapping[str, TrackedTable]
    numbers: Mapping[str, int]
    names: Meanings | None = None
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
        """Return a part under its table's present name; None if the table was dropped after the part was written, or
        before it arrived.
        """
        if self.names is not None:
            return self.names.meant(fragment, part)
        if not self.anything_gone or not fragment.base:
            return self._carrying(part, part.table)
        name, seq = part.table, fragment.base.get(fragment.shard, 0)
        while True:
            # a writer that made such a change, too, means its own result by the name
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
                    history_of(self.connection, "mirror"),
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
        """Return a part of the table that the stream calls ``name`` under the database's present name for it.

        None if the database dropped that table and created another one of its name, and has yet to send that.
        """
        number, table = self.numbers.get(folded(name), 0), self.get(name)
        if number and table is not None and table.id != number and table.shape.name in self.tables:
            here = next((each for each in self.tables.values() if each.id == number), None)
            if here is not None:
                return replace_name(part, here.shape.name)
            if table.id in self.numbers.values():  # else a migration rebuilt the same table
                return None
        return part if name == part.table else replace_name(part, name)

    def _dropped(self, name: str, fragment: Fragment) -> bool:
        """Return whether a table was dropped that a writer with a waiting change still has."""
        sql = f"SELECT 1 FROM mirror.{GONE} WHERE name = ? AND shard = ? AND seq < ? AND history = ? AND now IS NULL"
        given = (folded(name), fragment.shard, fragment.seq, history_of(self.connection, "mirror"))
        return value(self.connection, sql, given) is not None

    @cached_property
    def anything_gone(self) -> bool:
        """Return whether any name means another table than before."""
        return value(self.connection, f"SELECT 1 FROM mirror.{GONE} LIMIT 1") is not None

    def is_gone(self, name: str) -> bool:
        """Return whether only the mirror has the table that a change set calls ``name``."""
        table = self.get(name)
        return table is not None and table.shape.name not in self.tables

    def widened(self, table: TrackedTable, columns: Sequence[str]) -> TrackedTable:
        """Return a table of the mirror alone with more columns: other nodes have migrated it."""
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
        shape = mirrored(self.connection, name)
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
        """Return whether ``column`` was either dropped or renamed."""
        return self._former(table.shape.name).get(column) == UNSURE

    def _former(self, table: str) -> dict[str, str | None]:
        if self.names is not None:
            return {}
        if table not in self._columns:
            self._columns[table] = columns_of(self.connection, table)
        return self._columns[table]

    def renumber(self, change_set: ChangeSetId, table: TrackedTable, taken: Mapping[int, int]) -> None:
        """Record the new numbers of rows of ``change_set``; rows under the old ones are merged, too."""
        self.moved.setdefault(change_set, {}).setdefault(table.shape.name, {}).update(taken)
        self._touch(table, [[old] for old in taken])

    def numbered(self, change_set: ChangeSetId, table: TrackedTable, part: TableBlock) -> TableBlock:
        """Return ``part`` of ``change_set`` with the new numbers of the rows that it refers to."""
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
        """Log which rows were left out, once their transaction is committed."""
        for sentence in self.placeless:
            log.warning("%s", sentence)

    def as_here(self, table: TrackedTable, part: TableBlock) -> TableBlock:
        """Return ``part``, whose rows are as wide as its columns, with the present columns and key of ``table``.

        An unknown column stays unchanged, and so does a key that doesn't lead to the present one. An updated row
        without remaining columns stays, with none.
        """
        named = self._under_names_of_today(table, part)
        return rekeyed(table.shape, named) or named

    def _under_names_of_today(self, table: TrackedTable, part: TableBlock) -> TableBlock:
        shape = table.shape
        known = part.table == shape.name and all(column in shape.names for column in part.columns)
        if known:
            return part
        here = {folded(name): name for name in shape.names}
        now: dict[str, str | None] = {name: at for name, at in self._former(shape.name).items() if at != UNSURE}
        names = [here.get(folded(column), now.get(column, column)) for column in part.columns]
        # A writer that also has a column of the new name means that one.
        kept = [i for i, n in enumerate(names) if n is not None and (n == part.columns[i] or n not in part.columns)]
        if any(i not in kept for i in range(part.keys)):
            return part
        columns = [name for i in kept if (name := names[i]) is not None]
        if len(kept) == len(names):
            return TableBlock(shape.name, columns, part.keys, part.deletes, part.inserts, part.updates)

        def cut(images: Sequence[Sequence[object]]) -> list[list[object]]:
            return [[image[i] for i in kept] for image in images]

        updates = [without(group, kept, cut(group.rows)) for group in part.updates]
        return TableBlock(shape.name, columns, part.keys, cut(part.deletes), cut(part.inserts), updates)


@dataclass(frozen=True)
class Own:
    """The parts of ``fragments``, change sets of this node, for the database's tables, under present names.

    A part with an unknown column is left out: an adopted mirror may not know it. Each iteration decodes the parts
    again, because they may exceed memory.
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
