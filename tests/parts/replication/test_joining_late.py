"""Two whole nodes in one process: what comes in while a database is brought together with its mirror."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from harmonylite.db.replica import Replica
from harmonylite.db.sqlite.thread import SqliteThread
from tests.parts.fix_nats import PATIENCE, RealNats, eventually
from tests.parts.replication.fix_nodes import Running, items, write


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
