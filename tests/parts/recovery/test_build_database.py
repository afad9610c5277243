"""A database that is made or healed appears whole: with all that the shards held when the node asked, or not at all."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import apsw
import pytest

from harmonylite.db.mirror.positions import have_diverged
from harmonylite.db.replica import Replica
from harmonylite.db.snapshot import pour
from harmonylite.db.sqlite.thread import SqliteThread
from harmonylite.errors import DatabaseError, PoisonError, SchemaWaitError
from harmonylite.snapshots import roll_forward
from harmonylite.status import Part
from harmonylite.wire import KIND_CHANGES, VERSION, Envelope, encode_envelope
from tests.parts.db.fix_replicas import Group
from tests.parts.recovery.fix_newcomers import Away, Newcomer
from tests.simulation.tails import Tape


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at once for change sets that hold others up."""
    monkeypatch.setattr(roll_forward, "POLL_EVERY", 0.0)


async def test_it_holds_what_came_after_the_snapshot_logs_from_the_first_write_and_goes_on(newcomer: Newcomer) -> None:
    await newcomer.builder().make(newcomer.snapshot)
    app = newcomer.app
    assert app.execute("SELECT count(*) FROM t").get == 5
    app.execute("INSERT INTO t VALUES (9, 'at once', 0)")
    app.close()
    replica = Replica(newcomer.options)
    replica.open()
    assert replica.joined
    assert not have_diverged(replica.connection)
    assert replica.count_pending() == 1, "what was written at once is pending, and nothing else"
    assert replica.positions()[0].seq == replica.merged_positions()[0].seq == newcomer.group.world.last(0)
    replica.close()
    assert not list(newcomer.options.database.parent.glob(".*")), "nothing is left behind"


