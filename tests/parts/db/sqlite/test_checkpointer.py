"""The write-ahead log is copied beside the application: its commits need not, and the log starts again all the same."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import apsw
import pytest

from harmonylite.db.sqlite.checkpointer import COPY_FROM, HOLD_FROM, PATIENCE, STEP, CheckpointedWal, Checkpointer
from harmonylite.db.sqlite.other_transactions import OtherTransactions
from tests.parts.fix_nats import eventually

ITS_OWN = 1000
"""Pages from which on SQLite copies within a commit."""
DEADLINE = 60.0


class Application:
    """Writes one page a commit, as long as it is told to, with SQLite's own settings."""

    def __init__(self, path: Path, *, page: int = 4096, mode: str = "wal") -> None:
        self.connection = apsw.Connection(str(path))
        self.connection.pragma("page_size", page)
        self.connection.pragma("journal_mode", mode)
        self.connection.pragma("synchronous", "off")
        self.connection.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, v); INSERT INTO t VALUES (1, 0)")

    def write_until(self, pages: int) -> None:
        """Commit until the log has at least so many pages."""
        while self.log()[0] < pages:
            self.write()

    def write(self, commits: int = 1) -> None:
        """Commit that often."""
        for _ in range(commits):
            self.connection.execute("UPDATE t SET v = v + 1")

    def log(self) -> tuple[int, int]:
        """Return the log's pages, and how many of them are copied."""
        length, copied = self.connection.wal_checkpoint("main", apsw.SQLITE_CHECKPOINT_NOOP)
        return length, copied

    def copied(self) -> bool:
        """Copy the log as far as readers let it; tell whether that is all of it."""
        try:
            length, copied = self.connection.wal_checkpoint("main", apsw.SQLITE_CHECKPOINT_PASSIVE)
        except apsw.BusyError:  # somebody else does it just now
            return False
        return length == copied

    def value(self) -> object:
        """Return what was written last."""
        return self.connection.execute("SELECT v FROM t").get


@pytest.fixture
def app(tmp_path: Path) -> Iterator[Application]:
    """Yield an application."""
    made = Application(tmp_path / "app.db")
    yield made
    made.connection.close()


@pytest.fixture
def tended(tmp_path: Path, app: Application) -> Iterator[CheckpointedWal]:
    """Yield its log, tended."""
    assert app.value() == 0
    made = CheckpointedWal(tmp_path / "app.db")
    yield made
    made.close()


def held(app: Application, tended: CheckpointedWal) -> int:
    """Let a burst begin; return the length of the log at which a reader is held."""
    app.write_until(HOLD_FROM)
    assert tended.poll()
    assert tended.holds
    return app.log()[0]


