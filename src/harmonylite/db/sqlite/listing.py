"""Write a list of rows into a table of ours: only what changed, so that one more object costs one more row.

Invariant: read in the order of rowids, the table is the list.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Any

import apsw

from harmonylite.db.sqlite.connection import rows

Row = tuple[Any, ...]


def write_list(connection: apsw.Connection, table: str, columns: Sequence[str], wanted: Sequence[Row]) -> None:
    """Make ``wanted``, rows of all ``columns``, the content of a table with rowids; the transaction may write it."""
    names = ", ".join(columns)
    there = [(row[0], row[1:]) for row in rows(connection, f"SELECT rowid, {names} FROM {table} ORDER BY rowid")]
    gone, new = _difference(there, wanted)
    if gone:
        connection.executemany(f"DELETE FROM {table} WHERE rowid = ?", [(number,) for number in gone])
    if new:
        places = ", ".join("?" for _ in columns)
        insert = f"INSERT INTO {table}(rowid, {names}) VALUES (?, {places})"
        connection.executemany(insert, [(number, *row) for number, row in new])


def _difference(there: list[tuple[int, Row]], wanted: Sequence[Row]) -> tuple[list[int], list[tuple[int, Row]]]:
    """Return the rowids of rows to delete, and the rows to insert with theirs."""
    first, most = 0, min(len(there), len(wanted))
    while first < most and there[first][1] == wanted[first]:
        first += 1
    last = 0
    while last < most - first and there[-1 - last][1] == wanted[-1 - last]:
        last += 1
    middle, come = there[first : len(there) - last], wanted[first : len(wanted) - last]
    kept = _in_order(middle, come)
    below = there[first - 1][0] if first else 0
    above = there[len(there) - last][0] if last else None
    gone = [number for place, (number, _) in enumerate(middle) if place not in kept]
    new: list[tuple[int, Row]] = []
    bounds = [*((come_at, middle[place][0]) for place, come_at in kept.items()), (len(come), above)]
    start = 0
    for end, upper in bounds:
        if upper is not None and upper - below <= end - start:  # no room: write the rest once more
            rest = [number for number, _ in there if number > below]
            return sorted({*gone, *rest}), new + list(enumerate(wanted[first + start :], below + 1))
        new += enumerate(come[start:end], below + 1)
        start, below = end + 1, upper or 0
    return gone, new


def _in_order(middle: list[tuple[int, Row]], come: Sequence[Row]) -> dict[int, int]:
    """Return which rows of ``middle`` stay, and where they are in ``come``: the longest run that keeps its order."""
    places = {row: place for place, row in enumerate(come)}
    ends: list[int] = []
    at: list[int] = []
    before: dict[int, int] = {}
    for place, (_, row) in enumerate(middle):
        to = places.get(row)
        if to is None:
            continue
        length = bisect_left(ends, to)
        ends[length : length + 1], at[length : length + 1] = [to], [place]
        before[place] = at[length - 1] if length else -1
    found: dict[int, int] = {}
    place = at[-1] if at else -1
    while place >= 0:
        found[place] = places[middle[place][1]]
        place = before[place]
    return dict(reversed(found.items()))
