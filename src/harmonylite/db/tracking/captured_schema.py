"""The schema that the stream knows of this database: what was captured of it, and what came from other nodes.

Invariant: the next change set carries what differs from it. It is written only in transactions that change the
database's schema or the capture triggers anyway.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache

import apsw

from harmonylite.db.sqlite.connection import rows, value
from harmonylite.db.sqlite.introspection import Listed, TableRules
from harmonylite.db.sqlite.listing import write_list
from harmonylite.db.tracking import layout
from harmonylite.db.tracking.column_ids import Columns
from harmonylite.db.tracking.waiting_schema import new_tables
from harmonylite.schema import section
from harmonylite.schema.catalog import difference
from harmonylite.schema.columns import REMEMBERED, added
from harmonylite.schema.names import folded
from harmonylite.schema.section import (
    PRAGMA,
    PRAGMAS,
    Key,
    Known,
    SchemaChange,
    brought_along,
    changes,
    key_of,
)
from harmonylite.schema.sql import OURS_GLOB, PRIVATE, quote
from harmonylite.schema.table_text import Moves
from harmonylite.wire import decode_value, encode_value

CAPTURED = quote(PRIVATE + "schema")


def read_schema(
    connection: apsw.Connection, rules: TableRules, numbers: Mapping[str, int], objects: Iterable[Listed]
) -> list[Known]:
    """Return the schema of ``main`` that travels: without our objects, SQLite's, and those of excluded tables.

    ``numbers``: the tables' numbers in the log, by name; ``objects``: the application's.
    """
    found = [
        Known(kind, name, table, sql, numbers.get(name, 0) if kind == "table" else 0)
        for kind, name, table, sql in objects
        if rules.wanted(table)
    ]
    return found + _numbers(connection, PRAGMAS)


def _numbers(connection: apsw.Connection, names: Iterable[str]) -> list[Known]:
    return [Known(PRAGMA, name, "", str(value(connection, f"PRAGMA main.{name}"))) for name in names]


def captured_schema(connection: apsw.Connection, kind: str = "") -> list[Known]:
    """Return the captured schema, of one ``kind`` or of all."""
    listed = f"SELECT type, name, tbl, sql, id, twin, columns FROM main.{CAPTURED} WHERE type = ?1 OR ?1 = ''"
    return [known_of(*row) for row in rows(connection, listed, (kind,))]


@lru_cache(maxsize=4 * REMEMBERED)
def known_of(kind: str, name: str, table: str, sql: str, number: int, id_: str | None, columns: bytes | None) -> Known:
    """Return an object as it is kept in a table; ``columns``: `packed`."""
    return Known(kind, name, table, sql, number, id_ or "", unpacked(columns))


def numbers_of(captured: Iterable[Known]) -> dict[str, int]:
    """Return the log's numbers of captured tables, by the folded name that the stream knows."""
    return {folded(known.name): known.number for known in captured if known.kind == "table" and known.number}


def has_captured(connection: apsw.Connection) -> bool:
    """Return whether the database records the captured schema as this version does."""
    sql = "SELECT 1 FROM pragma_table_info(?, 'main') WHERE name = 'columns'"
    return value(connection, sql, (PRIVATE + "schema",)) is not None


def make_table(connection: apsw.Connection) -> bool:
    """Create the table of the captured schema if it is missing; return whether it was."""
    return bool(layout.make(connection, "main", {CAPTURED: "(type, name, tbl, sql, id, twin TEXT, columns BLOB)"}))


def packed(columns: Iterable[tuple[str, str]]) -> bytes | None:
    """Return names and identities of columns as they are kept."""
    return _packed(tuple(columns))


@lru_cache(maxsize=REMEMBERED)
def _packed(columns: tuple[tuple[str, str], ...]) -> bytes | None:
    return encode_value([list(pair) for pair in columns]) if columns else None


@lru_cache(maxsize=REMEMBERED)
def unpacked(blob: bytes | None) -> tuple[tuple[str, str], ...]:
    """Return what `packed` packed."""
    return () if blob is None else tuple((name, id_) for name, id_ in decode_value(blob))


