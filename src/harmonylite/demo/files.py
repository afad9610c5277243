"""What the demo does with one SQLite file, without HarmonyLite: write it as an application, read, copy and digest it.

Invariant: a connection is closed when the call that opened it returns; what it had not committed is rolled back. Two
files get equal digests only if every table holds the same rows with the same values of the same types.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import TypeAlias

import apsw

from harmonylite.db.sqlite.connection import mapped, open_file, reading
from harmonylite.db.sqlite.lossless import exact_rows
from harmonylite.demo.scene import Statement, Transaction
from harmonylite.schema.sql import is_private, quote

Rows: TypeAlias = list[tuple[object, ...]]
"""The result of a query."""

LOCK_WAIT_MS = 20_000


@dataclass(frozen=True, slots=True)
class Written:
    """What an application wrote. ``done``: time of its last commit on the monotonic clock."""

    commits: int
    rows: int
    seconds: float
    done: float


class Application:
    """An application at the site ``name`` with the file ``db``. Raises DatabaseError when SQLite refuses a write."""

    def __init__(self, name: str, db: Path) -> None:
        self._what = f"write {db} as the application at {name}"
        self._db = db

    async def write(self, transactions: list[Transaction]) -> Written:
        """Commit each of ``transactions``, on a separate thread."""
        return await asyncio.to_thread(self._write, transactions)

    def _write(self, transactions: list[Transaction]) -> Written:
        started, rows = time.monotonic(), 0
        with self._connected() as connection:
            for statements in transactions:
                rows += _begin(connection, statements)
                connection.execute("COMMIT")
            done = time.monotonic()
        return Written(len(transactions), rows, done - started, done)

    @asynccontextmanager
    async def holding(self, statement: Statement) -> AsyncIterator[Callable[[], Awaitable[Written]]]:
        """Run ``statement`` and keep its transaction open; provide its commit. Without that it is rolled back."""
        with self._connected() as connection:
            rows = await asyncio.to_thread(_begin, connection, [statement])

            async def commit() -> Written:
                await asyncio.to_thread(connection.execute, "COMMIT")
                return Written(1, rows, 0.0, time.monotonic())

            yield commit

    @contextmanager
    def _connected(self) -> Iterator[apsw.Connection]:
        with mapped(self._what):
            connection = apsw.Connection(str(self._db), flags=apsw.SQLITE_OPEN_READWRITE)
            try:
                connection.set_busy_timeout(LOCK_WAIT_MS)
                connection.pragma("foreign_keys", "on")
                yield connection
            finally:
                connection.close()


def _begin(connection: apsw.Connection, statements: Transaction) -> int:
    """Run the statements of one transaction; return how many rows they changed, without those of triggers."""
    connection.execute("BEGIN IMMEDIATE")
    return sum(connection.execute(sql, values).connection.changes() for sql, values in statements)


def read(path: Path, sql: str) -> Rows:
    """Return the rows that ``sql`` finds in a file."""
    with reading(path) as connection:
        return [tuple(row) for row in connection.execute(sql)]


def backup(source: Path, target: Path) -> None:
    """Copy a live SQLite file consistently, and leave nothing new beside it. Raises DatabaseError."""
    log = Path(f"{source}-wal")
    there = log.exists()
    with (
        closing(open_file(source, read_only=True)) as reader,
        mapped(f"copy {source}"),
        closing(open_file(target, create=True)) as writer,
        writer.backup("main", reader, "main") as copy,
    ):
        while not copy.done:
            copy.step(1024)
    if log.exists() and not there:
        # A reader creates -wal and -shm in WAL mode, and only a connection that may write removes them.
        with mapped(f"close {source}"), closing(open_file(source)) as last:
            last.pragma("schema_version")


@dataclass(frozen=True, slots=True)
class TableDigest:
    """``digest``: 32 hexadecimal digits, whatever the order of the rows."""

    rows: int
    digest: str


def digest_file(path: Path, tables: tuple[str, ...] = ()) -> dict[str, TableDigest]:
    """Digest ``tables`` of ``path`` (none named: all ordinary ones) in one read transaction. Raises DatabaseError."""
    with reading(path) as connection:
        connection.execute("BEGIN")
        return {name: digest_table(connection, name) for name in tables or ordinary_tables(connection)}


def digest_table(connection: apsw.Connection, name: str) -> TableDigest:
    """Digest one table: the sum of its rows' digests, so that the order of rows doesn't matter."""
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
