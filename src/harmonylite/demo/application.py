"""The application beside one node's file, run as processes of `harmonylite.demo.writer`.

Invariant: a writer process is gone when the call that started it returns; what it had not committed is rolled back.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harmonylite.demo.scene import Statement, Transaction
from harmonylite.errors import HarmonyLiteError


@dataclass(frozen=True, slots=True)
class Written:
    """What an application did. ``done``: time of its last commit on the monotonic clock."""

    commits: int
    rows: int
    seconds: float
    done: float


class Application:
    """An application at the site ``name`` with the file ``db``."""

    def __init__(self, name: str, db: Path) -> None:
        self._name = name
        self._db = db

    async def write(self, transactions: list[Transaction]) -> Written:
        """Commit each of ``transactions``. Raises HarmonyLiteError when SQLite refuses one."""
        async with self._running() as process:
            return Written(**await self._ask(process, transactions))

    @contextlib.asynccontextmanager
    async def holding(self, statement: Statement) -> AsyncIterator[Callable[[], Awaitable[Written]]]:
        """Run ``statement`` and keep its transaction open; give what commits it. Without that it is rolled back."""
        async with self._running() as process:
            await self._ask(process, {"hold": [statement]})

            async def commit() -> Written:
                return Written(**await self._ask(process, "commit"))

            yield commit

    @contextlib.asynccontextmanager
    async def _running(self) -> AsyncIterator[Process]:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "harmonylite.demo.writer", str(self._db), stdin=PIPE, stdout=PIPE, stderr=PIPE
        )
        try:
            yield process
        finally:
            if process.stdin is not None:
                process.stdin.close()
            await process.wait()

    async def _ask(self, process: Process, request: object) -> dict[str, Any]:
        assert process.stdin
        assert process.stdout
        assert process.stderr
        process.stdin.write(json.dumps(request).encode() + b"\n")
        await process.stdin.drain()
        line = await process.stdout.readline()
        if not line:
            words = (await process.stderr.read()).decode(errors="replace").splitlines() or ["it said nothing"]
            raise HarmonyLiteError(f"the application at {self._name} could not write {self._db}: {words[-1]}")
        answer: dict[str, Any] = json.loads(line)
        return answer
