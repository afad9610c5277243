"""A program writes the database's file as a whole, without SQLite's locks: noticed, taken in, and nothing is lost."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import apsw
import pytest

from harmonylite.db import overwritten
from harmonylite.db.overwritten import TOPIC, take_in
from harmonylite.db.sqlite.checkpointer import COPY_FROM, PATIENCE, CheckpointedWal
from harmonylite.db.sqlite.overwriting import Overwriting, Seen
from harmonylite.db.sqlite.wal_mode import Wal
from harmonylite.errors import DatabaseBusyError, DatabaseOverwrittenError
from tests.parts.db.fix_replicas import PAIRED, Group, Member

CUT = 'truncate -s 5000 "$0"'


def outside(script: str, file: Path, given: bytes = b"") -> bytes:
    """Run a shell's line on ``file`` in a process of its own: a close in this one would drop its locks."""
    return subprocess.run(["/bin/sh", "-c", script, str(file)], check=True, capture_output=True, input=given).stdout


class InMemory:
    """A program as sql.js makes them: the file's bytes, without its log, are a database in memory."""

    def __init__(self, file: Path) -> None:
        self._path = file
        taken = bytearray(outside('cat < "$0"', file))
        taken[18:20] = b"\1\1"
        self._memory = sqlite3.connect(":memory:", isolation_level=None)
        weakref.finalize(self, self._memory.close)
        self._memory.deserialize(bytes(taken))

    def run(self, sql: str) -> list[tuple[object, ...]]:
        """Run a statement in memory."""
        return self._memory.execute(sql).fetchall()

    def file(self) -> bytes:
        """Return the file that is in memory."""
        return self._memory.serialize()

    def save(self, written: bytes | None = None) -> None:
        """Write everything over the file, or ``written``."""
        outside('cat > "$0"', self._path, written or self.file())

    def with_pages(self, size: int, scratch: Path) -> bytes:
        """Return the file with pages of ``size`` bytes, made as the file ``scratch``."""
        scratch.write_bytes(self.file())
        with closing(sqlite3.connect(scratch, isolation_level=None)) as file:
            file.execute(f"PRAGMA page_size = {size}")
            file.execute("VACUUM")
            assert file.execute("PRAGMA page_size").fetchone() == (size,)
        return scratch.read_bytes()


def copy_log(member: Member, mode: int = apsw.SQLITE_CHECKPOINT_PASSIVE) -> tuple[int, int]:
    """Let the application copy its log."""
    return member.app.wal_checkpoint("main", mode)


def loaded(member: Member) -> InMemory:
    """Have a program read the file, with the whole log in it, which the node has seen like that."""
    copy_log(member)
    member.replica.file.check()
    return InMemory(member.options.database)


def reopened(member: Member) -> str:
    """Take in what was written over the file, as a node does; return what is said of it."""
    with pytest.raises(DatabaseOverwrittenError, match=r"without SQLite's locks, as sql\.js does"):
        member.replica.changed()
    take_in(member.replica)
    member.stop()
    member.start()
    if member.replica.lineage("main") != member.replica.lineage("mirror"):
        member.replica.reconcile(first=False, keep_log=True)
    return member.options.said[TOPIC]


def numbers_given_again(member: Member, group: Group, program: InMemory) -> None:
    """Let the program log a row under a number of the log that the file has given to others since."""
    for _ in range(5):
        member.run("UPDATE t SET b = b + 1 WHERE id = 1")
        group.settle()
        member.run("UPDATE t SET b = b - 1 WHERE id = 1")
        group.settle()
    program.run("UPDATE t SET a = 'program' WHERE id = 2")


def resized(program: InMemory, scratch: Path) -> bytes:
    """Return the program's file, with a new row, in another page size, made as the file ``scratch``."""
    program.run("INSERT INTO t VALUES (4, 'program', 40)")
    return program.with_pages(8192, scratch)


def has_never_sent(kept: Path) -> bool:
    """Return whether a file that was kept has the row that was pending."""
    with closing(apsw.Connection(str(kept))) as found:
        return (7, "never sent", 0) in found.execute("SELECT * FROM t").fetchall()


def all_equal(group: Group) -> list[tuple[object, ...]]:
    """Let everything arrive; return the rows that all have, in files and mirrors."""
    group.settle()
    found = [rows for member in group.members for rows in (member.rows("t"), member.rows("t", "mirror"))]
    assert all(rows == found[0] for rows in found)
    return found[0]


