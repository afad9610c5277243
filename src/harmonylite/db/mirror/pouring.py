"""Copy the rows of a table into one of another shape, the same way in a database and in its mirror.

Invariant: a value keeps its column, also under another name; missing values come from the definition alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import apsw

from harmonylite.schema.shape import FILLERS, Column, TableShape
from harmonylite.schema.sql import quote
from harmonylite.schema.table_text import Moves, kept_columns


def known_pairs(before: TableShape, after: TableShape, noted: Moves) -> list[tuple[str, str]]:
    """Return old and new names of the columns that keep their values, as ``noted`` by their writer."""
    old, new = ([c.name for c in shape.columns if not c.pseudo] for shape in (before, after))
    pairs = kept_columns(noted, old, new)
    if before.rowid and after.rowid and not after.integer_key:
        pairs.append((before.rowid, after.rowid))
    return pairs


def pour(
    connection: apsw.Connection,
    shape: TableShape,
    pairs: Sequence[tuple[str, str]],
    aside: str,
    *,
    schema: str = "mirror",
    verb: str = "INSERT OR REPLACE",
    like: TableShape | None = None,
    further: bool = False,
) -> bool:
    """Copy the rows of the old table ``aside`` into the new one; ``pairs``: old and new names of the kept columns;
    ``like``: see `TableShape.into`; ``further``: the new one has unique indexes that ``shape`` may lack.

    A row whose key is unknown, or has a forbidden NULL, can't be copied: the database's row is then a new one. Returns
    False if no row can be copied, because the key is new.
    """
    given = {new: f"a.{quote(old)}" for old, new in pairs}
    keys = [column for column in shape.keys if column.pseudo != "null"]
    if any((shape.rowid if column.pseudo else column.name) not in given for column in keys):
        return False
    present = [i for i, column in enumerate(shape.columns) if not column.pseudo and column.name in given]
    reads = {i: _filled(shape.columns[i], given[shape.columns[i].name]) for i in present}
    nulls = " OR ".join(f"{given[column.name]} IS NULL" for column in keys if not column.pseudo) or "1"
    rowid = [f"CASE WHEN {nulls} THEN {given[shape.rowid]} END"] if shape.rowid in given else []
    key = [*(given[c.name] for c in keys if not c.pseudo), *rowid]
    into, out = shape.into(present, reads.__getitem__, key, like=like)
    if shape.rowid in given and not shape.integer_key:
        into, out = f"{into}, {quote(shape.rowid)}", f"{out}, {given[shape.rowid]}"
    real = [column for column in keys if not column.pseudo]
    known = " AND ".join(f"{given[column.name]} IS NOT NULL" for column in real if column.not_null or not shape.rowid)
    # if two rows violate a new unique index, the same one stays on every node, in whatever order they came there
    ordered = bool(real) and (further or shape.has_unique)
    order = ", ".join([*(f"{given[column.name]} COLLATE BINARY" for column in real), *rowid])
    connection.execute(
        f"{verb} INTO {schema}.{quote(shape.name)}({into}) SELECT {out} FROM {aside} AS a"
        f"{' WHERE ' * bool(known)}{known}{f' ORDER BY {order}' * ordered}"
    )
    return True


def _filled(column: Column, expression: str) -> str:
    """Return an older value, with a filler for NULL in a NOT NULL column; the writer sends each row's own value."""
    if column.key >= 0 or not column.not_null or column.defaulted:
        return expression
    return f"ifnull({expression}, {FILLERS[column.affinity]})"