async def test_while_the_ends_cannot_be_asked_none_appears_and_the_reason_is_told(
    newcomer: Newcomer, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = Away(monkeypatch)
    making = asyncio.create_task(newcomer.builder().make(newcomer.snapshot))
    for _ in range(2):
        away.refused.clear()
        await away.refused.wait()
    assert not newcomer.options.database.exists()
    assert newcomer.status.part("join").state == "waiting"
    assert "no database is put in place before that: no server answers" in newcomer.status.part("join").reason
    away.over()
    await making
    assert newcomer.app.execute("SELECT count(*) FROM t").get == 5


async def test_how_far_it_is_stands_in_the_status(newcomer: Newcomer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roll_forward, "BATCH_BYTES", 1)
    told: list[str] = []
    waiting = Part.waiting

    def heard(part: Part, reason: str, error: BaseException | None = None) -> None:
        told.append(reason)
        waiting(part, reason, error)

    monkeypatch.setattr(Part, "waiting", heard)
    await newcomer.builder().make(newcomer.snapshot)
    left = [reason for reason in told if "messages left" in reason]
    assert [reason.split(" messages")[0].split()[-1] for reason in left] == ["5", "4", "3", "2", "1"]
    assert "about" in left[1]
    state = newcomer.status.shard(0)
    assert (state.position, state.last) == (5, 5)


async def test_a_log_that_a_deleted_database_left_behind_is_not_taken_for_its_own(newcomer: Newcomer) -> None:
    other = apsw.Connection(str(newcomer.options.database))
    other.execute("PRAGMA journal_mode = wal")
    other.execute("CREATE TABLE strange(x); INSERT INTO strange VALUES (1)")
    newcomer.options.database.unlink()
    assert Path(f"{newcomer.options.database}-wal").stat().st_size > 0
    await newcomer.builder().make(newcomer.snapshot)
    assert newcomer.app.execute("SELECT count(*) FROM t").get == 5
    assert newcomer.app.execute("PRAGMA integrity_check").get == "ok"
    other.close()
    assert newcomer.app.execute("SELECT count(*) FROM t").get == 5


async def test_a_file_that_the_application_made_meanwhile_stays(
    newcomer: Newcomer, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = 0
    usual = Tape.end

    async def end(tape: Tape) -> int:
        nonlocal ends
        ends += 1
        if ends == 2:  # the rows are in the new database already
            newcomer.app.execute("CREATE TABLE own(x); INSERT INTO own VALUES (1)")
        return await usual(tape)

    monkeypatch.setattr(Tape, "end", end)
    with pytest.raises(DatabaseError, match="was made by another program meanwhile"):
        await newcomer.builder().make(newcomer.snapshot)
    assert newcomer.app.execute("SELECT x FROM own").get == 1


class Watching(threading.Thread):
    """An application that opened its empty file too early, and reads it all along; ``seen``: what there was to see."""

    def __init__(self, path: Path, *beginning: str) -> None:
        super().__init__()
        self.path, self.over = path, threading.Event()
        self.seen: set[int | None] = set()
        self.reader = apsw.Connection(str(path))
        for statement in beginning:
            self.reader.execute(statement).fetchall()

    def look(self) -> int | None:
        """Return how many rows there are, None where there is no table."""
        try:
            return int(self.reader.execute("SELECT count(*) FROM t").get)
        except apsw.SQLError:
            return None

    def run(self) -> None:
        while not self.over.is_set():
            with suppress(apsw.BusyError):
                self.seen.add(self.look())

    def stop(self) -> None:
        self.over.set()
        self.join()


@pytest.mark.parametrize(
    "beginning",
    [
        ["PRAGMA journal_mode = wal"],
        [],
        ["PRAGMA journal_mode = wal", "CREATE TABLE gone(x)", "DROP TABLE gone"],
        ["PRAGMA page_size = 1024", "PRAGMA journal_mode = wal"],
        ["PRAGMA page_size = 16384", "CREATE TABLE gone(x)", "DROP TABLE gone"],
    ],
)
async def test_an_empty_file_shows_no_table_and_then_all_rows_to_whoever_has_it_open(
    newcomer: Newcomer, beginning: list[str]
) -> None:
    a, _ = newcomer.group.members
    a.run(
        "WITH RECURSIVE n(i) AS (SELECT 10 UNION ALL SELECT i + 1 FROM n WHERE i < 9999)"
        " INSERT INTO t SELECT i, hex(zeroblob(200)), 0 FROM n"
    )
    newcomer.group.settle()
    watching = Watching(newcomer.options.database, *beginning)
    inode = newcomer.options.database.stat().st_ino
    watching.start()
    await newcomer.builder().make(newcomer.snapshot)
    watching.stop()
    watching.seen.add(watching.look())
    assert watching.seen == {None, 9995}
    assert newcomer.options.database.stat().st_ino == inode
    assert not list(newcomer.options.database.parent.glob(".*")), "nothing is left behind"
    watching.reader.execute("INSERT INTO t VALUES (9, 'at once', 0)")
    replica = Replica(newcomer.options)
    replica.open()
    assert replica.joined
    assert not have_diverged(replica.connection)
    assert replica.count_pending() == 1, "what was written at once is pending, and nothing else"
    replica.close()
    assert watching.reader.execute("PRAGMA integrity_check").get == "ok"
    watching.reader.close()


async def test_a_table_that_the_application_makes_in_its_empty_file_meanwhile_stays(
    newcomer: Newcomer, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = newcomer.app
    app.execute("PRAGMA journal_mode = wal")

    def late(building: Path, path: Path) -> None:
        app.execute("CREATE TABLE own(x); INSERT INTO own VALUES (1)")
        pour(building, path)

    monkeypatch.setattr("harmonylite.recovery.build_database.pour", late)
    with pytest.raises(DatabaseError, match="made by another program meanwhile"):
        await newcomer.builder().make(newcomer.snapshot)
    assert app.execute("SELECT name, x FROM sqlite_schema, own").fetchall() == [("own", 1)]
    app.execute("INSERT INTO own VALUES (2)")
    app.close()


async def test_a_change_set_that_the_snapshots_schema_lacks_lets_none_appear(newcomer: Newcomer) -> None:
    a, b = newcomer.group.members
    for member in (a, b):
        member.run("ALTER TABLE t RENAME COLUMN v TO x")
    a.run("INSERT INTO t(id, x) VALUES (9, 1)")
    newcomer.group.settle()
    with pytest.raises(SchemaWaitError, match="column x"):
        await newcomer.builder().make(newcomer.snapshot)
    assert not newcomer.options.database.exists()


async def test_a_message_that_cannot_be_understood_lets_none_appear(newcomer: Newcomer) -> None:
    newer = Envelope(VERSION + 1, KIND_CHANGES, "b", "s", 1, 0, False, True, [0], 0.0, {}, False, b"")
    newcomer.group.world.publish(0, "b", encode_envelope(newer))
    with pytest.raises(PoisonError):
        await newcomer.builder().make(newcomer.snapshot)
    assert not newcomer.options.database.exists()


async def test_what_this_node_left_unfinished_before_its_disk_was_lost_holds_it_up_no_more(
    make_group: Callable[[int], Group], tmp_path: Path, thread: SqliteThread
) -> None:
    group = make_group(2)
    a, b = group.several(2, "CREATE TABLE t(id INTEGER PRIMARY KEY, v)")
    newcomer = Newcomer(group, tmp_path, thread)
    newcomer.options = replace(newcomer.options, node="b", session="after")
    newcomer.tapes = [Tape(group.world, shard, 0, node="b") for shard in range(2)]
    b.run("INSERT INTO t SELECT value, 'half' FROM json_each('[1,2,3,4,5,6,7,8,9]')")
    b.capture()
    assert b.flight is not None
    assert len(b.flight.parts) == 2
    for payload in b.flight.payloads(0):
        group.world.publish(0, "b", payload)
    a.run("INSERT INTO t VALUES (20, 'after it'), (21, 'after it'), (22, 'after it'), (23, 'after it')")
    a.send()
    await newcomer.builder().make(newcomer.snapshot)
    assert newcomer.app.execute("SELECT DISTINCT v FROM t").fetchall() == [("after it",)]
    b.drop()
