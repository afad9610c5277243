"""Digest a mirror's state at one commit, on a connection and a thread of its own."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import apsw

from harmonylite.db.mirror.compare import digest_table
from harmonylite.db.sqlite.connection import mapped, open_file, value
from harmonylite.schema.shape import TableShape


def open_snapshot(mirror: Path) -> apsw.Connection:
    """Return a connection that continues reading the mirror as it is now, until it is closed."""
    connection = open_file(mirror, read_only=True)
    with mapped("hold the mirror"):
        connection.execute("BEGIN")
        value(connection, "SELECT count(*) FROM sqlite_schema")
    return connection


def digest_snapshot(connection: apsw.Connection, shapes: Iterable[TableShape]) -> dict[str, str]:
    """Return the digest of every table by name, and close the connection."""
    try:
        with mapped("digest the mirror"):
            return {shape.name: digest_table(connection, shape, "main") for shape in shapes}
    finally:
        connection.close()
