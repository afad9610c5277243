"""The schema that the stream knows of this database: what was captured of it, and what came from other nodes.

Invariant: the next change set carries what differs from it. It is written only in transactions that change the
database's schema or the capture triggers anyway.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import apsw

from harmonylite.db.sqlite.connection import rows, value
from harmonylite.db.sqlite.introspection import TableRules, application_objects
from harmonylite.schema import section
from harmonylite.schema.columns import names_in
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
    settled,
)
from harmonylite.schema.sql import PRIVATE, quote
from harmonylite.schema.table_text import Moves

CAPTURED = quote(PRIVATE + "schema")


def read_schema(connection: apsw.Connection, rules: TableRules, numbers: Mapping[str, int]) -> list[Known]:
    """Return the schema of ``main`` that travels: without our objects, SQLite's, and those of excluded tables.

    ``numbers``: the tables' numbers in the log, by name.
    """
    found = [
        Known(kind, name, table, sql, numbers.get(name, 0) if kind == "table" else 0)
        for kind, name, table, sql in application_objects(connection)
        if rules.wanted(table)
    ]
    return found + _numbers(connection, PRAGMAS)


def _numbers(connection: apsw.Connection, names: Iterable[str]) -> list[Known]:
    return [Known(PRAGMA, name, "", str(value(connection, f"PRAGMA main.{name}"))) for name in names]


def captured_schema(connection: apsw.Connection, kind: str = "") -> list[Known]:
    """Return the captured schema, of one ``kind`` or of all."""
    listed = f"SELECT type, name, tbl, sql, id FROM main.{CAPTURED} WHERE type = ?1 OR ?1 = ''"
    return [Known(*row) for row in rows(connection, listed, (kind,))]


def numbers_of(captured: Iterable[Known]) -> dict[str, int]:
    """Return the log's numbers of captured tables, by the folded name that the stream knows."""
    return {folded(known.name): known.number for known in captured if known.kind == "table" and known.number}


def sent_columns(connection: apsw.Connection, table: str) -> set[str]:
    """Return the columns, in lower case, of the table that the stream knows as ``table``."""
    if value(connection, "SELECT 1 FROM main.sqlite_schema WHERE name = ?", (PRIVATE + "schema",)) is None:
        return set()
    found = [known for known in captured_schema(connection, "table") if folded(known.name) == folded(table)]
    return {folded(name) for known in found for name in names_in(known.sql)}


def make_table(connection: apsw.Connection) -> bool:
    """Create the table of the captured schema if it is missing; return whether it was."""
    made = value(connection, "SELECT 1 FROM main.sqlite_schema WHERE name = ?", (PRIVATE + "schema",)) is None
    if made:
        connection.execute(f"CREATE TABLE main.{CAPTURED}(type, name, tbl, sql, id)")
    return made


MovesOf = Callable[[str, str, str], Moves]
"""Returns what happened to the columns of a table, given its name, its old and its new definition."""


def settle(
    connection: apsw.Connection,
    rules: TableRules,
    numbers: Mapping[str, int],
    begin: Sequence[Known],
    moves: MovesOf | None,
) -> list[SchemaChange]:
    """Return the changes of the schema to be sent; definitions of the same meaning count as captured. The transaction
    writes the database.

    ``moves`` None: only additions are sent. ``begin``: becomes the captured schema first, so that only additions to it
    are sent; if nothing is captured, the present schema is.
    """
    now = read_schema(connection, rules, numbers)
    before = captured_schema(connection)
    captured = [*begin] or [known for known in before if known.kind == PRAGMA or rules.wanted(known.table)] or now
    there = {known.key for known in captured}
    captured += [known for known in now if known.kind == PRAGMA and known.key not in there]
    if begin or moves is None:
        found, kept = brought_along(captured, now)
    else:
        found = changes(captured, now, _all_keys(connection), moves)
        kept = settled(captured, now, found)
    if set(kept) != set(before):
        write(connection, kept)
    return found


def _all_keys(connection: apsw.Connection) -> set[Key]:
    return {key_of(kind, name) for kind, name in rows(connection, "SELECT type, name FROM main.sqlite_schema")}


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


def write(connection: apsw.Connection, captured: Iterable[Known]) -> None:
    """Replace the captured schema by ``captured``; the transaction writes the database."""
    connection.execute(f"DELETE FROM main.{CAPTURED}")
    connection.executemany(
        f"INSERT INTO main.{CAPTURED} VALUES (?, ?, ?, ?, ?)",
        [(known.kind, known.name, known.table, known.sql, known.number) for known in captured],
    )
