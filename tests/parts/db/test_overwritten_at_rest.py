"""A program writes the database's file as a whole while no node runs: what it wrote is taken in at the next start."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path

import apsw
import pytest

from harmonylite.changes.epochs import drift
from harmonylite.db.overwritten import TOPIC, take_in_at_start
from harmonylite.db.sqlite.overwriting import Seen
from harmonylite.errors import DatabaseBusyError
from tests.parts.db.fix_holding import holding
from tests.parts.db.fix_replicas import PAIRED, Group, Member
from tests.parts.db.test_overwritten import (
    InMemory,
    all_equal,
    copy_log,
    has_never_sent,
    numbers_given_again,
    resized,
)

PENDING = "INSERT INTO t VALUES (7, 'never sent', 0)"
EMPTY = "PRAGMA wal_checkpoint(TRUNCATE)"
SLOW = "PRAGMA wal_autocheckpoint = 0"


@pytest.fixture
def pair(group: Group, tmp_path: Path) -> list[Member]:
    """Two members; the first one notes how its file was, as a node does, and all of its log is in the file."""
    made = [group.member(PAIRED, seen=Seen(tmp_path / "seen.json")), group.member(PAIRED)]
    made[0].run("INSERT INTO t VALUES (1, 'x', 10), (2, 'y', 20), (3, 'z', 30)")
    group.settle()
    made[0].replica.note()
    copy_log(made[0])
    made[0].replica.file.check()
    return made


def away(member: Member) -> None:
    """End node and application."""
    member.stop()
    member.app.close()


def back(member: Member, note: Path) -> str:
    """Start the node as another process; return what it says of the file."""
    member.options = replace(member.options, seen=Seen(note), said={})
    take_in_at_start(member.options)
    member.app = apsw.Connection(str(member.options.database))
    member.start()
    replica = member.replica
    if not replica.joined:
        member.receive()
        replica.reconcile(first=True)
    elif (way := drift(replica.lineage("main"), replica.lineage("mirror"))) != "same":
        replica.reconcile(first=way == "diverged", keep_log=True)
    assert member.run("PRAGMA integrity_check") == [("ok",)]
    return member.replica.warnings.get(TOPIC, "")


def changed(a: Member, b: Member, group: Group) -> None:
    """Let both members commit and publish what a program that read the file before doesn't know."""
    a.run("INSERT INTO t VALUES (5, 'own', 50)")
    b.run("UPDATE t SET b = 33 WHERE id = 3")
    group.settle()


def as_rollback(program: InMemory) -> bytes:
    """Return the file as a library writes it that knows no write-ahead log."""
    return program.file()


def as_wal(program: InMemory) -> bytes:
    """Return the file as ``cp`` writes it from another one in WAL mode."""
    written = bytearray(program.file())
    written[18:20] = b"\2\2"
    return bytes(written)


@pytest.mark.parametrize("written", [as_rollback, as_wal], ids=["rollback mode", "WAL mode"])
@pytest.mark.parametrize("beside", ["left", "open", "open, empty"])
def test_what_was_written_beside_a_log_is_taken_in_and_what_was_pending_is_kept(
    group: Group, pair: list[Member], tmp_path: Path, written: Callable[[InMemory], bytes], beside: str
) -> None:
    a, b = pair
    program = InMemory(a.options.database)
    program.run("INSERT INTO t VALUES (4, 'program', 40)")
    changed(a, b, group)
    empty = beside == "open, empty"
    with ExitStack() as stack:
        open_elsewhere = stack.enter_context(
            holding(a.options.database, SLOW, *([] if empty else [PENDING]), *([EMPTY] if empty else []))
        )
        if empty:
            a.replica.file.check()
        away(a)
        if beside == "left":
            open_elsewhere.kill()
            open_elsewhere.wait()
        program.save(written(program))
        said = back(a, tmp_path / "seen.json")
        assert "was overwritten while no node ran" in said
        rows = {row[0]: row[1:] for row in all_equal(group)}
    assert rows == {1: ("x", 10), 2: ("y", 20), 3: ("z", 33), 4: ("program", 40), 5: ("own", 50)}
    kept = a.options.database.parent.glob("app.db.overwritten-*")
    files = [path for path in kept if not path.name.endswith(("-wal", "-shm"))]
    assert len(files) == (0 if empty else 1), "an empty log has nothing that the file lacks"
    for file in files:
        assert str(file) in said
        assert has_never_sent(file)
    away(a)
    assert not back(a, tmp_path / "seen.json"), "it was taken in"


