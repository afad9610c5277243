"""The demo's own proof: digests of every table of a file, made with plain SQL and nothing of the replication.

Invariant: two files get equal digests only if every table holds the same rows with the same values of the same types.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import apsw

from harmonylite.db.sqlite.connection import mapped, open_file
from harmonylite.schema.sql import is_private, quote

_MODULUS = 2**128


@dataclass(frozen=True, slots=True)
class TableDigest:
    """``digest``: 32 hexadecimal digits. The order of rows plays no part in it."""

    rows: int
    digest: str


def digest_file(path: Path, tables: tuple[str, ...] = ()) -> dict[str, TableDigest]:
    """Digest ``tables`` of ``path`` (none named: all ordinary ones) in one read transaction. Raises DatabaseError."""
    connection = open_file(path, read_only=True)
    try:
        with mapped(f"digest {path}"):
            connection.execute("BEGIN")
            return {name: digest_table(connection, name) for name in tables or ordinary_tables(connection)}
    finally:
        connection.close()


def digest_table(connection: apsw.Connection, name: str) -> TableDigest:
    """Digest one table: the sum of its rows' digests, so that two files may store their rows in any order.

    Each value counts with its type and its bytes: text that is not UTF-8 and reals to the last digit included.
    """
    columns = connection.execute("SELECT name FROM pragma_table_xinfo(?) WHERE hidden <> 1", (name,)).fetchall()
    pieces = ", ".join(_bytes_of(quote(str(column))) for (column,) in columns)
    rows = total = 0
    for row in connection.execute(f"SELECT {pieces} FROM {quote(name)}"):
        hashed = hashlib.blake2b(digest_size=16)
        for value in row:
            piece = b"N" if value is None else bytes(value) if isinstance(value, bytes) else str(value).encode()
            hashed.update(len(piece).to_bytes(8, "big") + piece)
        total = (total + int.from_bytes(hashed.digest(), "big")) % _MODULUS
        rows += 1
    return TableDigest(rows, f"{total:032x}")


def _bytes_of(column: str) -> str:
    """Return SQL for a column's type and bytes (CAST alone would round reals to 15 digits)."""
    return f"typeof({column}), CAST(CASE typeof({column}) WHEN 'real' THEN quote({column}) ELSE {column} END AS BLOB)"


def ordinary_tables(connection: apsw.Connection) -> list[str]:
    """Return the names of the file's own tables: no views, no virtual tables or their shadows, nothing of ours."""
    rows = connection.execute("SELECT name, type FROM pragma_table_list WHERE schema = 'main'").fetchall()
    names = [str(name) for name, kind in rows if kind == "table"]
    return sorted(name for name in names if not name.startswith("sqlite_") and not is_private(name))
