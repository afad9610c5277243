"""The messages that a mirror lacks, recorded in it.

Invariant: an entry is committed before the position moves past its message, so a restart skips the same message.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

import apsw

from harmonylite.changes.skipped import CODEC, LeftOut
from harmonylite.db.sqlite.connection import rows, transaction
from harmonylite.errors import ForeignError
from harmonylite.schema.sql import PRIVATE, quote

SKIPPED = quote(PRIVATE + "skipped")
LAYOUT = {SKIPPED: "(shard INTEGER, seq INTEGER, created TEXT, what BLOB NOT NULL, PRIMARY KEY(shard, seq, created))"}


def left_out(connection: apsw.Connection) -> list[LeftOut]:
    """Return what the mirror lacks, in the order of shards and sequences; unreadable entries are ignored."""
    found = []
    for (what,) in rows(connection, f"SELECT what FROM mirror.{SKIPPED} ORDER BY shard, seq, created"):
        with suppress(ForeignError):
            found.append(CODEC.decode(what))
    return found


def remember(connection: apsw.Connection, entries: Iterable[LeftOut]) -> None:
    """Add entries."""
    with transaction(connection, "remember what is left out"):
        connection.executemany(
            f"INSERT OR REPLACE INTO mirror.{SKIPPED} VALUES (?, ?, ?, ?)",
            [(entry.shard, entry.seq, entry.created, CODEC.encode(entry)) for entry in entries],
        )


def forget(connection: apsw.Connection, entries: Iterable[LeftOut]) -> None:
    """Remove entries: the mirror now has their messages."""
    with transaction(connection, "forget what was left out"):
        connection.executemany(
            f"DELETE FROM mirror.{SKIPPED} WHERE shard = ? AND seq = ? AND created = ?",
            [(entry.shard, entry.seq, entry.created) for entry in entries],
        )
