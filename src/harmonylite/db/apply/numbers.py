"""New numbers for rows whose number another record has already, in a fold or in a database that joins.

Invariant: the numbers depend only on the mirror and on the new rows. A row whose identity the mirror has under another
number is that record; one whose number belongs to another record in the mirror gets the next one above all.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import apsw

from harmonylite.db.sqlite.connection import rows, value
from harmonylite.db.sqlite.lossless import insert_rows
from harmonylite.db.tracking.tracked_table import TrackedTable
from harmonylite.schema.sql import quote
from harmonylite.wire import TableBlock

LARGEST = 2**63 - 1


def _emptied(table: TrackedTable) -> str:
    """Empty the scratch table of numbers and identities; return its name."""
    table.empty("numbers")
    return table.scratch("numbers")


def of_part(connection: apsw.Connection, table: TrackedTable, part: TableBlock) -> dict[int, int]:
    """Return the new numbers of rows of ``part`` that will be inserted, by the numbers that they came with.

    That includes updated rows that the mirror lacks: another node deleted them meanwhile, and may have inserted them
    again. If another record has the number by now, the new number is that of the record that the writer saw, if any.
    """
    identity = table.shape.identity
    if not set(identity) <= set(part.columns):
        return {}
    places = [0, *(part.columns.index(name) for name in identity)]
    elsewhere = _updated_elsewhere(connection, table, part, places)
    scratch, key = _emptied(table), table.shape.read(table.shape.keys[0], "m")
    for images in (*(group.rows for group in part.updates), part.inserts):
        listed: list[list[Any]] = [[row[i] for i in places] for row in images if isinstance(row[0], int)]
        if images is part.inserts and part.updates:
            there = f"SELECT 1 FROM {table.mirror} AS m WHERE {key} = {scratch}.k"
            connection.execute(f"DELETE FROM {scratch} WHERE EXISTS ({there})")
        insert_rows(connection, f"INSERT OR IGNORE INTO {scratch}", len(places), listed)
    return {**clashes(connection, table), **elsewhere}


def _updated_elsewhere(
    connection: apsw.Connection, table: TrackedTable, part: TableBlock, places: Sequence[int]
) -> dict[int, int]:
    """Return the mirror's numbers of updated records whose number another record has, by the latter."""
    if not part.updates:
        return {}
    scratch, key = _emptied(table), table.shape.read(table.shape.keys[0], "m")
    for group in part.updates:
        seen = [
            dict(enumerate(row)) | dict(zip(group.changed, old, strict=True))
            for row, old in zip(group.rows, group.old, strict=True)
        ]
        listed = [[row[i] for i in places] for row in seen if isinstance(row[0], int)]
        insert_rows(connection, f"INSERT OR IGNORE INTO {scratch}", len(places), listed)
    absent = f"NOT EXISTS (SELECT 1 FROM {table.mirror} AS m WHERE {key} = {scratch}.k)"
    connection.execute(f"DELETE FROM {scratch} WHERE {absent}")
    return _records(connection, table)


def of_database(connection: apsw.Connection, table: TrackedTable) -> dict[int, int]:
    """Return the new numbers of the database's rows, by their present ones."""
    shape = table.shape
    reads = ", ".join(shape.read(column, "d") for column in (shape.keys[0], *map(shape.column, shape.identity)))
    connection.execute(f"INSERT INTO {_emptied(table)} SELECT {reads} FROM {table.main} AS d")
    return clashes(connection, table)


def of_new_rows(connection: apsw.Connection, table: TrackedTable) -> dict[int, int]:
    """Return the mirror's numbers of records that were inserted here and are pending, by their numbers here.

    ``base``, the mirror until now, lacks them; the newer one may already have folded and renumbered them.
    """
    shape = table.shape
    key = shape.read(shape.keys[0], "d")
    reads = ", ".join([key, *(shape.read(shape.column(name), "d") for name in shape.identity)])
    pending = f"{table.scratch('logged')} AS x CROSS JOIN {table.main} AS d ON {key} = x.k0"
    before = f"SELECT 1 FROM {table.base} AS b WHERE {shape.read(shape.keys[0], 'b')} = x.k0"
    connection.execute(f"INSERT INTO {_emptied(table)} SELECT {reads} FROM {pending} WHERE NOT EXISTS ({before})")
    return _records(connection, table)


def same_record(table: TrackedTable, alias: str, others: Sequence[str]) -> str:
    """Return the condition that row ``alias`` has the identity ``others``; NULL equals nothing."""
    own = (f"{alias}.{quote(name)}" for name in table.shape.identity)
    return " AND ".join(f"{left} = {right}" for left, right in zip(own, others, strict=True))


def clashes(connection: apsw.Connection, table: TrackedTable) -> dict[int, int]:
    """Return the new numbers of the rows in the scratch table that can't keep theirs in the mirror."""
    shape, scratch = table.shape, table.scratch("numbers")
    key = shape.read(shape.keys[0], "m")
    moved, same = _records(connection, table), same_record(table, "m", _listed(table))
    taken = f"SELECT x.k FROM {scratch} AS x CROSS JOIN {table.mirror} AS m ON {key} = x.k WHERE ({same}) IS NOT TRUE"
    homeless = [number for (number,) in rows(connection, f"{taken} ORDER BY x.k") if number not in moved]
    return {**moved, **dict(zip(homeless, _free(connection, table, len(homeless)), strict=True))}


def _listed(table: TrackedTable) -> list[str]:
    return [f"x.n{i}" for i in range(len(table.shape.identity))]


def _records(connection: apsw.Connection, table: TrackedTable) -> dict[int, int]:
    """Return the mirror's numbers of records of the scratch table, if they differ."""
    shape, listed = table.shape, _listed(table)
    key, same = shape.read(shape.keys[0], "m"), same_record(table, "m", listed)
    both = [f"{table.scratch('numbers')} AS x", f"{table.mirror} AS m"]
    if not any(set(unique) <= set(shape.identity) for unique in shape.unique):
        both.reverse()  # no index finds the mirror's row, so that table is scanned
    itself = f"SELECT 1 FROM {table.mirror} AS e WHERE {shape.read(shape.keys[0], 'e')} = x.k AND"
    records = f"SELECT x.k, min({key}) FROM {' CROSS JOIN '.join(both)} ON {same}"
    different = f"WHERE NOT EXISTS ({itself} {same_record(table, 'e', listed)}) GROUP BY x.k"
    return dict(rows(connection, f"{records} {different}"))


def _free(connection: apsw.Connection, table: TrackedTable, count: int) -> Iterable[int]:
    """Return ``count`` numbers that neither the mirror nor the new rows have: above all others, else the least ones."""
    if not count:
        return ()
    key, scratch = table.shape.read(table.shape.keys[0], "m"), table.scratch("numbers")
    mirror = f"SELECT max({key}) FROM {table.mirror} AS m"
    top = max(0, value(connection, mirror) or 0, value(connection, f"SELECT max(k) FROM {scratch}") or 0)
    if top <= LARGEST - count:
        return range(top + 1, top + 1 + count)
    there = {n for (n,) in rows(connection, f"SELECT {key} FROM {table.mirror} AS m UNION SELECT k FROM {scratch}")}
    return [n for n in range(1, len(there) + count + 1) if n not in there][:count]
