"""What the local writer last saw of pending rows that other nodes changed meanwhile.

A change set says what its writer last saw, so that every node knows what it overrules. The mirror's row at the time
of capture is that, except for a row that was pending while a fold changed it: the writer never saw the mirror's new
values. Its base is remembered here when the merge keeps a local value against a newer one, also of a row that is in
flight: its change set may be voided, and the row captured once more. What this node's own change sets bring back is
what the writer saw from then on.

Invariant: a base is here only while the log names its row.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import apsw

from harmonylite.changes.sharding import plain
from harmonylite.db.mirror.schema_history import Own
from harmonylite.db.sqlite.connection import rows, value
from harmonylite.db.sqlite.lossless import marks
from harmonylite.db.tracking import triggers
from harmonylite.db.tracking.tracked_table import TrackedTable
from harmonylite.schema.sql import quote
from harmonylite.wire import TableBlock, decode_value, encode_value

BASE = f"main.{quote(triggers.BASE)}"

Seen = dict[bytes, "list[Any] | None"]
"""Base rows by encoded key; None where the writer saw no row."""


def key_of(table: TrackedTable, values: Sequence[Any]) -> bytes:
    """Return a key as the bytes under which its base is stored: the same for all keys that SQLite holds equal."""
    return encode_value([plain(value, c.collation) for c, value in zip(table.shape.keys, values, strict=True)])


def remember(connection: apsw.Connection, table: TrackedTable, key: Sequence[Any], base: Sequence[Any] | None) -> None:
    """Remember what the writer last saw of a row, unless that is known already; the transaction writes the database."""
    seen = encode_value(None if base is None else list(base))
    connection.execute(f"INSERT OR IGNORE INTO {BASE} VALUES (?, ?, ?)", (table.id, key_of(table, key), seen))


def any_there(connection: apsw.Connection) -> bool:
    """Return whether a base is remembered."""
    return value(connection, f"SELECT 1 FROM {BASE} LIMIT 1") is not None


def seen_of(connection: apsw.Connection, table: TrackedTable) -> Seen:
    """Return the bases of one table that fit its columns."""
    width = len(table.shape.columns)
    found: Seen = {}
    for key, row in rows(connection, f"SELECT key, row FROM {BASE} WHERE t = ?", (table.id,)):
        base = decode_value(row)
        if base is None or len(base) == width:
            found[key] = base
    return found


def lay_over(connection: apsw.Connection, own: Own) -> None:
    """Bring bases up to what change sets of this node published; the transaction writes the database."""
    based = {number for (number,) in rows(connection, f"SELECT DISTINCT t FROM {BASE}")}
    for table, part in own if based else ():
        if table.id in based and list(table.shape.names) == part.columns:
            _lay(connection, table, part)


def lay_on(seen: Mapping[int, Seen], tables: Mapping[str, TrackedTable], parts: Iterable[TableBlock]) -> None:
    """Bring ``seen``, bases that were read, up to ``parts``: change sets of this node for ``tables``, by name."""
    for part in parts:
        table = tables.get(part.table)
        if table is not None and (bases := seen.get(table.id)):
            for row, there, changed in _rows(part):
                if (key := key_of(table, row[: part.keys])) in bases:
                    bases[key] = _moved(bases[key], row if there else None, changed)


def _lay(connection: apsw.Connection, table: TrackedTable, part: TableBlock) -> None:
    """Lay a part over the bases of its rows, one by one: there may be more of either than memory should hold."""
    for row, whole, changed in _rows(part):
        where = (table.id, key_of(table, row[: part.keys]))
        there = value(connection, f"SELECT row FROM {BASE} WHERE t = ? AND key = ?", where)
        base = None if there is None else decode_value(there)
        if there is not None and (base is None or len(base) == len(table.shape.columns)):
            moved = encode_value(_moved(base, row if whole else None, changed))
            connection.execute(f"UPDATE {BASE} SET row = ? WHERE t = ? AND key = ?", (moved, *where))


def _rows(part: TableBlock) -> Iterator[tuple[list[Any], bool, Sequence[int] | None]]:
    """Yield each row, whether it is there afterwards, and the columns that it changes (None: all)."""
    for row in part.deletes:
        yield row, False, None
    for row in part.inserts:
        yield row, True, None
    for group in part.updates:
        for row in group.rows:
            yield row, True, group.changed


def _moved(base: list[Any] | None, row: list[Any] | None, changed: Sequence[int] | None) -> list[Any] | None:
    """Return the base of a row that became ``row``, in the columns ``changed``."""
    if row is None or base is None or changed is None:
        return row
    return [row[i] if i in changed else before for i, before in enumerate(base)]


def forget(connection: apsw.Connection, table: TrackedTable, keys: Sequence[Sequence[Any]]) -> None:
    """Forget the bases of rows that have another key now; the transaction writes the database."""
    named = [(table.id, key_of(table, key)) for key in keys]
    connection.executemany(f"DELETE FROM {BASE} WHERE t = ? AND key = ?", named)


def forget_unlogged(connection: apsw.Connection, tables: Mapping[int, TrackedTable]) -> None:
    """Forget the bases of rows that the log names no more; the transaction writes the database."""
    for number, key in rows(connection, f"SELECT t, key FROM {BASE}"):
        table = tables.get(number)
        if table is None or not _logged(connection, table, decode_value(key)):
            connection.execute(f"DELETE FROM {BASE} WHERE t = ? AND key = ?", (number, key))


def _logged(connection: apsw.Connection, table: TrackedTable, key: Sequence[Any]) -> bool:
    if not table.logged or len(key) != len(table.shape.keys):
        return False
    terms, bound = [], []
    for i, part in enumerate(key):
        place, values = marks([part])
        terms.append(f"k{i} IS {place}")
        bound += values
    return value(connection, f"SELECT 1 FROM {table.scratch('logged')} WHERE {' AND '.join(terms)}", bound) is not None