@pytest.mark.parametrize(
    "log",
    [
        lambda member: copy_log(member, apsw.SQLITE_CHECKPOINT_TRUNCATE),
        copy_log,
        lambda member: [copy_log(member), *member.run("UPDATE t SET b = 11 WHERE id = 1")],
    ],
    ids=["empty", "copied", "with newer pages"],
)
def test_what_a_program_in_memory_writes_back_arrives_and_nothing_published_is_lost(
    group: Group, log: Callable[[Member], object]
) -> None:
    a, b = group.pair()
    log(a)
    group.settle()
    a.replica.file.check()
    program = InMemory(a.options.database)
    program.run("INSERT INTO t VALUES (4, 'program', 40)")
    b.run("UPDATE t SET b = 33 WHERE id = 3")
    a.run("INSERT INTO t VALUES (5, 'meanwhile', 50)")
    group.settle()
    program.save()
    assert "was overwritten at" in reopened(a)
    rows = {row[0]: row[1:] for row in all_equal(group)}
    assert rows[3] == ("z", 33)
    assert rows[4] == ("program", 40)
    assert rows[5] == ("meanwhile", 50)
    a.run("UPDATE t SET b = 51 WHERE id = 5")
    assert a.run("PRAGMA integrity_check") == [("ok",)], "for a connection that was open all the time, too"
    assert (5, "meanwhile", 51) in all_equal(group)


def test_a_program_that_saves_its_old_memory_again_and_again_undoes_nothing_of_others(group: Group) -> None:
    a, b = group.pair()
    program = loaded(a)
    for number in range(3):
        program.run(f"UPDATE t SET a = 'program {number}' WHERE id = 1")
        program.save()
        reopened(a)
        group.settle()
        b.run(f"UPDATE t SET a = 'b {number}' WHERE id = 2")
        b.run(f"UPDATE t SET b = {number} WHERE id = 1")
        group.settle()
    assert all_equal(group) == [(1, "program 2", 2), (2, "b 2", 20), (3, "z", 30)]


def test_a_row_that_the_program_logged_under_a_number_that_is_done_with_is_sent(group: Group) -> None:
    a, _ = group.pair()
    program = loaded(a)
    numbers_given_again(a, group, program)
    program.save()
    reopened(a)
    assert (2, "program", 20) in all_equal(group)


def test_rows_that_were_pending_are_kept_beside_the_database(group: Group) -> None:
    a, _ = group.pair()
    program = loaded(a)
    a.run("INSERT INTO t VALUES (7, 'never sent', 0)")
    assert a.replica.count_pending() == 1
    program.run("INSERT INTO t VALUES (8, 'program', 0)")
    program.save()
    said = reopened(a)
    (kept,) = a.options.database.parent.glob("app.db.overwritten-*")
    assert str(kept) in said
    assert kept.stat().st_mode == a.options.database.stat().st_mode
    assert has_never_sent(kept)
    assert (8, "program", 0) in all_equal(group)


def test_a_file_of_another_page_size_is_taken_in(group: Group, tmp_path: Path) -> None:
    a, _ = group.pair()
    a.replica.file.check()
    program = loaded(a)
    program.save(resized(program, tmp_path / "resized.db"))
    reopened(a)
    assert (4, "program", 40) in all_equal(group)


