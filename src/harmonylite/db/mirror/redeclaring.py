"""Give a mirror's table another definition under which SQLite stores every row as it did before.

Migration tools rebuild a table to alter a length, a check or a reference; for a file, only the text is another one then
(SQLite: lang_altertable, "changes that do not affect the on-disk content").

Invariant: what SQLite itself says of the two tables, each made in a scratch database, decides whether they are alike.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass

import apsw

from harmonylite.db.sqlite.connection import open_scratch, rows, value
from harmonylite.schema.shape import affinity_of
from harmonylite.schema.sql import quote

_INDEXES = (
    "SELECT l.origin, i.seqno, i.cid, i.desc, i.coll FROM pragma_index_list(?) AS l, pragma_index_xinfo(l.name) AS i"
    " WHERE i.key ORDER BY l.name, i.seqno"
)
"""Those of its own constraints: no other index is in its definition."""


def redeclared(connection: apsw.Connection, table: str, old: str, new: str) -> bool:
    """Replace the definition ``old`` of a mirror's table by ``new``, if rows are stored alike; return whether they are.

    Both are as SQLite keeps them. The caller holds a transaction.
    """
    there, wanted = _stored_as(old, table), _stored_as(new, table)
    if there is None or wanted is None or there.facts != wanted.facts:
        return False
    nulls = " OR ".join(f"{quote(name)} IS NULL" for name in sorted(wanted.demanded - there.demanded))
    if nulls and value(connection, f"SELECT 1 FROM mirror.{quote(table)} WHERE {nulls} LIMIT 1") is not None:
        return False  # what a mirror's rows have for it then is `pouring`'s to say
    version = int(value(connection, "PRAGMA mirror.schema_version"))
    connection.execute("PRAGMA writable_schema = ON")
    try:
        connection.execute("UPDATE mirror.sqlite_schema SET sql = ? WHERE type = 'table' AND name = ?", (new, table))
        connection.execute(f"PRAGMA mirror.schema_version = {version + 1}")
    finally:
        connection.execute("PRAGMA writable_schema = RESET")
    return True


@dataclass(frozen=True)
class _Stored:
    """``facts``: what decides how rows are stored, and the defaults, which an older row has in a newer column.
    ``demanded``: the columns that must have a value.
    """

    facts: tuple[object, ...]
    demanded: frozenset[str]


def _stored_as(sql: str, table: str) -> _Stored | None:
    """Return what SQLite says of a table; None if it computes a column, or uses a collation or function of others."""
    with closing(open_scratch()) as scratch:
        try:
            scratch.execute(sql)
            kept = rows(scratch, "SELECT ncol, wr, strict FROM pragma_table_list(?)", (table,))
            columns = rows(scratch, "SELECT name, type, dflt_value, pk, hidden FROM pragma_table_xinfo(?)", (table,))
            indexes = rows(scratch, _INDEXES, (table,))
            more = {name: scratch.column_metadata("main", table, name) for name, *_ in columns}
        except apsw.SQLError:
            return None
    if any(hidden for *_, hidden in columns):
        return None
    strict = any(each[-1] for each in kept)
    declared = [
        (name, kind.upper() if strict else affinity_of(kind), default, key, more[name][1], more[name][4])
        for name, kind, default, key, _ in columns
    ]
    return _Stored((kept, declared, indexes), frozenset(name for name, each in more.items() if each[2]))
