"""Compare database and mirror, whole tables at a time.

Invariant: a comparison only finds keys; the same rules as for logged keys decide what happens to the rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import apsw

from harmonylite.db.sqlite.connection import attach, mapped, open_file, rows, value
from harmonylite.db.sqlite.lossless import exact_rows, step
from harmonylite.db.tracking.change_log import ChangeLog
from harmonylite.db.tracking.tracked_table import TrackedTable
from harmonylite.schema.names import folded
from harmonylite.schema.shape import TableShape, any_differs
from harmonylite.schema.sql import quote
from harmonylite.wire import encode_value

SAMPLE = 20
"""Listed keys of a difference."""
FEW_KEYS = 5
"""Listed keys of a mirror that deviates."""
COUNTED = 10_000
"""Logged rows of a table up to which the pending ones are counted, each second; of more rows, all count as pending."""


@dataclass
class TableDifference:
    """How one table differs: rows of the mirror alone, rows of the database alone, rows with other values."""

    table: str
    rows: int = 0
    missing: int = 0
    extra: int = 0
    different: int = 0
    sample: list[tuple[Any, ...]] = field(default_factory=list)

    @property
    def equal(self) -> bool:
        """True when nothing differs."""
        return not (self.missing or self.extra or self.different)


def _parts(table: TrackedTable, left: str, right: str) -> dict[str, str]:
    """Return FROM and WHERE of the keys that are missing in ``left``, extra in it, or have other values.

    A mirror holds rows in about the order of their keys, as change sets bring them; so its rows are read one after the
    other, and those of the database are looked up by neighbouring keys.
    """
    shape = table.shape
    columns = [shape.columns[i] for i in shape.compared]
    test = any_differs((c, shape.read(c, "d"), shape.read(c, "m")) for c in columns)
    return {
        "missing": f"FROM {right} AS m WHERE NOT EXISTS (SELECT 1 FROM {left} AS d WHERE {shape.same_row('d', 'm')})",
        "extra": f"FROM {left} AS d WHERE NOT EXISTS (SELECT 1 FROM {right} AS m WHERE {shape.same_row('m', 'd')})",
        "different": f"FROM {right} AS m CROSS JOIN {left} AS d ON {shape.same_row('d', 'm')} WHERE {test}",
    }


def differing_keys(table: TrackedTable, left: str = "", right: str = "") -> str:
    """Return a query for the keys of rows that differ between ``left`` (the database) and ``right`` (the mirror)."""
    shape = table.shape
    parts = _parts(table, left or table.main, right or table.mirror)
    alias = {"missing": "m", "extra": "d", "different": "d"}
    return " UNION ALL ".join(f"SELECT {shape.read_key(alias[kind])} {rest}" for kind, rest in parts.items())


def only_here(table: TrackedTable) -> str:
    """Return a query for the keys of rows that only the database has."""
    extra = _parts(table, table.main, table.mirror)["extra"]
    return f"SELECT {table.shape.read_key('d')} {extra}"


def unsent_rows(table: TrackedTable) -> Iterator[tuple[Any, ...]]:
    """Yield the database's rows that the mirror lacks, or has with other values."""
    parts = _parts(table, table.main, table.mirror)
    reads = [table.shape.read(column, "d") for column in table.shape.columns]
    for kind in ("extra", "different"):
        yield from exact_rows(table.connection, reads, parts[kind])


def changed_keys(table: TrackedTable, *, replicate: bool) -> str:
    """Return a query for the keys of rows that may have been changed here without a log entry.

    ``replicate`` False: the database gets no rows of other nodes, so it lacks most of them or has old versions; only
    rows that it alone has are its own.
    """
    return differing_keys(table) if replicate else only_here(table)


def compare(connection: apsw.Connection, table: TrackedTable, *, unlogged: bool) -> TableDifference:
    """Return how database and mirror differ in one table; ``unlogged``: ignore rows that are pending or held."""
    shape = table.shape
    found = TableDifference(shape.name, int(value(connection, f"SELECT count(*) FROM {table.mirror}")))
    for kind, rest in _parts(table, table.main, table.mirror).items():
        alias = "m" if kind == "missing" else "d"
        keep = ""
        if unlogged:
            terms = " AND ".join(f"l.k{i} IS {shape.read(c, alias)}" for i, c in enumerate(shape.keys))
            if table.logged:
                keep = f" AND NOT EXISTS (SELECT 1 FROM {table.scratch('logged')} AS l WHERE {terms})"
            held = f"SELECT 1 FROM main.__harmonylite__held AS l WHERE l.t = {table.id} AND {terms}"
            keep += f" AND NOT EXISTS ({held})"
        setattr(found, kind, int(value(connection, f"SELECT count(*) {rest}{keep}")))
        room = SAMPLE - len(found.sample)
        if getattr(found, kind) and room:
            reads = [shape.read(c, alias) for c in shape.keys]
            found.sample += exact_rows(connection, reads, f"{rest}{keep} LIMIT {room}")
    return found


