"""The one thread that owns the SQLite files of a node.

Invariant: calls run one after the other, in the order in which they were made. Cancelling a waiting caller abandons the
wait and not the call: a transaction that was begun is committed or rolled back by its own code.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from harmonylite.db.connection import mapped

P = ParamSpec("P")
R = TypeVar("R")


class SqliteThread:
    """Runs functions on its thread. Made on first use, ended by `aclose`."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="harmonylite-sqlite")

    async def run(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run ``function`` on the thread and return its result or raise its error, SQLite's as a DatabaseError."""

        def call() -> R:
            with mapped("use the database"):
                return function(*args, **kwargs)

        return await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._pool, call))

    async def aclose(self) -> None:
        """Wait for the call that runs, drop those that wait, end the thread."""
        await asyncio.to_thread(self._pool.shutdown, wait=True, cancel_futures=True)
