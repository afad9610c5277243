"""Which schema the stream knows of this database: what was captured of it, and what came from other nodes.

Invariant: what differs from that is either sent with the next change set, or is no addition and counts as captured. It
is written where the database's schema or the capture triggers change anyway.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import apsw

from harmonylite.db.sqlite.connection import rows, value
from harmonylite.db.sqlite.introspection import TableRules, application_objects
from harmonylite.schema.section import PRAGMA, PRAGMAS, Addition, Known, additions, advanced, settled
from harmonylite.schema.sql import PRIVATE, quote

CAPTURED = quote(PRIVATE + "schema")


def read_schema(connection: apsw.Connection, rules: TableRules, numbers: Mapping[str, int]) -> list[Known]:
    """Return the schema of ``main`` as it travels: without what is ours, SQLite's own, or of tables left out.

    ``numbers``: those of tables in the log, by name.
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
    """Return what counts as captured, of one ``kind`` or of all."""
    listed = f"SELECT type, name, tbl, sql, id FROM main.{CAPTURED} WHERE type = ?1 OR ?1 = ''"
    return [Known(*row) for row in rows(connection, listed, (kind,))]


def make_table(connection: apsw.Connection) -> bool:
    """Make the table of what counts as captured where it is missing; return whether it was."""
    made = value(connection, "SELECT 1 FROM main.sqlite_schema WHERE name = ?", (PRIVATE + "schema",)) is None
    if made:
        connection.execute(f"CREATE TABLE main.{CAPTURED}(type, name, tbl, sql, id)")
    return made


def settle(
    connection: apsw.Connection, rules: TableRules, numbers: Mapping[str, int], begin: Sequence[Known]
) -> list[Addition]:
    """Count as captured what is no addition; return the additions. The transaction writes the database.

    ``begin``: what is to count as captured instead of what does; where nothing does, the schema as it is now.
    """
    now = read_schema(connection, rules, numbers)
    before = captured_schema(connection)
    captured = [*begin] or before or now
    there = {known.key for known in captured}
    captured += [known for known in now if known.kind == PRAGMA and known.key not in there]
    kept = settled(captured, now)
    if set(kept) != set(before):
        _write(connection, kept)
    return additions(kept, now)


def changed_numbers(connection: apsw.Connection) -> list[Addition]:
    """Return ``user_version`` and ``application_id`` where they changed: the schema's version does not cover these."""
    pragmas = captured_schema(connection, PRAGMA)
    return additions(pragmas, _numbers(connection, [known.name for known in pragmas]))


def advance(connection: apsw.Connection, section: Iterable[Addition]) -> None:
    """Count ``section`` as captured; the transaction writes the database."""
    captured = {known.key: known for known in captured_schema(connection)}
    for addition in section:
        captured[addition.key] = advanced(captured, addition)
    _write(connection, list(captured.values()))


def _write(connection: apsw.Connection, captured: Iterable[Known]) -> None:
    connection.execute(f"DELETE FROM main.{CAPTURED}")
    connection.executemany(
        f"INSERT INTO main.{CAPTURED} VALUES (?, ?, ?, ?, ?)",
        [(known.kind, known.name, known.table, known.sql, known.number) for known in captured],
    )
