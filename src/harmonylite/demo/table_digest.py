"""The demo's own proof: digests of every table of a file, made with plain SQL and nothing of the replication.

Invariant: two files get equal digests only if every table holds the same rows with the same values of the same types.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import apsw

from harmonylite.db.sqlite.connection import reading
from harmonylite.db.sqlite.lossless import exact_rows
from harmonylite.schema.sql import is_private, quote


@dataclass(frozen=True, slots=True)
class TableDigest:
    """``digest``: 32 hexadecimal digits. The order of rows plays no part in it."""

    rows: int
    digest: str


def digest_file(path: Path, tables: tuple[str, ...] = ()) -> dict[str, TableDigest]:
    """Digest ``tables`` of ``path`` (none named: all ordinary ones) in one read transaction. Raises DatabaseError."""
    with reading(path) as connection:
        connection.execute("BEGIN")
        return {name: digest_table(connection, name) for name in tables or ordinary_tables(connection)}


def digest_table(connection: apsw.Connection, name: str) -> TableDigest:
    """Digest one table: the sum of its rows' digests, so that two files may store their rows in any order."""
    columns = connection.execute("SELECT name FROM pragma_table_xinfo(?) WHERE hidden <> 1", (name,)).fetchall()
    rows = total = 0
    for row in exact_rows(connection, [quote(str(column)) for (column,) in columns], f"FROM {quote(name)}"):
        total += int.from_bytes(blake2b(repr(row).encode(), digest_size=16).digest())  # with each value's type
        rows += 1
    return TableDigest(rows, f"{total % 2**128:032x}")


def ordinary_tables(connection: apsw.Connection) -> list[str]:
    """Return the names of the file's own tables: no views, no virtual tables or their shadows, nothing of ours."""
    rows = connection.execute("SELECT name, type FROM pragma_table_list WHERE schema = 'main'").fetchall()
    names = [str(name) for name, kind in rows if kind == "table"]
    return sorted(name for name in names if not name.startswith("sqlite_") and not is_private(name))