def digest_table(connection: apsw.Connection, shape: TableShape, schema: str = "mirror") -> str:
    """Return the SHA-256 of one table's rows in the order of their keys, values bit for bit, as hexadecimal text.

    It is the digest of the rows' concatenated MessagePack, however many steps read them.
    """
    # nodes that added the same columns in another order have them in another order
    columns = [*shape.keys, *sorted((c for c in shape.columns if c.key < 0), key=lambda c: folded(c.name))]
    reads = [shape.read(c, "t") for c in columns]
    order = ", ".join(f"{shape.read(c, 't')} COLLATE BINARY" for c in shape.keys)
    found = exact_rows(connection, reads, f"FROM {schema}.{quote(shape.name)} AS t ORDER BY {order}")
    state = sha256(encode_value([folded(shape.name), [folded(column.name) for column in columns]]))
    while rows := step(found, 2_000):
        head = 1 if len(rows) < 16 else 3  # MessagePack: the length of the header of such an array
        state.update(memoryview(encode_value(rows))[head:])
    return state.hexdigest()


def open_snapshot(mirror: Path) -> apsw.Connection:
    """Return a connection that reads the mirror's present state until it is closed."""
    connection = open_file(mirror, read_only=True)
    with mapped("hold the mirror"):
        connection.execute("BEGIN")
        value(connection, "SELECT count(*) FROM sqlite_schema")
    return connection


def digest_snapshot(connection: apsw.Connection, shapes: Iterable[TableShape]) -> dict[str, str]:
    """Return the digest of every table by name, and close the connection."""
    try:
        with mapped("digest the mirror"):
            return {shape.name: digest_table(connection, shape, "main") for shape in shapes}
    finally:
        connection.close()


def deviations(
    connection: apsw.Connection, tables: Mapping[str, TrackedTable], right: Path
) -> dict[str, tuple[int, list[tuple[Any, ...]]]]:
    """Return, by table, how many rows of ``mirror`` differ from the mirror file ``right``, and some of their keys."""
    found = {}
    attach(connection, right, "right", read_only=True)
    try:
        with mapped("compare mirrors"):
            for name, table in tables.items():
                known = value(connection, f"SELECT 1 FROM {quote('right')}.sqlite_schema WHERE name = ?", (name,))
                keys = differing_keys(table, table.mirror, f"{quote('right')}.{quote(name)}")
                count = int(value(connection, f"SELECT count(*) FROM ({keys})")) if known else 0
                if count:
                    found[name] = (count, rows(connection, f"SELECT * FROM ({keys}) LIMIT {FEW_KEYS}"))
    finally:
        connection.execute("DETACH right")
    return found


def count_pending(connection: apsw.Connection, log: ChangeLog, tables: Mapping[int, TrackedTable]) -> int:
    """Read the log; return how many of its rows differ: some may be acknowledged already."""
    log.refresh(tables)
    return sum(_pending_of(connection, table) for table in tables.values())


def _pending_of(connection: apsw.Connection, table: TrackedTable) -> int:
    if not table.logged or table.logged > COUNTED:
        return table.logged
    shape = table.shape
    d, m = (
        f"SELECT 1 FROM {place} AS {a} WHERE {shape.same(a, 'x')}"
        for place, a in ((table.main, "d"), (table.mirror, "m"))
    )
    columns = [shape.columns[i] for i in shape.compared]
    other = any_differs((c, shape.read(c, "d"), shape.read(c, "m")) for c in columns)
    both = f"{table.main} AS d CROSS JOIN {table.mirror} AS m ON {shape.same('m', 'x')} WHERE {shape.same('d', 'x')}"
    sql = (
        f"SELECT count(*) FROM {table.scratch('logged')} AS x WHERE (EXISTS ({d})) IS NOT (EXISTS ({m}))"
        f" OR EXISTS (SELECT 1 FROM {both} AND ({other}))"
    )
    return int(value(connection, sql))
