"""Schema changes of other nodes that this database has not applied: they wait for a person, or for a migration.

Invariant: a change is stored in the transaction that would have applied it, and stays until it is applied here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import apsw

from harmonylite.db.sqlite.connection import rows, value
from harmonylite.db.tracking.triggers import WAITING
from harmonylite.model import WaitingChange
from harmonylite.schema.section import Key, Known, SchemaChange, decode, line_of
from harmonylite.schema.sql import quote
from harmonylite.wire import decode_value, encode_value

_TABLE = f"main.{quote(WAITING)}"


@dataclass(frozen=True)
class Waiting:
    """One change that waits. ``at``: its place in the order, by shard."""

    number: int
    change: SchemaChange
    node: str
    why: str
    at: Mapping[int, int]

    @property
    def shown(self) -> WaitingChange:
        """Its form for a person."""
        ddl = self.change.new if self.change.new is not None else f"DROP {self.change.kind.upper()} {self.change.name}"
        return WaitingChange(str(self.change), ddl, self.node, self.why)


def take_over(connection: apsw.Connection) -> None:
    """Write what an earlier version let wait as this one does: it had a column for each part of a change."""
    if not rows(connection, f"SELECT 1 FROM {_TABLE} WHERE change IS NULL LIMIT 1"):
        return
    for number, *line in rows(connection, f"SELECT id, kind, name, tbl, old, new FROM {_TABLE} WHERE change IS NULL"):
        packed = encode_value([line_of(SchemaChange(*line)), []])
        connection.execute(f"UPDATE {_TABLE} SET change = ? WHERE id = ?", (packed, number))


def any_waits(connection: apsw.Connection) -> bool:
    """Return whether any change waits."""
    return value(connection, f"SELECT 1 FROM {_TABLE} LIMIT 1") is not None


def waiting(connection: apsw.Connection) -> list[Waiting]:
    """Return the waiting changes, the oldest first."""
    found = []
    for number, node, why, blob in rows(connection, f"SELECT id, node, why, change FROM {_TABLE} ORDER BY id"):
        line, at = decode_value(blob)
        found.append(Waiting(number, decode(line), node, why, {int(shard): seq for shard, seq in at}))
    return found


def new_tables(connection: apsw.Connection) -> list[Known]:
    """Return the tables of other nodes that wait and are new."""
    if not any_waits(connection):
        return []
    listed = [each.change for each in waiting(connection)]
    return [Known(c.kind, c.name, c.table, c.new) for c in listed if c.kind == "table" and c.old is None and c.new]


def dropped_keys(connection: apsw.Connection) -> set[Key]:
    """Return the keys of the tables whose drop waits here."""
    if not any_waits(connection):
        return set()
    return {each.change.key for each in waiting(connection) if each.change.kind == "table" and each.change.new is None}


def made_again(connection: apsw.Connection) -> set[str]:
    """Return the names, in lower case, of tables that were dropped and recreated elsewhere, while this database has the
    older ones.
    """
    gone = dropped_keys(connection)
    if not gone:
        return set()
    return {each.change.key[1] for each in waiting(connection) if each.change.old is None and each.change.key in gone}


def let_wait(connection: apsw.Connection, node: str, why: str, change: SchemaChange, at: Mapping[int, int]) -> None:
    """Store a change of ``node`` that waits, once; the transaction writes the database."""
    same = next((each for each in waiting(connection) if (each.change, each.node) == (change, node)), None)
    if same is not None:
        if same.why != why:
            connection.execute(f"UPDATE {_TABLE} SET why = ? WHERE id = ?", (why, same.number))
        return
    packed = encode_value([line_of(change), [list(place) for place in at.items()]])
    connection.execute(f"INSERT INTO {_TABLE}(node, why, change) VALUES (?, ?, ?)", (node, why, packed))


def forget(connection: apsw.Connection, numbers: Iterable[int]) -> None:
    """Forget the changes with these ``numbers``; the transaction writes the database."""
    connection.executemany(f"DELETE FROM {_TABLE} WHERE id = ?", [(number,) for number in numbers])
