"""Distinguish a renamed column from a dropped one whose place another one took: only the rows show it.

Invariant: a guess is dropped if a row contradicts it that the log does not name.
"""

from __future__ import annotations

from collections.abc import Sequence

import apsw

from harmonylite.db.sqlite.connection import value
from harmonylite.db.tracking.triggers import LOG
from harmonylite.db.tracking.watermarks import new_rows
from harmonylite.schema.shape import TableShape, any_differs
from harmonylite.schema.sql import quote

Pairs = Sequence[tuple[str, str]]
"""Old and new names of columns."""


def checked(connection: apsw.Connection, shape: TableShape, pairs: Pairs, aside: str, number: int | None) -> Pairs:
    """Return ``pairs`` without those that only look like renames.

    ``aside``: the mirror's table with the old columns; ``number``: the table's number in the log.
    """
    guessed = {new: old for old, new in pairs if old != new and new in shape.names and shape.column(new).key < 0}
    old_names = {new: old for old, new in pairs}
    keys = [column for column in shape.keys if column.pseudo != "null"]
    places = [old_names.get(shape.rowid if column.pseudo else column.name) for column in keys]
    logged = value(connection, "SELECT 1 FROM main.sqlite_schema WHERE name = ?", (LOG,))
    if not guessed or None in places or number is None or not logged:
        return pairs
    same = " AND ".join(f"{shape.read(c, 'd')} = a.{quote(str(p))}" for c, p in zip(keys, places, strict=True))
    named = " AND ".join(f"l.k{i} IS {shape.read(c, 'd')}" for i, c in enumerate(shape.keys))
    ranges = new_rows(connection, number, 0, "main") if shape.rowid else []
    new = " OR ".join(f"d.{quote(shape.rowid)} BETWEEN {above} + 1 AND {top}" for above, top in ranges) or "0"
    other = any_differs((shape.column(new), f"d.{quote(new)}", f"a.{quote(old)}") for new, old in guessed.items())
    contradicted = value(
        connection,
        f"SELECT 1 FROM {aside} AS a CROSS JOIN main.{quote(shape.name)} AS d ON {same} WHERE ({other}) AND NOT EXISTS"
        f" (SELECT 1 FROM main.{quote(LOG)} AS l WHERE l.t = {number} AND {named})"
        f" AND NOT ({new}) LIMIT 1",
    )
    return [(old, new) for old, new in pairs if new not in guessed] if contradicted else pairs


def found_by_values(
    connection: apsw.Connection, before: TableShape, shape: TableShape, pairs: Pairs, aside: str, number: int | None
) -> list[tuple[str, str]]:
    """Return further renamed columns, at any place: in all rows that are not logged under ``number`` both columns are
    equal, and in one row not NULL.
    """
    went = [c for c in before.columns if not c.pseudo and c.name not in {old for old, _ in pairs}]
    came = [c for c in shape.columns if not c.pseudo and c.key < 0 and c.name not in {new for _, new in pairs}]
    old_names = {new: old for old, new in pairs}
    keys = [column for column in shape.keys if column.pseudo != "null"]
    places = [old_names.get(shape.rowid if column.pseudo else column.name) for column in keys]
    found: list[tuple[str, str]] = []
    logged = value(connection, "SELECT 1 FROM main.sqlite_schema WHERE name = ?", (LOG,))
    if None in places or not logged or not went:
        return found
    same = " AND ".join(f"{shape.read(c, 'd')} = a.{quote(str(p))}" for c, p in zip(keys, places, strict=True))
    named = " AND ".join(f"l.k{i} IS {shape.read(c, 'd')}" for i, c in enumerate(shape.keys))
    rest = f"NOT EXISTS (SELECT 1 FROM main.{quote(LOG)} AS l WHERE l.t = {number or 0} AND {named})"
    both = f"FROM {aside} AS a CROSS JOIN main.{quote(shape.name)} AS d ON {same} AND {rest}"
    for new in came:
        for old in went:
            if old.affinity != new.affinity or old.name in {name for name, _ in found}:
                continue
            differ = any_differs([(new, f"d.{quote(new.name)}", f"a.{quote(old.name)}")])
            if value(connection, f"SELECT 1 {both} WHERE {differ} LIMIT 1") is None and value(
                connection, f"SELECT 1 {both} WHERE a.{quote(old.name)} IS NOT NULL LIMIT 1"
            ):
                found.append((old.name, new.name))
                break
    return found
