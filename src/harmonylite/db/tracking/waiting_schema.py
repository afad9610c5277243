"""Schema changes of other nodes that are not made in this database yet: they wait for a person, or for a migration.

Invariant: what waits is in the database, in the transaction in which it would have been made, until it is made here.
"""

from __future__ import annotations

from collections.abc import Iterable

import apsw

from harmonylite.db.sqlite.connection import rows
from harmonylite.db.tracking.triggers import WAITING
from harmonylite.model import WaitingChange
from harmonylite.schema.section import Addition
from harmonylite.schema.sql import quote

_TABLE = f"main.{quote(WAITING)}"


def waiting(connection: apsw.Connection) -> list[tuple[int, Addition, WaitingChange]]:
    """Return what waits, the oldest first: its number, the change, and what a person is shown of it."""
    listed = rows(connection, f"SELECT id, node, why, kind, name, tbl, old, new FROM {_TABLE} ORDER BY id")
    found = []
    for number, node, why, *line in listed:
        change = Addition(*line)
        found.append((number, change, WaitingChange(str(change), change.new, node, why)))
    return found


def let_wait(connection: apsw.Connection, node: str, why: str, changes: Iterable[Addition]) -> None:
    """Let changes of ``node`` wait, each once; the transaction writes the database."""
    there = {change for _, change, _ in waiting(connection)}
    connection.executemany(
        f"INSERT INTO {_TABLE}(node, why, kind, name, tbl, old, new) VALUES (?, ?, ?, ?, ?, ?, ?)",
        [(node, why, c.kind, c.name, c.table, c.old, c.new) for c in dict.fromkeys(changes) if c not in there],
    )


def forget(connection: apsw.Connection, numbers: Iterable[int]) -> None:
    """Forget what waits under ``numbers``; the transaction writes the database."""
    connection.executemany(f"DELETE FROM {_TABLE} WHERE id = ?", [(number,) for number in numbers])
