"""What change sets mean by names of tables and columns, in the database's names of today.

A change set names them as the stream did where its writer was in the order. That gives identities, and those the names
that the database has for them.

Invariant: what is folded of a change set depends on the stream's schema alone, not on what this database calls it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import apsw

from harmonylite.changes.reassembler import Fragment
from harmonylite.db.mirror.stream_schema import NamesMeant, newest_end, writer_meant
from harmonylite.db.tracking.column_ids import Columns
from harmonylite.db.tracking.tracked_table import TrackedTable
from harmonylite.model import ChangeSetId
from harmonylite.schema.catalog import Catalog
from harmonylite.schema.names import folded
from harmonylite.schema.section import Known
from harmonylite.wire import SECTIONS, TableBlock, Updates


@dataclass
class StreamNames:
    """Identities and names. ``order``: the stream's; ``ends``: where in it, by shard, a name last changed its meaning.

    ``tables``: the database's tables, by identity; ``columns``: what is known of theirs, by number; ``known``: the
    tables that it ever had, by identity, with the columns that they had.
    """

    connection: apsw.Connection
    order: NamesMeant
    columns: Mapping[int, Columns]
    tables: dict[str, TrackedTable] = field(default_factory=dict)
    known: dict[str, Known] = field(default_factory=dict)
    ends: dict[int, int] = field(default_factory=dict)
    _written: tuple[ChangeSetId | None, dict[str, tuple[str, dict[str, str]]]] = (None, {})
    _here: dict[str, dict[str, str]] = field(default_factory=dict)
    _plain: dict[tuple[str, tuple[str, ...]], bool] = field(default_factory=dict)

    @classmethod
    def read(
        cls,
        connection: apsw.Connection,
        tables: Iterable[TrackedTable],
        columns: Mapping[int, Columns],
        captured: Iterable[Known],
        catalog: Catalog,
    ) -> StreamNames:
        """Return the names of the database's ``tables``; ``captured``: what counts so; ``catalog``: the stream's."""
        made = cls(connection, NamesMeant(connection, catalog), columns, ends=newest_end(connection))
        made.known = {k.id: k for k in captured if k.kind == "table" and k.id}
        by_number = {k.number: id_ for id_, k in made.known.items()}
        made.tables = {by_number[table.id]: table for table in tables if table.id in by_number}
        return made

    def _columns(self, table: str) -> dict[str, str]:
        """Return the database's names of a table's columns, by identity."""
        if table not in self._here and table in self.tables:
            here = self.tables[table]
            spelled = {folded(c.name): c.name for c in here.shape.columns if not c.pseudo}
            known = self.columns.get(here.id, {})
            self._here[table] = {c.id: spelled[n] for n, c in known.items() if c.id and n in spelled}
        return self._here.get(table, {})

    def meant(self, fragment: Fragment, part: TableBlock) -> TableBlock | None:
        """Return a part under the database's names; None where its table is gone, in the stream or here."""
        own = self._writers(fragment)
        seq = fragment.base.get(fragment.shard)
        name = folded(part.table)
        current = seq is None or seq >= self.ends.get(fragment.shard, -1)
        if name not in own and current and self._is_plain(part):
            return part
        columns: dict[str, str] | None = None
        if name in own:
            table, columns = own[name]
        else:
            table = self.order.table(name, fragment.shard, seq)
            if not table:
                return part  # the stream knows no such table, or not yet
        if table not in self.tables:
            if table not in self.order.tables or table in self.known:
                return None
            return _under(part, self.order.tables[table].name, part.columns)
        now: list[str | None] = []
        for place, column in enumerate(part.columns):
            is_key = place < part.keys
            if columns is not None and not is_key and folded(column) not in columns:
                now.append(None)  # it went before the section came
                continue
            if columns is not None:
                id_ = columns.get(folded(column), "")
            else:
                id_ = self.order.column(table, folded(column), fragment.shard, seq)
            now.append(self._column(table, id_, column, is_key=is_key))
        return self._renamed(fragment, part, self.tables[table].shape.name, now)

    def _is_plain(self, part: TableBlock) -> bool:
        """Return whether the database has the stream's names of today for what a part speaks of."""
        about = (part.table, tuple(part.columns))
        if about not in self._plain:
            there = self.order.catalog.get(("table", folded(part.table)))
            table = there.id if there is not None and there.name == part.table else ""
            mine = self._columns(table)
            meant = {name: self.order.column(table, folded(name), 0, None) for name in part.columns}
            here = self.tables.get(table)
            self._plain[about] = (
                here is not None
                and here.shape.name == part.table
                and all(mine.get(id_) == name for name, id_ in meant.items() if id_ or name in mine.values())
            )
        return self._plain[about]

    def _writers(self, fragment: Fragment) -> dict[str, tuple[str, dict[str, str]]]:
        """Return what the writer of a fragment means by names; it never changes once its section is folded."""
        if fragment.kind not in SECTIONS:
            return {}
        if self._written[0] != fragment.id:
            self._written = fragment.id, writer_meant(self.connection, fragment.id)
        return self._written[1]

    def _column(self, table: str, id_: str, name: str, *, is_key: bool) -> str | None:
        """Return the database's name of a column, None where it has none any more."""
        mine = self._columns(table)
        if not id_:
            taken = {folded(other) for other in mine.values()}
            return name if folded(name) not in taken or is_key else None
        if id_ in mine:
            return mine[id_]
        waits = _has(self.order.tables.get(table), id_) and not _has(self.known.get(table), id_)
        return name if waits or is_key else None

    @staticmethod
    def _renamed(fragment: Fragment, part: TableBlock, table: str, now: Sequence[str | None]) -> TableBlock:
        kept = [i for i, name in enumerate(now) if name is not None]
        columns = [name for name in now if name is not None]
        if len(kept) == len(now):
            return _under(part, table, columns)
        width = len(part.columns)
        images = (part.deletes, part.inserts, *(group.rows for group in part.updates))
        if any(len(row) != width for rows in images for row in rows):
            raise fragment.broken(f"a row of {part.table} has not {width} values")

        def cut(rows: Sequence[Sequence[object]]) -> list[list[object]]:
            return [[row[i] for i in kept] for row in rows]

        updates = [without(group, kept, cut(group.rows)) for group in part.updates]
        return TableBlock(table, columns, part.keys, cut(part.deletes), cut(part.inserts), updates)


def _has(table: Known | None, column: str) -> bool:
    """Return whether a table has a column of an identity."""
    return table is not None and any(id_ == column for _, id_ in table.columns)


def _under(part: TableBlock, table: str, columns: Sequence[str]) -> TableBlock:
    if table == part.table and list(columns) == list(part.columns):
        return part
    return TableBlock(table, list(columns), part.keys, part.deletes, part.inserts, part.updates)


def without(group: Updates, kept: Sequence[int], images: list[list[object]]) -> Updates:
    """Return updates of which only the columns ``kept`` are left, ``images`` cut to them; they may have none."""
    left = [n for n, i in enumerate(group.changed) if i in kept]
    old = [[row[n] for n in left] for row in group.old]
    return Updates([kept.index(group.changed[n]) for n in left], images, old)