@pytest.mark.parametrize("bookkeeping", [True, False], ids=["bookkeeping of back then", "no bookkeeping"])
def test_a_file_without_a_log_is_merged_as_any_other_that_was_put_in_place(
    group: Group, pair: list[Member], tmp_path: Path, bookkeeping: bool
) -> None:
    a, b = pair
    program = InMemory(a.options.database)
    program.run("INSERT INTO t VALUES (4, 'program', 40)")
    program.run("UPDATE t SET a = 'program' WHERE id = 2")
    changed(a, b, group)
    a.replica.note()
    away(a)
    assert not Path(f"{a.options.database}-wal").exists()
    if not bookkeeping:
        for (name,) in program.run("SELECT name FROM sqlite_schema WHERE type = 'trigger'"):
            program.run(f'DROP TRIGGER "{name}"')
        for kind, name in program.run("SELECT type, name FROM sqlite_schema WHERE name LIKE '\\_\\_harm%' ESCAPE '\\'"):
            program.run(f'DROP {kind} IF EXISTS "{name}"')
    program.save()
    back(a, tmp_path / "seen.json")
    rows = {row[0]: row[1:] for row in all_equal(group)}
    theirs = "program" if bookkeeping else "y"
    assert rows == {1: ("x", 10), 2: (theirs, 20), 3: ("z", 33), 4: ("program", 40), 5: ("own", 50)}
    overruled = [found.overruled for found in a.replica.conflicts()]
    assert "program" in overruled or bookkeeping, "what gives way is in the journal"


def test_a_row_that_the_program_logged_under_a_number_that_was_given_again_is_sent(
    group: Group, pair: list[Member], tmp_path: Path
) -> None:
    a, _ = pair
    program = InMemory(a.options.database)
    numbers_given_again(a, group, program)
    with holding(a.options.database, SLOW):
        away(a)
    program.save()
    assert back(a, tmp_path / "seen.json")
    assert (2, "program", 20) in all_equal(group)


@pytest.mark.parametrize("beside", ["left", "open"])
def test_what_applications_commit_and_copy_while_no_node_runs_is_no_overwriting(
    group: Group, pair: list[Member], tmp_path: Path, beside: str
) -> None:
    a, _ = pair
    with holding(a.options.database, SLOW, "INSERT INTO t VALUES (8, 'application', 0)") as application:
        away(a)
        with holding(a.options.database, "PRAGMA wal_checkpoint", "INSERT INTO t VALUES (9, 'another', 0)"):
            pass
        if beside == "left":
            application.kill()
            application.wait()
        assert not back(a, tmp_path / "seen.json")
        assert {row[0] for row in all_equal(group)} == {1, 2, 3, 8, 9}


def test_what_was_taken_in_and_not_copied_yet_is_not_taken_for_overwritten_once_more(
    group: Group, pair: list[Member], tmp_path: Path
) -> None:
    a, _ = pair
    program = InMemory(a.options.database)
    program.run("INSERT INTO t VALUES (4, 'program', 40)")
    with holding(a.options.database, SLOW, PENDING):
        away(a)
        program.save()
        take_in_at_start(a.options)
        with holding(a.options.database, SLOW, "INSERT INTO t VALUES (6, 'after', 0)"):
            pass
    assert not back(a, tmp_path / "seen.json")
    assert {row[0] for row in all_equal(group)} == {1, 2, 3, 4, 6}


def test_a_file_of_another_page_size_waits_for_who_has_the_old_one_open(
    group: Group, pair: list[Member], tmp_path: Path
) -> None:
    a, _ = pair
    program = InMemory(a.options.database)
    with holding(a.options.database, EMPTY):
        away(a)
        program.save(resized(program, tmp_path / "resized.db"))
        with pytest.raises(DatabaseBusyError, match="other programs have the old one open"):
            take_in_at_start(a.options)
    back(a, tmp_path / "seen.json")
    assert (4, "program", 40) in all_equal(group)


def test_a_file_in_utf_16_is_taken_in(group: Group, tmp_path: Path) -> None:
    a = group.member(PAIRED, begin=in_utf_16, seen=Seen(tmp_path / "seen.json"))
    a.run("INSERT INTO t VALUES (1, 'x', 10)")
    group.settle()
    copy_log(a)
    program = InMemory(a.options.database)
    program.run("INSERT INTO t VALUES (4, 'program', 40)")
    with holding(a.options.database, SLOW, PENDING):
        away(a)
        program.save()
        assert back(a, tmp_path / "seen.json")
    assert [row[0] for row in all_equal(group)] == [1, 4]


def in_utf_16(file: Path) -> None:
    """Make a file of that encoding."""
    with closing(sqlite3.connect(file)) as made:
        made.execute("PRAGMA encoding = 'UTF-16le'")
        made.execute("CREATE TABLE other(a)")