def settle(
    connection: apsw.Connection,
    rules: TableRules,
    now: Sequence[Known],
    begin: Sequence[Known],
) -> tuple[list[SchemaChange], list[Known]]:
    """Return what is to be sent of the schema ``now``, additions alone, and what counts as captured: what means as
    before. The transaction writes the database.

    A table of the name of one that waits is that table, and nothing new: its migration may need several transactions.
    It counts as captured once it has all that waits.

    ``begin``: what is to count as captured instead of what does: only what this file has over that is sent; where
    nothing counts as captured, it is ``now``.
    """
    before = captured_schema(connection)
    captured = [*begin] or [known for known in before if known.kind == PRAGMA or rules.wanted(known.table)] or [*now]
    there = {known.key for known in captured}
    captured += [known for known in now if known.kind == PRAGMA and known.key not in there]
    waits = {known.key: known for known in new_tables(connection) if known.key not in there}
    found, kept = brought_along([*captured, *waits.values()], now)
    done = [each for each in kept if each.key not in waits or not added(each.sql, waits[each.key].sql)]
    write(connection, done, before)
    return found, done


def settle_all(
    connection: apsw.Connection,
    rules: TableRules,
    now: Iterable[Known],
    before: Sequence[Known],
    columns: Mapping[int, Columns],
) -> tuple[list[SchemaChange], Sequence[Known]]:
    """Return all that is to be sent of the schema ``now``, and what counts as captured; the transaction writes the
    database.

    ``before``: what counts as captured; ``columns``: those of tables, by their number in the log, with the identities
    that the stream knows. Where nothing counts as captured, ``now`` does.
    """
    captured = [known for known in before if known.kind == PRAGMA or rules.wanted(known.table)]
    by_number = {known.number: known for known in captured if known.id and known.number}
    now = [with_columns(known, columns.get(known.number, {}), by_number.get(known.number)) for known in now]
    there = {known.key for known in captured}
    missing = [known for known in now if not captured or (known.kind == PRAGMA and known.key not in there)]
    if missing:
        captured += missing
        write(connection, captured, before)
        before = captured
    tables = {known.name: known for known in now if known.kind == "table"}

    def moves(name: str, _old: str, _new: str) -> Moves:
        was = by_number.get(tables[name].number)
        return {} if was is None else difference(was, tables[name])

    return changes(captured, now, _all_keys(connection), moves), before


def with_columns(known: Known, columns: Columns, was: Known | None) -> Known:
    """Return a table with the identities of its columns that the stream knows, ``was`` if it has not changed."""
    if known.kind != "table":
        return known
    ids = tuple(sorted((name, c.id) for name, c in columns.items() if c.id))
    if was is not None and was.name == known.name and was.sql == known.sql and tuple(sorted(was.columns)) == ids:
        return was
    return replace(known, columns=ids)


def _all_keys(connection: apsw.Connection) -> set[Key]:
    listed = rows(connection, "SELECT type, name FROM main.sqlite_schema WHERE name NOT GLOB ?", (OURS_GLOB,))
    return {key_of(kind, name) for kind, name in listed}


def changed_numbers(connection: apsw.Connection, pragmas: Iterable[Known]) -> list[SchemaChange]:
    """Return ``user_version`` and ``application_id`` where they changed: the schema's version does not cover these.

    ``pragmas``: those that count as captured.
    """
    return section.changed_numbers(pragmas, _numbers(connection, [known.name for known in pragmas]))


def advance(connection: apsw.Connection, *, gone: Iterable[Key] = (), known: Iterable[Known] = ()) -> None:
    """Count ``known`` as captured, and ``gone`` as no longer captured; the transaction writes the database."""
    captured = {each.key: each for each in captured_schema(connection)}
    for key in gone:
        captured.pop(key, None)
    captured |= {each.key: each for each in known}
    write(connection, list(captured.values()))


def write(connection: apsw.Connection, captured: Iterable[Known], before: Iterable[Known] | None = None) -> None:
    """Replace the captured schema by ``captured``; the transaction writes the database where that is another one.

    ``before``: the captured schema until now, where it was just read.
    """
    captured = list(captured)
    before = captured_schema(connection) if before is None else list(before)
    if captured == before or set(captured) == set(before):
        return
    listed = [(k.kind, k.name, k.table, k.sql, k.number, k.id, packed(k.columns)) for k in captured]
    write_list(connection, f"main.{CAPTURED}", ("type", "name", "tbl", "sql", "id", "twin", "columns"), listed)
