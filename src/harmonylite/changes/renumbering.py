"""Rows under the numbers that a fold gave them, see `harmonylite.schema.identity`.

Invariant: within one change set a number means one row of its writer's database, and so does every reference to it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harmonylite.schema.shape import TableShape
from harmonylite.wire import TableBlock, Updates

Moved = Mapping[str, Mapping[int, int]]
"""By table, the numbers that its writer counted and those that the rows have in the mirror."""


def renumbered(shape: TableShape, part: TableBlock, moved: Moved) -> TableBlock:
    """Return ``part``, whose columns have today's names, with the numbers of the mirror in keys and references of its
    new and updated rows.
    """
    own = moved.get(shape.name, {})
    places = {part.columns.index(c): moved[to] for c, to in shape.refers if to in moved and c in part.columns}
    if not own and not places:
        return part
    if own:
        places[0] = own
    updates = [Updates(group.changed, _mapped(group.rows, places), group.old) for group in part.updates]
    return TableBlock(part.table, part.columns, part.keys, part.deletes, _mapped(part.inserts, places), updates)


def _mapped(images: Sequence[Sequence[Any]], places: Mapping[int, Mapping[int, int]]) -> list[list[Any]]:
    found = []
    for image in images:
        row = list(image)
        for place, numbers in places.items():
            if isinstance(row[place], int):
                row[place] = numbers.get(row[place], row[place])
        found.append(row)
    return found
