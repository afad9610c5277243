"""Check the file of a snapshot before anything else opens it: its maker may be no member, or faulty.

Invariant: a file that passes is a whole SQLite file of tables and indexes alone, so nothing in it runs when rows are
written; what it says of itself can be read; and the schema that it remembers is applied by
`harmonylite.db.sqlite.untrusted_ddl` without a refusal. The check itself writes nothing and trusts nothing: SQLite's
own advice for files of unknown origin (SQLite: security).
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import apsw
import msgspec

from harmonylite.changes.epochs import Lineage
from harmonylite.db.mirror.conflict_journal import recent_ends
from harmonylite.db.mirror.database_schema import remembered
from harmonylite.db.mirror.positions import read_lineage
from harmonylite.db.sqlite.connection import open_unchanging, rows
from harmonylite.db.sqlite.deadline import Deadline
from harmonylite.db.sqlite.untrusted_ddl import SECONDS, Definition, apply, harden
from harmonylite.errors import DatabaseError, DefinitionError, OverdueError, SnapshotRefusedError
from harmonylite.wire import WireError

_PLAIN = {"table": ("CREATE TABLE ",), "index": ("CREATE INDEX ", "CREATE UNIQUE INDEX ")}
_ODD = (apsw.Error, DatabaseError, WireError, msgspec.MsgspecError, ValueError, TypeError, OverflowError)
"""What reading a file of unknown origin raises."""


def inspect_file(file: Path, deadline: Deadline) -> Lineage:
    """Return the lineage of the snapshot ``file``; no other process has it open.

    Raises SnapshotRefusedError for what can't be a mirror, OverdueError when ``deadline`` ends.
    """
    try:
        connection = open_unchanging(file)
        try:
            with deadline.bounding(connection):
                harden(connection)
                _whole(connection)
                _tables_alone(connection)
                lineage = _typed(read_lineage(connection, "main"))
                recent_ends(connection, "main")
                schema = remembered(connection)
        finally:
            connection.close()
        try_out(schema, deadline.within(SECONDS))
    except OverdueError as error:
        if error.given_up:
            raise
        raise SnapshotRefusedError(f"its schema can't be applied: {error}") from error
    except _ODD as error:
        raise SnapshotRefusedError(f"it is no mirror that can be used: {error}") from error
    return lineage


def _whole(connection: apsw.Connection) -> None:
    found = rows(connection, "PRAGMA quick_check(1)")
    if found != [("ok",)]:
        raise DatabaseError(f"the file is damaged: {found[0][0]}")


def _typed(lineage: Lineage) -> Lineage:
    """Return a lineage whose values are of the types that positions have; raises TypeError."""
    texts: list[Any] = [lineage.history, *(p.created for p in lineage.positions.values())]
    numbers: list[Any] = [n for p in lineage.positions.values() for n in (p.shard, p.seq, p.resume)]
    if not all(isinstance(text, str) for text in texts) or not all(isinstance(n, int) and n >= 0 for n in numbers):
        raise TypeError("its positions are no positions")
    return lineage


def _tables_alone(connection: apsw.Connection) -> None:
    """Raise DefinitionError for triggers, views and virtual tables: no mirror has them, whatever the rows call them."""
    for kind, name, sql in rows(connection, "SELECT type, name, sql FROM sqlite_schema"):
        if kind not in _PLAIN or not (sql is None or (isinstance(sql, str) and sql.startswith(_PLAIN[kind]))):
            raise DefinitionError(f"it holds {str(name)[:100]!r}, which is neither a table nor an index")


def try_out(schema: list[Definition], deadline: Deadline) -> None:
    """Apply ``schema`` to a database in memory; raises DefinitionError, OverdueError.

    What this SQLite lacks (a function, a module, newer syntax) is no reason to refuse: a node that has its database
    never applies the schema, and a node that creates it gets the error then.
    """
    connection = apsw.Connection(":memory:")
    try:
        for definition in sorted(schema, key=lambda d: d.rank):
            with suppress(apsw.SQLError):
                apply(connection, [definition], deadline)
    finally:
        connection.close()