def test_what_is_written_slowly_is_waited_for_and_what_stays_unsound_is_named(
    group: Group, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    a, _ = group.pair()
    program = loaded(a)
    program.run("INSERT INTO t VALUES (4, 'program', 40)")
    outside(CUT, a.options.database)
    assert a.replica.file.overwritten()
    later = threading.Timer(0.3, outside, ('cat > "$0"', a.options.database, program.file()))
    later.start()
    reopened(a)
    later.join()
    assert (4, "program", 40) in all_equal(group)
    outside(CUT, a.options.database)
    monkeypatch.setattr(overwritten, "SECONDS", 0.2)
    a.options.said.clear()
    take_in(a.replica)
    assert not a.options.said
    assert "overwritten by a file that is no sound database" in caplog.text
    program.save()


def test_a_program_that_holds_the_write_lock_meanwhile_is_waited_for_and_asked_again(
    group: Group, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, _ = group.pair()
    program = loaded(a)
    program.run("INSERT INTO t VALUES (4, 'program', 40)")
    program.save()
    assert a.replica.file.overwritten()
    monkeypatch.setattr(overwritten, "SECONDS", 0.1)
    a.replica.connection.set_busy_timeout(10)
    a.run("BEGIN IMMEDIATE")
    with pytest.raises(DatabaseBusyError):
        take_in(a.replica)
    a.run("ROLLBACK")
    assert not a.options.said
    reopened(a)
    assert (4, "program", 40) in all_equal(group)


def test_another_file_under_the_name_is_not_the_one_that_was_overwritten(group: Group) -> None:
    a, _ = group.pair()
    program = loaded(a)
    program.run("INSERT INTO t VALUES (4, 'program', 40)")
    program.save()
    assert a.replica.file.overwritten()
    a.replica.close()
    a.app.close()
    outside('cp "$0" "$0.new" && mv "$0.new" "$0" && rm -f "$0-wal" "$0-shm"', a.options.database)
    a.app = apsw.Connection(str(a.options.database))
    a.start()
    assert not a.replica.file.overwritten()


def test_no_merge_and_no_capture_goes_by_what_was_cached(group: Group) -> None:
    a, b = group.pair()
    program = loaded(a)
    program.run("INSERT INTO t VALUES (4, 'program', 40)")
    b.run("INSERT INTO t VALUES (9, 'b', 0)")
    b.send()
    program.save()
    before = a.replica.positions()
    for work in (a.receive, a.capture, a.replica.note, a.replica.count_pending):
        a.replica._applying.unnoted = 1
        with pytest.raises(DatabaseOverwrittenError):
            work()
    assert a.replica.positions() == before
    reopened(a)
    assert {row[0] for row in all_equal(group)} == {1, 2, 3, 4, 9}


def test_nothing_of_the_log_is_copied_over_what_was_written(group: Group) -> None:
    (a,) = group.several(1, PAIRED)
    with closing(CheckpointedWal(a.options.database)) as tended:
        copy_log(a)
        tended.poll()
        program = InMemory(a.options.database)
        a.run("PRAGMA wal_autocheckpoint = 0")
        a.run(
            "INSERT INTO t WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT ?)"
            " SELECT i, zeroblob(4000), 0 FROM n",
            (2 * COPY_FROM,),
        )
        program.run("INSERT INTO t VALUES (4, 'program', 40)")
        program.save()
        written = outside('cat < "$0"', a.options.database)
        for _ in range(PATIENCE + 2):
            tended.poll()
        tended.cut()
        assert outside('cat < "$0"', a.options.database) == written


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[tuple[apsw.Connection, Overwriting]]:
    """An application's connection, and what looks at its file by another one."""
    with closing(apsw.Connection(str(tmp_path / "app.db"))) as app:
        app.pragma("journal_mode", "wal")
        app.execute("CREATE TABLE t(a); INSERT INTO t VALUES (1)")
        with closing(apsw.Connection(str(tmp_path / "app.db"))) as own:
            own.execute("SELECT * FROM t").fetchall()
            wal = Wal()
            wal.reached = True
            found = Overwriting(tmp_path / "app.db", Seen(), wal)
            found.open(own)
            yield app, found


@pytest.mark.parametrize("mode", ["PASSIVE", "FULL", "RESTART", "TRUNCATE"])
def test_a_checkpoint_is_no_overwriting(watched: tuple[apsw.Connection, Overwriting], mode: str) -> None:
    app, found = watched
    for _ in range(3):
        app.execute("INSERT INTO t VALUES (randomblob(9000)); CREATE TABLE IF NOT EXISTS u(a)")
        assert not found.overwritten()
        app.execute(f"PRAGMA wal_checkpoint({mode})")
        assert not found.overwritten()
        app.execute("INSERT INTO t VALUES (2)")
        assert not found.overwritten()


def test_a_new_time_alone_is_no_overwriting(watched: tuple[apsw.Connection, Overwriting], tmp_path: Path) -> None:
    os.utime(tmp_path / "app.db", ns=(1, 1))
    assert not watched[1].overwritten()


def test_looks_while_checkpoints_run_find_none(watched: tuple[apsw.Connection, Overwriting], tmp_path: Path) -> None:
    """Another process writes, copies its log, and is killed within that now and then."""
    script = (
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "c.execute('PRAGMA wal_autocheckpoint = 20')\n"
        "while True: c.execute('INSERT INTO t VALUES (randomblob(20000))')"
    )
    for _ in range(2):
        with subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "app.db")]) as writer:
            end = time.monotonic() + 0.3
            while time.monotonic() < end:
                assert not watched[1].overwritten()
            writer.kill()
        assert not watched[1].overwritten()
