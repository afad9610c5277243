"""A healed database holds what others wrote, and the rows of the damaged one that were not sent."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import apsw
import pytest

from harmonylite.db.repair import damage
from harmonylite.db.snapshot import save_copy
from harmonylite.db.sqlite.thread import SqliteThread
from tests.parts.db.fix_replicas import Group, Member
from tests.parts.recovery.fix_newcomers import Away, Newcomer, T


async def heal(newcomer: Newcomer, member: Member, mirror: Path | None = None, *, close: bool = True) -> None:
    """Have the database of a member healed as a damaged one, from its mirror or from ``mirror``."""
    member.stop()
    file = member.options.folder / "healing.db"
    shutil.copy(mirror, file) if mirror is not None else save_copy(member.options.mirror, file)
    if close:
        member.app.close()
    aside, _ = await newcomer.builder(member.options).heal(file)
    assert aside.exists()
    assert damage(member.options.database) == ""
    member.app = apsw.Connection(str(member.options.database))


@pytest.mark.parametrize("source", ["its mirror", "a snapshot before it"])
async def test_a_healed_database_holds_what_others_wrote_and_its_unsent_rows_three_ways(
    newcomer: Newcomer, source: str
) -> None:
    a, b = newcomer.group.members
    b.run("UPDATE t SET w = 1 WHERE id = 0")  # unsent
    b.run("INSERT INTO t VALUES (9, 'unsent', 0)")
    b.run("DELETE FROM t WHERE id = 4")
    a.run("UPDATE t SET v = 'newer' WHERE id IN (0, 1)")
    a.send()
    a.receive()
    await heal(newcomer, b, newcomer.snapshot if source != "its mirror" else None)
    assert b.run("SELECT v, w FROM t WHERE id = 0") == [("newer", 1)], "column by column"
    assert b.run("SELECT v FROM t WHERE id IN (1, 4, 9)") == [("newer",), ("unsent",)]
    b.start()
    b.receive()
    assert sorted(row[0] for row in newcomer.group.equal("t")) == [0, 1, 2, 3, 9]


async def test_a_healed_database_does_not_send_again_what_is_in_the_stream_already(newcomer: Newcomer) -> None:
    a, b = newcomer.group.members
    b.run("UPDATE t SET v = 'by b' WHERE id = 0")
    b.send()  # and it was killed before that came back
    a.receive()
    a.run("UPDATE t SET v = 'by a, later' WHERE id = 0")
    a.send()
    a.receive()
    await heal(newcomer, b)
    assert b.run("SELECT v FROM t WHERE id = 0") == [("by a, later",)]
    b.start()
    b.receive()
    newcomer.group.settle()
    assert a.run("SELECT v FROM t WHERE id = 0") == [("by a, later",)]


async def test_what_the_writer_of_a_saved_row_saw_is_saved_with_it(newcomer: Newcomer) -> None:
    """A value that others wrote meanwhile is overruled unseen, and is in the journal, however the row got there."""
    a, b = newcomer.group.members
    b.run("UPDATE t SET v = 'of b' WHERE id = 0")
    a.run("UPDATE t SET v = 'of a' WHERE id = 0")
    a.send()
    a.receive()
    b.receive()  # the pending row stays, on top of a value that its writer never saw
    await heal(newcomer, b)
    b.start()
    b.receive()
    assert newcomer.group.equal("t")[0] == (0, "of b", 0)
    assert [entry.overruled for entry in a.replica.conflicts()] == ["of a"]


async def test_what_is_written_into_a_damaged_file_while_no_stream_answers_is_saved(
    newcomer: Newcomer, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, b = newcomer.group.members
    away = Away(monkeypatch)
    healing = asyncio.create_task(heal(newcomer, b, close=False))
    await away.refused.wait()
    assert "no database is put in place before that: no server answers" in newcomer.status.part("join").reason
    b.run("INSERT INTO t VALUES (9, 'meanwhile', 0)")
    b.app.close()
    away.over()
    await healing
    assert b.run("SELECT v FROM t WHERE id = 9") == [("meanwhile",)]


async def test_a_row_that_is_held_back_stays_so_in_a_healed_database(
    group: Group, tmp_path: Path, thread: SqliteThread
) -> None:
    """The pending row's own change set displaces it, with a line in the journal; its writer did not delete it."""
    a, b = group.several(2, "CREATE TABLE claim(id INTEGER PRIMARY KEY, seat INTEGER UNIQUE)")
    newcomer = Newcomer(group, tmp_path, thread)
    b.run("INSERT INTO claim VALUES (9, 1)")
    a.run("INSERT INTO claim VALUES (5, 1)")
    a.send()
    a.receive()
    b.receive()
    assert b.replica.held_rows() == 1
    await heal(newcomer, b)
    assert b.run("SELECT id FROM claim") == [(9,)]
    b.start()
    assert b.replica.held_rows() == 1
    b.receive()
    assert group.equal("claim") == [(9, 1)]
    assert {str(entry.key) for entry in a.replica.conflicts()} == {str({"id": 5})}


async def test_the_journal_that_a_damaged_database_alone_holds_is_saved(newcomer: Newcomer) -> None:
    a, _ = newcomer.group.members
    a.run("INSERT INTO t VALUES (7, 'the cluster''s', 0)")
    newcomer.group.settle()
    late = newcomer.group.member(T, "INSERT INTO t VALUES (7, 'its own', 0)")
    assert [entry.overruled for entry in late.replica.conflicts()] == ["its own"]
    await heal(newcomer, late)
    late.start()
    assert [entry.overruled for entry in late.replica.conflicts()] == ["its own"]


async def test_a_healed_database_gets_what_was_added_to_the_schema(newcomer: Newcomer) -> None:
    a, b = newcomer.group.members
    a.run("UPDATE t SET v = 'before' WHERE id = 0")
    a.send()
    a.receive()
    a.run("ALTER TABLE t ADD COLUMN x")
    a.replica.reinstall()
    a.run("UPDATE t SET x = 'after' WHERE id = 0")
    a.send()
    a.receive()
    await heal(newcomer, b)
    assert b.run("SELECT v, x FROM t WHERE id = 0") == [("before", "after")]
    b.start()
    b.receive()
    assert newcomer.group.equal("t")[0] == (0, "before", 0, "after")
