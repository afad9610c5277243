"""Two whole nodes in one process: what comes in while a database is brought together with its mirror."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import pytest

from harmonylite.config import load
from harmonylite.db.replica import Replica
from harmonylite.db.thread import SqliteThread
from harmonylite.node.node import Node
from tests.parts.fix_nats import PATIENCE, RealNats, eventually


def write(database: Path, *statements: str) -> None:
    """Commit as an application would, with a connection of its own of the one SQLite library in this process."""
    with closing(apsw.Connection(str(database))) as connection:
        connection.set_busy_timeout(10_000)
        for statement in statements:
            connection.execute(statement).fetchall()


def items(database: Path) -> list[str]:
    with closing(apsw.Connection(str(database))) as connection:
        return [str(key) for (key,) in connection.execute("SELECT id FROM item ORDER BY id")]


class Running:
    """A node on a database of its own with one empty table."""

    def __init__(self, folder: Path, name: str, url: str) -> None:
        self.database = folder / name / "app.db"
        self.database.parent.mkdir()
        write(self.database, "PRAGMA journal_mode = wal", "CREATE TABLE item(id TEXT PRIMARY KEY)")
        config = folder / f"{name}.toml"
        config.write_text(
            f'db_path = {json.dumps(str(self.database))}\nnode_id = "{name}"\n[nats]\nurls = ["{url}"]\n'
            "[health_check]\nenable = false\n[prometheus]\nenable = false\n"
        )
        self.node = Node(load(config))
        self.task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self.task = asyncio.create_task(self.node.run())
        await eventually(lambda: self.node.status_object.caught_up or bool(self.task and self.task.done()), "start")
        assert not self.task.done(), self.task

    async def stop(self) -> None:
        if self.task is not None:
            self.node.stop()
            await self.task


@pytest.fixture
async def two(nats: RealNats, tmp_path: Path) -> AsyncIterator[tuple[Running, Running]]:
    """Two nodes on one NATS, not started."""
    found = Running(tmp_path, "near", nats.url), Running(tmp_path, "far", nats.url)
    yield found
    for running in found:
        await running.stop()


async def test_what_is_folded_right_behind_the_joining_reaches_the_database(
    two: tuple[Running, Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    near, far = two
    await near.start()
    write(near.database, "INSERT INTO item VALUES ('early')")
    reconcile, run = Replica.reconcile, SqliteThread.run
    waiting = threading.Event()

    def overtaken(replica: Replica, **how: bool) -> int:
        """Bring together, and let go of the SQLite thread only once a later commit is to be folded on it."""
        found = reconcile(replica, **how)
        waiting.clear()
        write(near.database, "INSERT INTO item VALUES ('late')")
        assert waiting.wait(PATIENCE)
        return found

    async def watched(thread: SqliteThread, function: Callable[..., Any], *given: Any, **named: Any) -> Any:
        if function.__name__ == "_on_thread" and thread is far.node._thread:
            waiting.set()
        return await run(thread, function, *given, **named)

    monkeypatch.setattr(SqliteThread, "run", watched)
    monkeypatch.setattr(Replica, "reconcile", overtaken)
    await far.start()
    await eventually(lambda: items(far.database) == ["early", "late"], "both rows are there")
