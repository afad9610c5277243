"""The application beside one node's file: connections of its own, and nothing of HarmonyLite.

Invariant: a connection is closed when the call that opened it returns; what it had not committed is rolled back.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import apsw

from harmonylite.db.sqlite.connection import mapped
from harmonylite.demo.scene import Statement, Transaction

LOCK_WAIT_MS = 20_000


@dataclass(frozen=True, slots=True)
class Written:
    """What an application did. ``done``: time of its last commit on the monotonic clock."""

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
        """Commit each of ``transactions``, on a thread of its own."""
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
        """Run ``statement`` and keep its transaction open; give what commits it. Without that it is rolled back."""
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
    """Run the statements of one transaction; return how many rows they changed, triggers' work not counted."""
    connection.execute("BEGIN IMMEDIATE")
    return sum(connection.execute(sql, values).connection.changes() for sql, values in statements)
