"""A commit wakes the node, also one that was made while nobody waited; other files don't."""

from __future__ import annotations

import asyncio
import os
import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import apsw
import pytest

from harmonylite.db.sqlite.watch import Watch

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
        assert not await watch.wait(None), "the kernel told of nothing"
        waiting = asyncio.create_task(watch.wait(None))
        await asyncio.sleep(0)
        watch.wake()
        assert not await waiting
        assert not await watch.wait(SHORT)


async def test_who_is_deaf_hears_nothing_and_is_told_to_look_when_it_listens_again(
    tmp_path: Path, app: apsw.Connection
) -> None:
    heard: list[None] = []
    watch = Watch(tmp_path / "app.db", on_event=lambda: heard.append(None))
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


@pytest.fixture
def no_file_left() -> Iterator[Callable[[], None]]:
    """Let the process open no further file once it is called."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

    def none_left() -> None:
        free = os.dup(0)
        os.close(free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))

    yield none_left
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("refused", ["no file is left", "the folder is gone"])
async def test_where_the_kernel_refuses_to_watch_the_poll_is_left_and_said(
    refused: str, tmp_path: Path, no_file_left: Callable[[], None], caplog: pytest.LogCaptureFixture
) -> None:
    watch = Watch((tmp_path / "gone" if "folder" in refused else tmp_path) / "app.db")
    if "file" in refused:
        no_file_left()
    async with watch.open():
        assert not await watch.wait(SHORT)
        watch.deaf()
        assert not watch.listening()
        watch.wake()
        assert not await watch.wait(None)
    (line,) = caplog.messages
    for part in ("look for commits by the clock only", str(tmp_path), "fs.inotify.max_user_instances"):
        assert part in line
