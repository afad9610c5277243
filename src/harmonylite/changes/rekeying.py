"""Rows of a change set under the present key of their table: after a change of the key, and with counted numbers.

Invariant: a row keeps its values; only if it holds all columns of a new key does it have a place there. Within one
change set a number means one row of its writer's database, and so does every reference to it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harmonylite.schema.names import ROWIDS
from harmonylite.schema.shape import TableShape
from harmonylite.wire import TableBlock, Updates

Moved = Mapping[str, Mapping[int, int]]
"""By table, the numbers that a fold gave rows, by those of their writer; see `harmonylite.schema.identity`."""


def rekeyed(shape: TableShape, part: TableBlock) -> TableBlock | None:
    """Return ``part``, whose columns have today's names, under the key of ``shape``; None where it has none there.

    An update that changes what belongs to the new key only takes the row out of its old place and puts it into the new
    one.
    """
    wanted = [column.name for column in shape.keys]
    if part.columns[: part.keys] == wanted:
        return part
    real = {column.name for column in shape.columns if not column.pseudo}
    before = [name for name in part.columns[: part.keys] if name in real or name not in ROWIDS]
    now = [column.name for column in shape.keys if not column.pseudo]
    if any(column.pseudo == "rowid" for column in shape.keys):
        return None
    if not set(now) <= set(part.columns):
        return None
    numbers = [name for name in part.columns[: part.keys] if name not in before]
    rest = [name for name in part.columns if name not in wanted and name not in numbers]
    places = [_place(part, name, numbers) for name in (*wanted, *rest)]
    whole = [i for i, column in enumerate(shape.keys) if not column.pseudo and (column.not_null or not shape.rowid)]

    def moved(images: Sequence[Sequence[Any]]) -> list[list[Any]]:
        found = [[None if place < 0 else image[place] for place in places] for image in images]
        return [image for image in found if all(image[i] is not None for i in whole)]

    made = TableBlock(part.table, [*wanted, *rest], len(wanted), moved(part.deletes), moved(part.inserts))
    for group in part.updates:
        _move_updates(group, part, made, moved, set(now) - set(before))
    return made


def _place(part: TableBlock, name: str, numbers: Sequence[str]) -> int:
    """Return where ``name`` is in the older rows, -1 where it is a row's number that they don't hold."""
    if name in part.columns:
        return part.columns.index(name)
    return part.columns.index(numbers[0]) if numbers and name in ROWIDS else -1


def _move_updates(group: Updates, part: TableBlock, made: TableBlock, moved: Any, new: set[str]) -> None:
    changed = [part.columns[i] for i in group.changed]
    if new.isdisjoint(changed):
        kept = [(i, made.columns.index(name)) for i, name in enumerate(changed) if name in made.columns]
        pairs = [(moved([row]), old) for row, old in zip(group.rows, group.old, strict=True)]
        images = [image[0] for image, _ in pairs if image]
        made.updates.append(
            Updates([to for _, to in kept], images, [[old[i] for i, _ in kept] for image, old in pairs if image])
        )
        return
    for row, old in zip(group.rows, group.old, strict=True):
        before = list(row)
        for i, value in zip(group.changed, old, strict=True):
            before[i] = value
        made.deletes += moved([before])
        made.inserts += moved([row])


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
