"""Lay change sets of this node over rows in scratch tables, and say what a capture compares the database with.

Invariant: what a capture compares is what the mirror will hold once all that this node has in flight is back, as far as
this node knows: the mirror's rows with the change sets in flight laid over them, in their order.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import apsw

from harmonylite.db.tracking.tracked_table import TrackedTable
from harmonylite.wire import TableBlock


@dataclass(frozen=True)
class Expected:
    """Where the rows ``m`` to compare with are, how their columns are read, and when one has the key in ``x``."""

    source: str
    reads: Sequence[str]
    same: str


def mirrored(table: TrackedTable) -> Expected:
    """Return the mirror's rows."""
    shape = table.shape
    return Expected(table.mirror, [shape.read(column, "m") for column in shape.columns], shape.same("m", "x"))


def laid_over(table: TrackedTable) -> Expected:
    """Return the rows that `expect` put together."""
    reads = [f"m.c{i}" for i in range(len(table.shape.columns))]
    return Expected(table.scratch("before"), reads, table.keys_equal("m.c", "x.k"))


def expect(connection: apsw.Connection, tables: Mapping[str, TrackedTable], parts: Iterable[TableBlock]) -> None:
    """Put the mirror's logged rows of ``tables``, by name, with ``parts`` laid over them, into ``before``."""
    for table in tables.values():
        table.put_mirrored("before")
    for part in parts:
        if part.table in tables:
            lay(connection, tables[part.table], part)


def lay(connection: apsw.Connection, table: TrackedTable, part: TableBlock) -> None:
    """Fold the logged rows of ``part`` into the scratch table ``before``."""
    before = table.scratch("before")
    present = [table.shape.names.index(name) for name in part.columns]
    same = table.keys_equal("x.c", "b.c")
    gone = f"DELETE FROM {before} AS b WHERE EXISTS (SELECT 1 FROM {table.scratch('own')} AS x WHERE {same})"
    if part.deletes:
        table.put("own", present, part.deletes)
        connection.execute(gone)
    if part.inserts:
        table.put("own", present, part.inserts)
        connection.execute(gone)
        _insert(connection, table)
    for group in part.updates:
        table.put("own", present, group.rows)
        sets = ", ".join(f"c{present[i]} = x.c{present[i]}" for i in group.changed)
        if sets:
            connection.execute(f"UPDATE {before} AS b SET {sets} FROM {table.scratch('own')} AS x WHERE {same}")
        _insert(connection, table)


def mark(connection: apsw.Connection, table: TrackedTable, parts: Iterable[TableBlock]) -> None:
    """Put the rows of ``parts`` into the scratch table ``flown``, with 1 in each column that they set."""
    flown, keys = table.scratch("flown"), [f"c{i}" for i in range(len(table.shape.keys))]
    every = range(len(keys), len(table.shape.columns))
    same = table.keys_equal("o.c", "f.c")
    table.empty("flown")
    for part in parts:
        groups = [(group.rows, [i for i in group.changed if i in every]) for group in part.updates]
        for images, changed in [(part.deletes, list(every)), (part.inserts, list(every)), *groups]:
            if images:
                table.put("own", range(part.keys), [row[: part.keys] for row in images])
                own = f"{table.scratch('own')} AS o"
                connection.execute(
                    f"INSERT INTO {flown}({', '.join(keys)}) SELECT {', '.join(keys)} FROM {own}"
                    f" WHERE NOT EXISTS (SELECT 1 FROM {flown} AS f WHERE {same})"
                )
                sets = ", ".join(f"c{i} = 1" for i in changed)
                if sets:
                    connection.execute(
                        f"UPDATE {flown} AS f SET {sets} WHERE EXISTS (SELECT 1 FROM {own} WHERE {same})"
                    )


def _insert(connection: apsw.Connection, table: TrackedTable) -> None:
    """Add the images of logged rows that ``before`` lacks."""
    names, before = table.column_list, table.scratch("before")
    connection.execute(
        f"INSERT INTO {before}({names}) SELECT {names} FROM {table.scratch('own')} AS x"
        f" WHERE {table.in_logged.replace('x.k', 'x.c')}"
        f" AND NOT EXISTS (SELECT 1 FROM {before} AS b WHERE {table.keys_equal('b.c', 'x.c')})"
    )
