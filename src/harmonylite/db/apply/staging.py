"""Staging: copy a change set's rows of one table into scratch tables, for SQL; and what a fold did with them.

Invariant: staging writes scratch tables only. An `Effect` never says less than was done.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import apsw

from harmonylite.changes.reassembler import Fragment
from harmonylite.db.mirror.schema_history import Named
from harmonylite.db.sqlite.lossless import insert_rows
from harmonylite.db.tracking.tracked_table import TrackedTable
from harmonylite.errors import SchemaWaitError
from harmonylite.schema.names import folded
from harmonylite.schema.sql import is_private
from harmonylite.wire import TableBlock, Updates


@dataclass
class Effect:
    """The most that can have happened to touched rows in the mirror: deletes, ``gone``; inserts, ``new``; updates of
    ``columns``, by index (None: any). It bounds what a merge writes; more than was done only costs time.
    """

    gone: bool = True
    new: bool = True
    columns: frozenset[int] | None = None

    def removes(self) -> None:
        """Count a delete."""
        self.gone = True

    def adds(self) -> None:
        """Count an insert: the database may hold its row with other values, if its place in the mirror was taken."""
        self.new, self.columns = True, None

    def changes(self, columns: Iterable[int]) -> None:
        """Count an update."""
        if self.columns is not None:
            self.columns |= frozenset(columns)

    @property
    def only_removes(self) -> bool:
        """Whether the mirror has none of the touched rows any more."""
        return self.gone and not self.new and self.columns == frozenset()

    def anything(self) -> None:
        """Count an effect without a bound: rows that displace others, or get other numbers."""
        self.gone, self.new, self.columns = True, True, None


@dataclass
class Folded:
    """The effect of a fold on one table. ``fresh``: only inserts of missing rows so far, all of them in ``incoming``.

    ``touched``: the scratch table of that name has keys (never while ``fresh``); ``rows``: how many are fresh.
    ``waiting``: sizes of the parts at the end of ``incoming``, which are not in the mirror yet.
    ``effect``: on rows that are not fresh.
    """

    table: TrackedTable
    fresh: bool = False
    touched: bool = False
    present: tuple[int, ...] = ()
    rows: int = 0
    waiting: list[int] = field(default_factory=list)
    effect: Effect = field(default_factory=Effect)


def applicable(tables: Named, fragment: Fragment, part: TableBlock) -> tuple[TableBlock, TrackedTable, tuple[int, ...]]:
    """Return a part under present names, its table, and the index of each of the part's columns in it.

    Raises SchemaWaitError if this database never had such a table or column, PoisonError if a column is there twice or
    the length of a row is not the number of columns.
    """
    table = tables.get(part.table)
    what = f"change set {fragment.id} (shard {fragment.shard}, message {fragment.seq}) needs table {part.table}"
    if table is None and _impossible(part.table):
        what = (
            f"change set {fragment.id} (shard {fragment.shard}, message {fragment.seq}) needs table {part.table[:64]!r}"
        )
        advice = f"`harmonylite skip {fragment.shard} {fragment.seq}` leaves it out"
        why = f"{what}, which no database replicates"
        raise SchemaWaitError(why, shard=fragment.shard, seq=fragment.seq, advice=advice)
    if folded(part.table) in tables.made_again:
        advice = "drop the older one here, or `harmonylite schema accept`"
        why = f"{what}, which was dropped and made again elsewhere"
        raise SchemaWaitError(why, shard=fragment.shard, seq=fragment.seq, advice=advice)
    if table is None:
        raise SchemaWaitError(f"{what}, which this database does not have", shard=fragment.shard, seq=fragment.seq)
    names = table.shape.names
    if tuple(part.columns) == names and part.table == table.shape.name:
        return part, table, tuple(range(len(names)))
    if len(set(part.columns)) < len(part.columns):
        raise fragment.broken(f"a column of {part.table} is there twice")
    check_widths(fragment, part)
    for group in part.updates:
        check_updates(fragment, part.table, group, len(part.columns))
    new = len(part.inserts)
    part = tables.as_here(table, part)
    if (lost := new - len(part.inserts)) > 0:
        tables.placeless.append(
            f"skip {lost} new rows of table {part.table} in message {fragment.seq} of shard {fragment.shard}, written"
            f" by node {fragment.id.node}: their key holds NULL, which this node's table refuses"
        )
    if tuple(part.columns[: part.keys]) != tuple(c.name for c in table.shape.keys):
        key = part.columns[: part.keys]
        raise SchemaWaitError(f"{what} with the key {key}", shard=fragment.shard, seq=fragment.seq)
    missing = [column for column in part.columns if column not in names]
    if missing and tables.is_gone(table.shape.name):
        table = tables.widened(table, missing)
        names = table.shape.names
    elif missing:
        unsure = all(tables.unsure(table, column) for column in missing)
        why = f"{what} with the column {missing[0]}"
        raise SchemaWaitError(why, shard=fragment.shard, seq=fragment.seq, unsure=unsure)
    return part, table, tuple(names.index(column) for column in part.columns)


def _impossible(table: str) -> bool:
    """Return whether no migration can create a replicated table of this name."""
    return not table or "\0" in table or table.lower().startswith("sqlite_") or is_private(table)


def check_widths(fragment: Fragment, part: TableBlock) -> None:
    """Raise PoisonError if the length of a row is not the number of columns."""
    width = len(part.columns)
    for images in (part.deletes, part.inserts, *(u.rows for u in part.updates)):
        if set(map(len, images)) - {width}:
            raise fragment.broken(f"a row of {part.table} has not {width} values")


def check_updates(fragment: Fragment, table: str, group: Updates, width: int) -> None:
    """Raise PoisonError if the old values of updated rows don't match ``width`` columns."""
    if set(map(len, group.old)) - {len(group.changed)} or len(group.old) != len(group.rows):
        raise fragment.broken(f"old values of {table} don't match its rows")
    if any(not 0 <= i < width for i in group.changed) or len(set(group.changed)) < len(group.changed):
        raise fragment.broken(f"a changed column of {table} is out of range or there twice")


def whole_keys(table: TrackedTable, images: Sequence[Sequence[Any]]) -> bool:
    """Return whether no key holds NULL: then SQLite's unique index finds the present rows, and no row claims a
    rowid.

    The rows are as wide as their columns (`check_widths`), the key's first.
    """
    real = len(table.shape.keys) - 1
    return not table.shape.nullable_key or all(row[real] is None and None not in row[:real] for row in images)


@contextmanager
def foreign_values(fragment: Fragment, part: TableBlock) -> Iterator[None]:
    """Map the error for a value that SQLite can't store to a PoisonError."""
    try:
        yield
    except (TypeError, OverflowError) as error:
        raise fragment.broken(f"a value of {part.table} is not SQLite's: {error}") from error


def stage_updates(
    connection: apsw.Connection, fragment: Fragment, table: TrackedTable, present: Sequence[int], group: Updates
) -> None:
    """Insert updated rows into ``incoming`` with the old values of their changed columns. Raises PoisonError."""
    check_updates(fragment, table.shape.name, group, len(present))
    table.empty("incoming")
    names = ", ".join([f"c{i}" for i in present] + [f"o{present[i]}" for i in group.changed])
    joined = [image + before for image, before in zip(group.rows, group.old, strict=True)]
    into = f"INSERT INTO {table.scratch('incoming')}({names})"
    insert_rows(connection, into, len(present) + len(group.changed), joined)
