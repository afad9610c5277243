"""A node's own change sets: in flight, and as merge base of newer local writes when they come back; and the result of
applying one batch.

Invariant: the merge base of a column that a change set of this node changed is the published value; of all others, the
mirror's value before the fold. A flight's change set was read with the log at its id, so it lacks what the log names
later.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import apsw

from harmonylite.db.capture.capture import Outgoing
from harmonylite.db.capture.laying import lay
from harmonylite.db.mirror.schema_history import Own
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
    many batches of other nodes had been folded; ``seen``: SQLite's data_version of the database; ``tables``: those of
    then, by their numbers in the log; ``out``: the change set.
    """

    log_id: int
    folds: int
    seen: int
    tables: Mapping[int, TrackedTable] = field(default_factory=dict)
    out: Outgoing | None = None


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
            lay(connection, table, part)


def name_rows(log: ChangeLog, own: Own, but: Collection[int] = ()) -> None:
    """Name every row of ``own`` in the log, which may no longer name them; the transaction writes the database.

    ``but``: the numbers of tables to leave out.
    """
    for table, part in own:
        if table.id not in but and list(table.shape.names[: part.keys]) == part.columns[: part.keys]:
            _name(table, log, part)


def _name(table: TrackedTable, log: ChangeLog, part: TableBlock) -> None:
    images = [*part.deletes, *part.inserts, *(row for group in part.updates for row in group.rows)]
    table.put("own", range(part.keys), [row[: part.keys] for row in images])
    log.append(table, f"SELECT {', '.join(f'c{i}' for i in range(part.keys))} FROM {table.scratch('own')}")
