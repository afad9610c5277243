"""A node's own change sets: in flight, and as merge base of newer local writes when they come back; and the result of
applying one batch.

Invariant: the merge base of a column that a change set of this node changed is the published value; of all others, the
mirror's value before the fold. A flight's change set was read with the log at its id, so it lacks what the log names
later.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import apsw

from harmonylite.db.mirror.schema_history import Own
from harmonylite.db.sqlite.lossless import insert_rows
from harmonylite.db.tracking.change_log import ChangeLog
from harmonylite.db.tracking.tracked_table import TrackedTable
from harmonylite.errors import DatabaseError
from harmonylite.model import ChangeSetId
from harmonylite.wire import TableBlock


class SchemaMovedError(DatabaseError):
    """The schema changed since the last install; install and retry."""


@dataclass(frozen=True)
class Flight:
    """What a capture read; then a change set of this session in flight. ``log_id``: the log's newest id; ``folds``: how
    many batches of other nodes had been folded; ``seen``: SQLite's data_version of the database; ``tables``: the
    numbers that tables had in the log.
    """

    log_id: int
    folds: int
    seen: int
    tables: frozenset[int] = frozenset()


@dataclass
class Applied:
    """The result of applying one batch. ``locked``: seconds for which it held the database's write lock."""

    rows: int = 0
    merged: int = 0
    conflicts: int = 0
    locked: float = 0.0
    own: list[ChangeSetId] = field(default_factory=list)
    schema: list[str] = field(default_factory=list)


def lay_over(connection: apsw.Connection, table: TrackedTable, own: Own) -> None:
    """Fold the logged rows of ``table`` in ``own`` into its scratch table ``before``."""
    for about, part in own:
        if about is table:
            _lay(connection, table, part)


def name_rows(connection: apsw.Connection, log: ChangeLog, own: Own, but: Collection[int] = ()) -> None:
    """Name every row of ``own`` in the log, which may no longer name them; the transaction writes the database.

    ``but``: the numbers of tables to leave out.
    """
    for table, part in own:
        if table.id not in but and list(table.shape.names[: part.keys]) == part.columns[: part.keys]:
            _name(connection, table, log, part)


def _name(connection: apsw.Connection, table: TrackedTable, log: ChangeLog, part: TableBlock) -> None:
    images = [*part.deletes, *part.inserts, *(row for group in part.updates for row in group.rows)]
    _stage(connection, table, range(part.keys), [row[: part.keys] for row in images])
    log.append(table, f"SELECT {', '.join(f'c{i}' for i in range(part.keys))} FROM {table.scratch('own')}")


def _lay(connection: apsw.Connection, table: TrackedTable, part: TableBlock) -> None:
    before = table.scratch("before")
    present = [table.shape.names.index(name) for name in part.columns]
    same = table.keys_equal("x.c", "b.c")
    gone = f"DELETE FROM {before} AS b WHERE EXISTS (SELECT 1 FROM {table.scratch('own')} AS x WHERE {same})"
    if part.deletes:
        _stage(connection, table, present, part.deletes)
        connection.execute(gone)
    if part.inserts:
        _stage(connection, table, present, part.inserts)
        connection.execute(gone)
        _insert(connection, table)
    for group in part.updates:
        _stage(connection, table, present, group.rows)
        sets = ", ".join(f"c{present[i]} = x.c{present[i]}" for i in group.changed)
        if sets:
            connection.execute(f"UPDATE {before} AS b SET {sets} FROM {table.scratch('own')} AS x WHERE {same}")
        _insert(connection, table)


def _stage(connection: apsw.Connection, table: TrackedTable, present: Sequence[int], images: list[list[Any]]) -> None:
    table.empty("own")
    names = ", ".join(f"c{i}" for i in present)
    insert_rows(connection, f"INSERT INTO {table.scratch('own')}({names})", len(present), images)


def _insert(connection: apsw.Connection, table: TrackedTable) -> None:
    """Add the images of logged rows that ``before`` lacks."""
    names, before = table.column_list, table.scratch("before")
    connection.execute(
        f"INSERT INTO {before}({names}) SELECT {names} FROM {table.scratch('own')} AS x"
        f" WHERE {table.in_logged.replace('x.k', 'x.c')}"
        f" AND NOT EXISTS (SELECT 1 FROM {before} AS b WHERE {table.keys_equal('b.c', 'x.c')})"
    )
