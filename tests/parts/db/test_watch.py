"""A commit wakes the node, also one that was made while nobody waited; other files don't."""

from __future__ import annotations

from pathlib import Path

import apsw
import pytest

from harmonylite.db.watch import Watch

LONG, SHORT = 60.0, 0.05


@pytest.fixture
def app(tmp_path: Path) -> apsw.Connection:
    """An application's connection to a database in WAL mode."""
    connection = apsw.Connection(str(tmp_path / "app.db"))
    connection.pragma("journal_mode", "wal")
    connection.execute("CREATE TABLE t(v)")
    return connection


async def test_a_commit_ends_the_wait(tmp_path: Path, app: apsw.Connection) -> None:
    watch = Watch(tmp_path / "app.db")
    async with watch.open():
        for _ in range(3):
            app.execute("INSERT INTO t VALUES (1)")
            assert await watch.wait(LONG)


async def test_a_commit_that_nobody_waited_for_ends_the_next_wait(tmp_path: Path, app: apsw.Connection) -> None:
    watch = Watch(tmp_path / "app.db")
    async with watch.open():
        assert not await watch.wait(SHORT)
        app.execute("INSERT INTO t VALUES (1)")
        assert not (tmp_path / "app.db-journal").exists()
        assert await watch.wait(LONG)


async def test_without_a_commit_the_wait_ends_by_itself(tmp_path: Path, app: apsw.Connection) -> None:
    watch = Watch(tmp_path / "app.db")
    async with watch.open():
        app.execute("SELECT * FROM t").fetchall()
        assert not await watch.wait(SHORT)


async def test_other_files_of_the_folder_wake_nobody(tmp_path: Path, app: apsw.Connection) -> None:
    assert app.execute("SELECT count(*) FROM t").get == 0
    watch = Watch(tmp_path / "app.db")
    async with watch.open():
        for number in range(5):
            (tmp_path / f"other{number}").write_text("x")
        assert not await watch.wait(SHORT)


async def test_a_wake_by_hand_ends_the_wait_under_way_or_the_next_one(tmp_path: Path) -> None:
    watch = Watch(tmp_path / "app.db")
    async with watch.open():
        watch.wake()
        assert await watch.wait(LONG)
        assert not await watch.wait(SHORT)


async def test_who_is_deaf_hears_nothing_and_is_told_to_look_when_it_listens_again(
    tmp_path: Path, app: apsw.Connection
) -> None:
    heard: list[None] = []
    watch = Watch(tmp_path / "app.db", heard=lambda: heard.append(None))
    async with watch.open():
        assert not watch.listening(), "it does already"
        watch.deaf()
        watch.deaf()
        app.execute("INSERT INTO t VALUES (1)")
        assert not await watch.wait(SHORT)
        assert heard == []
        assert watch.listening()
        app.execute("INSERT INTO t VALUES (1)")
        assert await watch.wait(LONG)
        assert heard
    watch.deaf()
    assert not watch.listening(), "nothing is watched any more"