def test_a_log_that_hardly_grows_is_left_alone(app: Application, tended: CheckpointedWal) -> None:
    app.write(HOLD_FROM // 2)
    assert tended.poll(), "it grew"
    assert not tended.poll(), "it did not"
    assert not tended.holds
    assert app.log()[1] == 0


def test_commits_in_a_burst_copy_nothing_themselves(app: Application, tended: CheckpointedWal) -> None:
    length = held(app, tended)
    assert app.log()[1] == length, "what the reader passed is copied at once: else the application would"
    app.write_until(2 * ITS_OWN)
    assert app.log()[1] == length


def test_without_it_they_do(app: Application) -> None:
    app.write_until(ITS_OWN - 1)
    app.write()
    assert app.log()[1] >= ITS_OWN


@pytest.mark.parametrize("enabled", [True, False])
async def test_one_that_is_switched_off_opens_nothing_and_leaves_the_copying_to_commits(
    tmp_path: Path, app: Application, enabled: bool
) -> None:
    checkpointer = Checkpointer(tmp_path / "app.db", enabled=enabled)
    async with checkpointer.running():
        app.write_until(COPY_FROM + 1)
        checkpointer.wake()
        assert any(thread.name == "harmonylite-wal" for thread in threading.enumerate()) == enabled
        if enabled:
            await eventually(lambda: app.log()[1] > COPY_FROM)
        app.write_until(ITS_OWN - 1)
        if not enabled:
            assert app.log()[1] == 0, "nobody copied before the commit that reaches SQLite's own limit"


def test_in_a_long_burst_the_copy_follows_step_by_step(app: Application, tended: CheckpointedWal) -> None:
    length = held(app, tended)
    for _ in range(3):
        app.write_until(length + STEP)
        assert tended.poll()
        assert tended.holds
        assert app.log()[1] >= length + STEP
        length = app.log()[0]


@pytest.mark.parametrize("more", [1, ITS_OWN + COPY_FROM])
def test_after_a_burst_all_is_copied_and_the_log_begins_anew(
    app: Application, tended: CheckpointedWal, more: int
) -> None:
    app.write_until(held(app, tended) + more)
    assert tended.poll()
    for _ in range(PATIENCE):
        assert not tended.poll()
    assert not tended.holds
    length, copied = app.log()
    assert length == copied
    app.write()
    assert app.log()[0] < HOLD_FROM


def test_a_burst_without_end_lets_the_log_begin_anew(tmp_path: Path) -> None:
    app = Application(tmp_path / "app.db", page=65536)  # of such pages few may gather
    tended = CheckpointedWal(tmp_path / "app.db")
    longest, restarts, last = 0, 0, 0
    try:
        for _ in range(60):
            app.write(50)
            tended.poll()
            length = app.log()[0]
            longest, restarts, last = max(longest, length), restarts + (length < last), length
        value = app.value()
    finally:
        tended.close()
        app.connection.close()
    assert value == 3000
    assert restarts >= 2
    assert longest * 65536 <= (64 << 20) + 101 * 65536


@pytest.mark.parametrize("reads", [False, True])
def test_a_burst_without_end_lets_the_log_begin_anew_though_the_application_never_copies(
    tmp_path: Path, app: Application, tended: CheckpointedWal, monkeypatch: pytest.MonkeyPatch, reads: bool
) -> None:
    copy, most, lengths = tended._copy, 2 * ITS_OWN, [0]
    app.connection.wal_autocheckpoint(0)
    tended._most = most

    def meanwhile(mode: int = apsw.SQLITE_CHECKPOINT_PASSIVE) -> None:
        with closing(apsw.Connection(str(tmp_path / "app.db"))) as now:
            if mode == apsw.SQLITE_CHECKPOINT_PASSIVE:  # the application writes while it is copied
                now.execute("BEGIN; SELECT v FROM t").fetchall()
                app.write()
            copy(mode)

    monkeypatch.setattr(tended, "_copy", meanwhile)
    reader = apsw.Connection(str(tmp_path / "app.db"))
    reader.execute("BEGIN; SELECT v FROM t").fetchall() if reads else None
    while sum(lengths) < 5 * most:
        app.write(100)
        tended.poll()
        length, last = app.log()[0], lengths[-1]
        lengths = [*lengths, length] if length < last else [*lengths[:-1], length]
    reader.close()
    assert (max(lengths) > 4 * most) == reads, "a reader keeps all that it sees"


def test_the_applications_own_restart_of_its_log_waits_for_a_moment_only(
    app: Application, tended: CheckpointedWal
) -> None:
    held(app, tended)
    app.write_until(ITS_OWN)
    with pytest.raises(apsw.BusyError):
        app.connection.wal_checkpoint("main", apsw.SQLITE_CHECKPOINT_TRUNCATE)
    tended.poll()
    for _ in range(PATIENCE):
        tended.poll()
    assert app.connection.wal_checkpoint("main", apsw.SQLITE_CHECKPOINT_TRUNCATE) == (0, 0)


def test_an_application_that_reads_all_along_keeps_what_it_sees(
    tmp_path: Path, app: Application, tended: CheckpointedWal
) -> None:
    reader = apsw.Connection(str(tmp_path / "app.db"))
    assert reader.execute("BEGIN; SELECT v FROM t").get == 0
    held(app, tended)
    app.write_until(ITS_OWN + COPY_FROM)
    for _ in range(1 + PATIENCE):
        tended.poll()
    assert reader.execute("SELECT v FROM t").get == 0
    assert app.log()[1] < ITS_OWN, "it copies no further than what the reader sees"
    reader.execute("COMMIT")
    assert reader.execute("SELECT v FROM t").get == app.value()
    reader.close()


def test_room_that_the_log_took_here_is_given_back(tmp_path: Path, app: Application, tended: CheckpointedWal) -> None:
    length = held(app, tended)
    while not tended.long:
        app.write_until(length + STEP)
        tended.poll()
        length = app.log()[0]
    for _ in range(1 + PATIENCE):
        tended.poll()
    wal = tmp_path / "app.db-wal"
    assert wal.stat().st_size > ITS_OWN * 4096
    tended.cut()
    assert wal.stat().st_size == 0
    assert not tended.long


def test_room_is_not_given_back_while_somebody_needs_it(
    tmp_path: Path, app: Application, tended: CheckpointedWal
) -> None:
    held(app, tended)
    tended.let_go()
    app.write()
    reader = apsw.Connection(str(tmp_path / "app.db"))
    reader.execute("BEGIN; SELECT v FROM t").fetchall()
    size = (tmp_path / "app.db-wal").stat().st_size
    tended.cut()
    assert (tmp_path / "app.db-wal").stat().st_size == size > 0
    reader.close()


def test_a_database_without_a_write_ahead_log_is_left_alone(tmp_path: Path) -> None:
    app = Application(tmp_path / "other.db", mode="delete")
    tended = CheckpointedWal(tmp_path / "other.db")
    app.connection.execute("BEGIN; UPDATE t SET v = v + 1")
    assert not tended.poll()
    tended.cut()
    app.connection.execute("COMMIT")
    tended.close()
    app.connection.close()


async def test_it_wakes_in_a_burst_copies_after_it_and_leaves_no_connection(tmp_path: Path, app: Application) -> None:
    copier = Checkpointer(tmp_path / "app.db")
    async with copier.running():
        app.write_until(HOLD_FROM + COPY_FROM)
        copier.wake()
        await eventually(lambda: app.log()[0] == app.log()[1])
    assert app.connection.execute("PRAGMA journal_mode = delete").get == "delete", "nobody else has it open"


async def test_a_long_log_is_cut_after_a_rest(tmp_path: Path, app: Application) -> None:
    copier = Checkpointer(tmp_path / "app.db", rest=2 * DEADLINE)
    wal = tmp_path / "app.db-wal"
    grown = 0
    async with copier.running():
        deadline = time.monotonic() + DEADLINE
        while grown < 12_000 and time.monotonic() < deadline:
            app.write(200)
            copier.wake()
            grown = max(grown, app.log()[0])
            await asyncio.sleep(0.001)
        assert grown >= 12_000, "the reader is held, so the log grows"
        copier._after = 0.05
        copier.wake()
        await eventually(lambda: wal.stat().st_size == 0)
    assert app.connection.execute("PRAGMA integrity_check").get == "ok"


THINKS = """
import sqlite3, sys
c = sqlite3.connect(sys.argv[1], isolation_level=None)
c.execute("BEGIN")
c.execute("SELECT v FROM t").fetchall()
print("read", flush=True)
sys.stdin.readline()
try:
    c.execute("UPDATE t SET v = -1")
    c.execute("COMMIT")
    print("written")
except sqlite3.OperationalError as error:
    print(error)
"""


async def test_a_long_log_is_not_cut_under_a_transaction_that_has_read_and_comes_to_write(tmp_path: Path) -> None:
    """SQLite's own look passes over a reader that needs nothing of the log, and refuses its write after the cut."""
    app = Application(tmp_path / "app.db", page=16384)  # of such pages fewer are a long log
    others, reads, asked = OtherTransactions(tmp_path / "app.db", 0.1), False, list[bool]()

    def in_use() -> bool:
        asked.append(reads)
        return others.any_open() or not reads

    copier = Checkpointer(tmp_path / "app.db", rest=0.02, others=in_use)
    assert not others.busy()
    wal = tmp_path / "app.db-wal"
    async with copier.running():
        grown = 0
        while grown < STEP + ITS_OWN + HOLD_FROM:
            app.write(10)
            copier.wake()
            grown = max(grown, app.log()[0])
            await asyncio.sleep(0.001)
        await eventually(app.copied)
        command, pipe = [sys.executable, "-c", THINKS, str(tmp_path / "app.db")], asyncio.subprocess.PIPE
        thinking = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe)
        assert thinking.stdout is not None
        assert await thinking.stdout.readline() == b"read\n"
        reads = True
        await eventually(lambda: sum(asked) >= 2)
        assert wal.stat().st_size > 0
        assert (await thinking.communicate(b"go\n"))[0] == b"written\n"
        assert app.value() == -1
    others.close()
    app.connection.close()


async def test_a_file_that_can_not_be_opened_is_left_to_whoever_tells_of_it(tmp_path: Path) -> None:
    copier = Checkpointer(tmp_path / "missing.db")
    async with copier.running():
        copier.wake()
        await asyncio.sleep(0.05)
        app = Application(tmp_path / "missing.db")
        app.write_until(HOLD_FROM + COPY_FROM)
        copier.wake()
        await eventually(lambda: app.log()[0] == app.log()[1])
    app.connection.close()
