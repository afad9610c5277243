"""Parts of a schema that need what this process may lack: collations, functions and modules of the application.

Invariant: SQLite itself decides, by compiling the statement in question; the schema's text decides nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from re import IGNORECASE
from re import compile as pattern

import apsw

from harmonylite.db.sqlite.connection import compile_only, open_scratch, rows
from harmonylite.schema.shape import TableShape
from harmonylite.schema.sql import quote

_MAY_LACK = pattern(r"\b(?:CHECK|COLLATE|AS)\b|\bDEFAULT\s*\(", IGNORECASE)
"""Where a column or a constraint can name a function or a collation."""


def why_unwritable(connection: apsw.Connection, shape: TableShape, schema: str) -> str:
    """Return why this process can't write a table, "" when it can.

    SQLite compiles the expressions of indexes, generated columns and keys with every write, but not CHECK constraints
    on a connection that ignores them.
    """
    refused = compile_writes(connection, schema, shape.name, [c.name for c in shape.columns if not c.pseudo])
    return next((why for why in refused if why), "")


def compile_writes(connection: apsw.Connection, schema: str, name: str, columns: Sequence[str]) -> list[str]:
    """Return SQLite's error for an insert, an update and a delete in a table or view, "" for one that would run.

    ``columns``: those that the insert and the update name, at least one.
    """
    target, listed = f"{quote(schema)}.{quote(name)}", [quote(column) for column in columns]
    statements = (
        f"INSERT INTO {target}({', '.join(listed)}) VALUES ({', '.join('NULL' for _ in listed)})",
        f"UPDATE {target} SET {', '.join(f'{column} = NULL' for column in listed)}",
        f"DELETE FROM {target}",
    )
    return [_refused(connection, sql) for sql in statements]


def _refused(connection: apsw.Connection, sql: str) -> str:
    try:
        compile_only(connection, sql)
    except apsw.SQLError as error:
        return str(error)
    return ""


def mirror_definition(connection: apsw.Connection, shape: TableShape) -> str:
    """Return the statement that creates a table in the mirror: its own, or one without parts that can't run here.

    The mirror checks and computes nothing: it needs columns, key and unique constraints.
    """
    if not _MAY_LACK.search(shape.sql):
        return shape.sql
    scratch = open_scratch()
    try:
        scratch.execute(shape.sql)
    except apsw.SQLError:
        return _bare(connection, shape)
    else:
        return shape.sql
    finally:
        scratch.close()


def _bare(connection: apsw.Connection, shape: TableShape) -> str:
    """Return a definition with the columns, NOT NULL, the key and the unique constraints of a table, and no more."""
    known = _collations(connection)
    declared = dict(rows(connection, "SELECT name, type FROM pragma_table_xinfo(?, 'main')", (shape.name,)))
    strict, without_rowid = rows(
        connection, "SELECT strict, wr FROM pragma_table_list WHERE schema = 'main' AND name = ?", (shape.name,)
    )[0]
    terms = []
    for column in shape.columns:
        if column.pseudo:
            continue
        words = [quote(column.name), declared[column.name]]
        if shape.integer_key and column.key >= 0:
            words.append("PRIMARY KEY")
        if column.not_null:
            words.append("NOT NULL")
        if column.collation in known and column.collation != "BINARY":
            words.append(f"COLLATE {quote(column.collation)}")
        terms.append(" ".join(word for word in words if word))
    indexes = "SELECT name, origin FROM pragma_index_list(?, 'main') WHERE origin IN ('pk', 'u') ORDER BY seq DESC"
    for index, origin in rows(connection, indexes, (shape.name,)):
        parts = rows(connection, "SELECT name, coll FROM pragma_index_xinfo(?, 'main') WHERE key", (index,))
        columns = ", ".join(f"{quote(name)} COLLATE {quote(collation)}" for name, collation in parts)
        terms.append(f"{'PRIMARY KEY' if origin == 'pk' else 'UNIQUE'} ({columns})")
    options = ", ".join(word for word, given in (("STRICT", strict), ("WITHOUT ROWID", without_rowid)) if given)
    return f"CREATE TABLE {quote(shape.name)}({', '.join(terms)}){' ' * bool(options)}{options}"


def _collations(connection: apsw.Connection) -> set[str]:
    """Return the collations that this process has; SQLite's own list includes those that a schema mentions."""
    found = set()
    for (name,) in rows(connection, "SELECT name FROM pragma_collation_list"):
        if not _refused(connection, f"SELECT '' = '' COLLATE {quote(name)}"):
            found.add(name.upper())
    return found
