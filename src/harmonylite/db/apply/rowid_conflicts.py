"""Rowids of rows whose key holds NULL: the rowid is then the key, so another row under that rowid must move.

SQLite allows NULL in a primary key that is neither INTEGER nor WITHOUT ROWID, any number of times. Such rows are
distinguished by their rowids; rows with a complete key have the rowid that their own file gave them.

Invariant: a row whose key is its rowid has the same rowid in database and mirror of every node.
"""

from __future__ import annotations

import apsw

from harmonylite.db.sqlite.connection import rows
from harmonylite.db.tracking.change_log import ChangeLog
from harmonylite.db.tracking.tracked_table import TrackedTable
from harmonylite.schema.sql import quote


def claims_first(table: TrackedTable, prefix: str) -> str:
    """Return the order of inserts: rows that claim a rowid before those that SQLite gives one."""
    if not table.shape.nullable_key:
        return ""
    return f" ORDER BY {prefix}{len(table.shape.keys) - 1} IS NULL, x.rowid"


def make_room(
    connection: apsw.Connection,
    table: TrackedTable,
    target: str,
    scratch: str,
    prefix: str,
    *,
    log: ChangeLog | None = None,
) -> None:
    """Move rows with a complete key away from rowids that rows in ``scratch`` (columns ``prefix``0, ...) claim.

    ``log``: log them by key, as the log may know them by rowid only.
    """
    if not table.shape.nullable_key:
        return
    shape = table.shape
    rowid = quote(shape.rowid)
    claim = f"{prefix}{len(shape.keys) - 1}"
    whole = " AND ".join(f"t.{quote(c.name)} IS NOT NULL" for c in shape.keys if not c.pseudo)
    taken = rows(
        connection,
        f"SELECT x.{claim} FROM {table.scratch(scratch)} AS x CROSS JOIN {target} AS t ON t.{rowid} = x.{claim}"
        f" WHERE {whole}",
    )
    for (number,) in taken:
        if log is not None:
            log.append(table, f"SELECT {shape.read_key('t')} FROM {target} AS t WHERE t.{rowid} = {number}")
        connection.execute(
            f"{table.update_verb} {target} SET {rowid} = (SELECT max((SELECT max({rowid}) FROM {target}),"
            f" (SELECT max({claim}) FROM {table.scratch(scratch)})) + 1) WHERE {rowid} = ?",
            (number,),
        )
