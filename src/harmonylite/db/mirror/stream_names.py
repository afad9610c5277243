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
from harmonylite.db.mirror.stream_schema import column_meant, newest_end, read_catalog, table_meant, writer_meant
from harmonylite.db.tracking.column_ids import Columns
from harmonylite.db.tracking.tracked_table import TrackedTable
from harmonylite.schema.catalog import tables_of
from harmonylite.schema.names import folded
from harmonylite.schema.section import Known
from harmonylite.wire import SECTIONS, TableBlock, Updates


@dataclass
class StreamNames:
    """Identities and names. ``tables``: the database's names of tables, by identity; ``columns``: of columns, by the
    table's identity and their own; ``ends``: where in the order, by shard, the last name changed its meaning.

    ``stream``: tables that the stream has now, by identity; ``known``: columns that this database ever had, by the
    table's identity.
    """

    connection: apsw.Connection
    tables: dict[str, str] = field(default_factory=dict)
    columns: dict[str, dict[str, str]] = field(default_factory=dict)
    stream: dict[str, tuple[str, set[str]]] = field(default_factory=dict)
    known: dict[str, set[str]] = field(default_factory=dict)
    ends: dict[int, int] = field(default_factory=dict)
    _plain: dict[tuple[str, tuple[str, ...]], bool] = field(default_factory=dict)

    @classmethod
    def read(
        cls,
        connection: apsw.Connection,
        tables: Mapping[str, TrackedTable],
        columns: Mapping[int, Columns],
        captured: Iterable[Known],
    ) -> StreamNames:
        """Return the names of the database's ``tables``; ``columns``: what is known of theirs, by number;
        ``captured``: the captured schema.
        """
        made = cls(connection, ends=newest_end(connection))
        made.stream = {
            id_: (k.name, {c for _, c in k.columns}) for id_, k in tables_of(read_catalog(connection).values()).items()
        }
        listed = [k for k in captured if k.kind == "table" and k.id]
        by_number = {k.number: k for k in listed}
        made.known = {k.id: {id_ for _, id_ in k.columns} for k in listed}
        for name, table in tables.items():
            if table.id in by_number:
                id_ = by_number[table.id].id
                made.tables[id_] = name
                spelled = {folded(c.name): c.name for c in table.shape.columns if not c.pseudo}
                made.columns[id_] = {
                    c.id: spelled[n] for n, c in columns.get(table.id, {}).items() if c.id and n in spelled
                }
        return made

    def meant(self, fragment: Fragment, part: TableBlock) -> TableBlock | None:
        """Return a part under the database's names; None where its table is gone, in the stream or here."""
        own = writer_meant(self.connection, fragment.id) if fragment.kind in SECTIONS else {}
        seq = fragment.base.get(fragment.shard)
        name = folded(part.table)
        current = seq is None or seq >= self.ends.get(fragment.shard, -1)
        if name not in own and current and self._is_plain(part):
            return part
        columns: dict[str, str] | None = None
        if name in own:
            table, columns = own[name]
        else:
            table = table_meant(self.connection, name, fragment.shard, seq)
            if not table:
                return part  # the stream knows no such table, or not yet
        if table not in self.tables:
            if table not in self.stream or table in self.known:
                return None
            return _under(part, self.stream[table][0], part.columns)
        now: list[str | None] = []
        for place, column in enumerate(part.columns):
            is_key = place < part.keys
            if columns is not None and not is_key and folded(column) not in columns:
                now.append(None)  # it went before the section came
                continue
            if columns is not None:
                id_ = columns.get(folded(column), "")
            else:
                id_ = column_meant(self.connection, table, folded(column), fragment.shard, seq)
            now.append(self._column(table, id_, column, is_key=is_key))
        return self._renamed(fragment, part, self.tables[table], now)

    def _is_plain(self, part: TableBlock) -> bool:
        """Return whether the database has the stream's names of today for what a part speaks of."""
        about = (part.table, tuple(part.columns))
        if about not in self._plain:
            table = next((id_ for id_, (name, _) in self.stream.items() if name == part.table), "")
            mine = self.columns.get(table, {})
            self._plain[about] = self.tables.get(table) == part.table and all(
                mine.get(column_meant(self.connection, table, folded(name), 0, None)) == name
                for name in part.columns
                if name in mine.values() or column_meant(self.connection, table, folded(name), 0, None)
            )
        return self._plain[about]

    def _column(self, table: str, id_: str, name: str, *, is_key: bool) -> str | None:
        """Return the database's name of a column, None where it has none any more."""
        mine = self.columns[table]
        if not id_:
            taken = {folded(other) for other in mine.values()}
            return name if folded(name) not in taken or is_key else None
        if id_ in mine:
            return mine[id_]
        waits = id_ in self.stream.get(table, ("", set()))[1] and id_ not in self.known.get(table, ())
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


def _under(part: TableBlock, table: str, columns: Sequence[str]) -> TableBlock:
    if table == part.table and list(columns) == list(part.columns):
        return part
    return TableBlock(table, list(columns), part.keys, part.deletes, part.inserts, part.updates)


def without(group: Updates, kept: Sequence[int], images: list[list[object]]) -> Updates:
    """Return updates of which only the columns ``kept`` are left, ``images`` cut to them; they may have none."""
    left = [n for n, i in enumerate(group.changed) if i in kept]
    old = [[row[n] for n in left] for row in group.old]
    return Updates([kept.index(group.changed[n]) for n in left], images, old)
