"""Fold: bring one change set into the mirror, the same way on every node.

Invariant: the mirror after a fold depends on nothing but the mirror before it and the change set: deletes first, then
upserts in the order in which they stand; an upsert on a present row sets the changed columns, on a missing row it
inserts the image; a row whose unique value it takes is displaced. Where a plain statement meets a unique index, the
slow way (take all rows of the group out, put their merged images in, displacing) gives the same as if no row of the
group had stood in another's way, so that it doesn't matter in which order SQLite visits rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import apsw

from harmonylite.changes.inbox import Piece, poison
from harmonylite.db.connection import try_or_undo, value
from harmonylite.db.exact import exact_rows, insert_rows, same_bits
from harmonylite.db.journal import Journal, Overruled
from harmonylite.db.rowids import claims_first, make_room
from harmonylite.db.tracked import Tracked
from harmonylite.errors import SchemaWaitError
from harmonylite.schema.shape import any_differs
from harmonylite.schema.sql import quote
from harmonylite.wire import TableBlock


@dataclass
class Folded:
    """What a fold did to one table. ``fresh``: only inserts of rows that were not there, all still in ``incoming``.

    ``touched``: keys stand in the scratch table of that name (never while ``fresh``); ``rows``: how many are fresh.
    """

    fresh: bool = False
    touched: bool = False
    present: tuple[int, ...] = ()
    rows: int = 0


@dataclass
class Fold:
    """Folds pieces within one transaction of the caller's; ``done`` says what each table went through."""

    connection: apsw.Connection
    tables: Mapping[str, Tracked]
    journal: Journal
    done: dict[str, Folded] = field(default_factory=dict)

    def piece(self, piece: Piece) -> int:
        """Fold one piece; return its number of rows. Raises SchemaWaitError, PoisonError."""
        count = 0
        displacing: dict[str, Tracked] = {}
        for block in piece.decoded():
            for part in block:
                table, present = self._applicable(piece, part)
                try:
                    count += self._part(piece, table, present, part, displacing)
                except (TypeError, OverflowError) as error:
                    raise poison(piece.shard, piece.seq, f"a value of {part.table} is not SQLite's: {error}") from error
        for table in displacing.values():
            self._journal_displaced(piece, table)
        return count

    def _applicable(self, piece: Piece, part: TableBlock) -> tuple[Tracked, tuple[int, ...]]:
        table = self.tables.get(part.table)
        what = f"change set {piece.id} (shard {piece.shard}, message {piece.seq}) needs table {part.table}"
        if table is None:
            raise SchemaWaitError(f"{what}, which this database does not have")
        names = table.shape.names
        if len(set(part.columns)) < len(part.columns):
            raise poison(piece.shard, piece.seq, f"a column of {part.table} is there twice")
        if tuple(part.columns[: part.keys]) != tuple(c.name for c in table.shape.keys):
            raise SchemaWaitError(f"{what} with the key {part.columns[: part.keys]}")
        missing = [column for column in part.columns if column not in names]
        if missing:
            raise SchemaWaitError(f"{what} with the column {missing[0]}")
        if tuple(part.columns) == names:
            return table, tuple(range(len(names)))
        return table, tuple(names.index(column) for column in part.columns)

    def _part(
        self, piece: Piece, table: Tracked, present: tuple[int, ...], part: TableBlock, displacing: dict[str, Tracked]
    ) -> int:
        folded = self.done.setdefault(table.shape.name, Folded(fresh=not table.shape.nullable_key, present=present))
        width = len(part.columns)
        for images in (part.deletes, part.inserts, *(u.rows for u in part.updates)):
            if set(map(len, images)) - {width}:
                raise poison(piece.shard, piece.seq, f"a row of {part.table} has not {width} values")
        if part.deletes:
            self._leave_fresh(table, folded)
            self._stage(table, present, part.deletes)
            self._delete(piece, table, present)
        if part.inserts:
            self._insert(piece, table, folded, present, part.inserts, displacing)
        for group in part.updates:
            self._leave_fresh(table, folded)
            self._stage_updates(piece, table, present, group.changed, group.rows, group.old)
            self._update(piece, table, present, [present[i] for i in group.changed], displacing)
        return part.count

    # staging ---------------------------------------------------------------------------------------------------

    def _stage(self, table: Tracked, present: Sequence[int], staged: list[list[Any]], *, add: bool = False) -> None:
        incoming = table.scratch("incoming")
        if not add:
            self.connection.execute(f"DELETE FROM {incoming}")
        names = ", ".join(f"c{i}" for i in present)
        insert_rows(self.connection, f"INSERT INTO {incoming}({names})", len(present), staged)

    def _stage_updates(
        self, piece: Piece, table: Tracked, present: Sequence[int], changed: Sequence[int],
        images: list[list[Any]], old: list[list[Any]],
    ) -> None:  # fmt: skip
        if any(len(row) != len(changed) for row in old) or len(old) != len(images):
            raise poison(piece.shard, piece.seq, f"old values of {table.shape.name} don't match its rows")
        if any(not 0 <= i < len(present) for i in changed) or len(set(changed)) < len(changed):
            raise poison(piece.shard, piece.seq, f"a changed column of {table.shape.name} is out of range or there twice")
        incoming = table.scratch("incoming")
        self.connection.execute(f"DELETE FROM {incoming}")
        names = ", ".join([f"c{i}" for i in present] + [f"o{present[i]}" for i in changed])
        joined = [image + before for image, before in zip(images, old, strict=True)]
        insert_rows(self.connection, f"INSERT INTO {incoming}({names})", len(present) + len(changed), joined)

    def _leave_fresh(self, table: Tracked, folded: Folded) -> None:
        """From here on the table's keys are followed one by one."""
        if folded.fresh:
            folded.fresh = False
            if folded.rows:
                self._touch(table, folded)

    def _touch(self, table: Tracked, folded: Folded) -> None:
        """Remember the keys in ``incoming``."""
        folded.touched = True
        keys = ", ".join(f"c{i}" for i in range(len(table.shape.keys)))
        self.connection.execute(
            f"INSERT OR IGNORE INTO {table.scratch('touched')}({table.key_list})"
            f" SELECT {keys} FROM {table.scratch('incoming')}"
        )

    # deletes ---------------------------------------------------------------------------------------------------

    def _delete(self, piece: Piece, table: Tracked, present: Sequence[int]) -> None:
        self._touch(table, self.done[table.shape.name])
        shape = table.shape
        join = f"{table.scratch('incoming')} AS x CROSS JOIN {table.mirror} AS m ON {shape.same('m', 'x', 'c')}"
        others = [i for i in present if shape.columns[i].key < 0]
        pairs = [(shape.columns[i], shape.read(shape.columns[i], "m"), f"x.c{i}") for i in others]
        if pairs:
            reads = [*(shape.read(c, "m") for c in shape.columns), *(f"x.c{i}" for i in range(len(shape.columns)))]
            for row in exact_rows(self.connection, reads, f"FROM {join} WHERE {any_differs(pairs)}"):
                now, saw = row[: len(shape.columns)], row[len(shape.columns) :]
                overruled = [Overruled(i, None, now[i]) for i in others if not same_bits(now[i], saw[i])]
                self.journal.write(piece, table, now, "delete", overruled)
        self.connection.execute(
            f"DELETE FROM {table.mirror} WHERE {shape.target()} IN (SELECT {shape.places('m')} FROM {join})"
        )

    # inserts ---------------------------------------------------------------------------------------------------

    def _insert(
        self, piece: Piece, table: Tracked, folded: Folded, present: tuple[int, ...], images: list[list[Any]],
        displacing: dict[str, Tracked],
    ) -> None:  # fmt: skip
        if folded.fresh and folded.present == present and (folded.rows == 0 or len(images) > 1 or folded.rows < 10_000):
            before = value(self.connection, f"SELECT max(rowid) FROM {table.scratch('incoming')}") if folded.rows else 0
            if not folded.rows:
                self.connection.execute(f"DELETE FROM {table.scratch('incoming')}")
            self._stage(table, present, images, add=True)
            if self._plain_insert(table, present, f"x.rowid > {before or 0}"):
                folded.rows += len(images)
                return
            self.connection.execute(f"DELETE FROM {table.scratch('incoming')} WHERE rowid > ?", (before or 0,))
        self._leave_fresh(table, folded)
        self._stage(table, present, images)
        self._touch(table, folded)
        if not self._plain_insert(table, present, "1"):
            self._journal_overruled(piece, table, [i for i in present if i in table.shape.compared], None)
            self._slowly(table, present, None)
            displacing[table.shape.name] = table

    def _plain_insert(self, table: Tracked, present: Sequence[int], which: str) -> bool:
        shape = table.shape
        columns = shape.write([shape.columns[i].name for i in present])
        values = ", ".join(f"x.c{i}" for i in present)
        sql = (
            f"INSERT INTO {table.mirror}({columns}) SELECT {values} FROM {table.scratch('incoming')} AS x"
            f" WHERE {which}{claims_first(table, 'x.c') or ' ORDER BY x.rowid'}"
        )
        make_room(self.connection, table, table.mirror, "incoming", "c")
        if shape.nullable_key:
            # a row whose key holds NULL is no unique clash for SQLite, so its presence is asked for first
            there = f"SELECT 1 FROM {table.scratch('incoming')} AS x CROSS JOIN {table.mirror} AS m"
            if self.connection.execute(f"{there} ON {shape.same('m', 'x', 'c')} LIMIT 1").fetchone():
                return False
        return try_or_undo(self.connection, lambda: self.connection.execute(sql))[0]

    # updates ---------------------------------------------------------------------------------------------------

    def _update(
        self, piece: Piece, table: Tracked, present: tuple[int, ...], changed: list[int], displacing: dict[str, Tracked]
    ) -> None:
        shape = table.shape
        self._touch(table, self.done[table.shape.name])
        self._journal_overruled(piece, table, changed, changed)
        sets = ", ".join(f"{quote(shape.columns[i].name)} = x.c{i}" for i in changed if not shape.columns[i].pseudo)
        incoming = table.scratch("incoming")
        absent = f"NOT EXISTS (SELECT 1 FROM {table.mirror} AS m WHERE {shape.same('m', 'x', 'c')})"
        columns = shape.write([shape.columns[i].name for i in present])
        values = ", ".join(f"x.c{i}" for i in present)

        make_room(self.connection, table, table.mirror, "incoming", "c")

        def plain() -> None:
            self.connection.execute(
                f"UPDATE {table.mirror} AS m SET {sets} FROM {incoming} AS x WHERE {shape.same('m', 'x', 'c')}"
            )
            self.connection.execute(
                f"INSERT INTO {table.mirror}({columns}) SELECT {values} FROM {incoming} AS x WHERE {absent}"
                f"{claims_first(table, 'x.c')}"
            )

        if not try_or_undo(self.connection, plain)[0]:
            self._slowly(table, present, changed)
            displacing[table.shape.name] = table

    def _slowly(self, table: Tracked, present: Sequence[int], changed: Sequence[int] | None) -> None:
        """Take the rows of the group out, then put their merged images in one after the other, displacing others."""
        shape = table.shape
        incoming = table.scratch("incoming")
        kept = [i for i in range(len(shape.columns)) if i not in (present if changed is None else changed)]
        kept = [i for i in kept if shape.columns[i].key < 0]
        execute = self.connection.execute
        match = f"{table.mirror} AS m WHERE {shape.same('m', 'x', 'c')}"
        if kept:
            # what the change set did not change comes from the row that is there, if one is
            names = ", ".join(f"c{i}" for i in kept)
            reads = ", ".join(shape.read(shape.columns[i], "m") for i in kept)
            execute(
                f"UPDATE {incoming} AS x SET ({names}) = (SELECT {reads} FROM {match})"
                f" WHERE EXISTS (SELECT 1 FROM {match})"
            )
        there = [i for i in range(len(shape.columns)) if i in present or kept]
        execute(
            f"DELETE FROM {table.mirror} WHERE {shape.target()} IN (SELECT {shape.places('m')}"
            f" FROM {incoming} AS x CROSS JOIN {table.mirror} AS m ON {shape.same('m', 'x', 'c')})"
        )
        trigger = quote(table.scratch_name("displacing"))
        execute(
            f"CREATE TEMP TRIGGER {trigger} AFTER DELETE ON {table.mirror} BEGIN"
            f" INSERT INTO {quote(table.scratch_name('displaced'))} SELECT {shape.read_all('OLD')}; END"
        )
        make_room(self.connection, table, table.mirror, "incoming", "c")
        columns = shape.write([shape.columns[i].name for i in there])
        values = ", ".join(f"x.c{i}" for i in there)
        execute(
            f"INSERT OR REPLACE INTO {table.mirror}({columns}) SELECT {values} FROM {incoming} AS x"
            f"{claims_first(table, 'x.c') or ' ORDER BY x.rowid'}"
        )
        execute(f"DROP TRIGGER temp.{trigger}")
        self._touch_displaced(table)

    def _touch_displaced(self, table: Tracked) -> None:
        keys = ", ".join(f"c{i}" for i in range(len(table.shape.keys)))
        self.connection.execute(
            f"INSERT OR IGNORE INTO {table.scratch('touched')}({table.key_list})"
            f" SELECT {keys} FROM {table.scratch('displaced')}"
        )

    # the journal -----------------------------------------------------------------------------------------------

    def _journal_overruled(
        self, piece: Piece, table: Tracked, columns: Sequence[int], changed: Sequence[int] | None
    ) -> None:
        """Journal where a present value is neither what the writer last saw nor what it writes.

        ``changed`` None: an insert; its writer saw no row at all.
        """
        shape = table.shape
        terms = []
        for i in columns:
            mine, now = f"x.c{i}", shape.read(shape.columns[i], "m")
            term = any_differs([(shape.columns[i], now, mine)])
            if changed is not None:
                term = f"({term} AND {any_differs([(shape.columns[i], now, f'x.o{i}')])})"
            terms.append(term)
        if not terms:
            return
        width = len(shape.columns)
        reads = [shape.read(c, "m") for c in shape.columns] + [f"x.{kind}{i}" for kind in "co" for i in range(width)]
        rest = (
            f"FROM {table.scratch('incoming')} AS x CROSS JOIN {table.mirror} AS m"
            f" ON {shape.same('m', 'x', 'c')} WHERE {' OR '.join(terms)}"
        )
        for both in exact_rows(self.connection, reads, rest):
            stands, new, saw = both[:width], both[width : 2 * width], both[2 * width :]
            overruled = [
                Overruled(i, new[i], stands[i])
                for i in columns
                if not same_bits(stands[i], new[i]) and (changed is None or not same_bits(stands[i], saw[i]))
            ]
            self.journal.write(piece, table, stands, "insert" if changed is None else "update", overruled)

    def _journal_displaced(self, piece: Piece, table: Tracked) -> None:
        """Journal the rows that were displaced and not put back by the same change set."""
        shape = table.shape
        absent = f"NOT EXISTS (SELECT 1 FROM {table.mirror} AS m WHERE {shape.same('m', 'x', 'c')})"
        displaced = table.scratch("displaced")
        reads = [f"x.c{i}" for i in range(len(shape.columns))]
        for row in exact_rows(self.connection, reads, f"FROM {displaced} AS x WHERE {absent}"):
            overruled = [Overruled(i, None, row[i]) for i in range(len(row)) if shape.columns[i].key < 0]
            self.journal.write(piece, table, row, "unique", overruled or [Overruled(0, None, row[0])])
        self.connection.execute(f"DELETE FROM {displaced}")
