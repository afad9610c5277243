"""A database that is made or healed appears whole: with all that the shards held when the node asked, or not at all."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import apsw
import pytest

from harmonylite.db.healing import damage
from harmonylite.db.replica import Replica, ReplicaOptions
from harmonylite.db.snapshot import save_copy
from harmonylite.db.standing import grew_apart
from harmonylite.db.thread import SqliteThread
from harmonylite.errors import DatabaseError, PoisonError, SchemaWaitError, StreamError
from harmonylite.snapshots import forward, offering
from harmonylite.snapshots.offering import Offering
from harmonylite.status import NodeStatus, Part
from harmonylite.wire import KIND_CHANGES, VERSION, Envelope, encode_envelope
from tests.parts.db.fix_replicas import Group, Member
from tests.simulation.survivor import Follows
from tests.simulation.tails import Tape

T = "CREATE TABLE t(id INTEGER PRIMARY KEY, v, w)"


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at once for change sets that hold others up."""
    monkeypatch.setattr(forward, "LOOK_EVERY", 0.0)


class Place:
    """A node ``new`` without a file, and a snapshot of the first member of a group."""

    def __init__(self, group: Group, folder: Path, thread: SqliteThread) -> None:
        self.group, self.folder, self.thread = group, folder, thread
        self.status = NodeStatus()
        first = group.members[0].options
        self.options = replace(
            first, database=folder / "new" / "app.db", folder=folder / "new" / "mirror", node="new", session="s"
        )
        self.options.folder.mkdir(parents=True)
        self.snapshot = self.options.folder / "fetched.db"
        save_copy(first.mirror, self.snapshot)
        self.tapes = [Tape(group.world, shard, 0, node="new") for shard in range(group.world.shards)]

    def offering(self, options: ReplicaOptions | None = None) -> Offering:
        return Offering(options or self.options, self.thread, self.status, Follows(), self.tapes)

    @property
    def app(self) -> apsw.Connection:
        return apsw.Connection(str(self.options.database))


@pytest.fixture
async def thread() -> AsyncIterator[SqliteThread]:
    thread = SqliteThread()
    yield thread
    await thread.aclose()


@pytest.fixture
def place(group: Group, tmp_path: Path, thread: SqliteThread) -> Place:
    """The group's streams hold more than the snapshot."""
    a, _ = group.several(2, T)
    place = Place(group, tmp_path, thread)
    for n in range(5):
        a.run("INSERT INTO t VALUES (?, 'after the snapshot', 0)", (n,))
        group.settle()
    return place


async def test_it_holds_what_came_after_the_snapshot_logs_from_the_first_write_and_goes_on(place: Place) -> None:
    await place.offering().make(place.snapshot)
    app = place.app
    assert app.execute("SELECT count(*) FROM t").get == 5
    app.execute("INSERT INTO t VALUES (9, 'at once', 0)")
    app.close()
    replica = Replica(place.options)
    replica.open()
    assert replica.joined
    assert not grew_apart(replica.connection)
    assert replica.look() == 1, "what was written at once is pending, and nothing else"
    assert replica.positions()[0].seq == replica.merged_positions()[0].seq == place.group.world.last(0)
    replica.close()
    assert not list(place.options.database.parent.glob(".*")), "nothing is left behind"


async def test_while_the_ends_cannot_be_asked_none_appears_and_the_reason_is_told(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    back, refused = asyncio.Event(), asyncio.Event()

    async def end(tape: Tape) -> int:
        if not back.is_set():
            refused.set()
            raise StreamError("no server answers")
        return tape.now.last

    monkeypatch.setattr(Tape, "end", end)
    making = asyncio.create_task(place.offering().make(place.snapshot))
    for _ in range(2):
        refused.clear()
        await refused.wait()
    assert not place.options.database.exists()
    assert place.status.part("join").state == "waiting"
    assert "no database is put in place before that: no server answers" in place.status.part("join").reason
    back.set()
    await making
    assert place.app.execute("SELECT count(*) FROM t").get == 5


async def test_how_far_it_is_stands_in_the_status(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forward, "BATCH_BYTES", 1)
    told: list[str] = []
    waiting = Part.waiting

    def heard(part: Part, reason: str, error: BaseException | None = None) -> None:
        told.append(reason)
        waiting(part, reason, error)

    monkeypatch.setattr(Part, "waiting", heard)
    await place.offering().make(place.snapshot)
    left = [reason for reason in told if "messages left" in reason]
    assert [reason.split(" messages")[0].split()[-1] for reason in left] == ["5", "4", "3", "2", "1"]
    assert "about" in left[1]
    state = place.status.shard(0)
    assert (state.position, state.last) == (5, 5)


async def test_a_log_that_a_deleted_database_left_behind_is_not_taken_for_its_own(place: Place) -> None:
    other = apsw.Connection(str(place.options.database))
    other.execute("PRAGMA journal_mode = wal")
    other.execute("CREATE TABLE strange(x); INSERT INTO strange VALUES (1)")
    place.options.database.unlink()
    assert Path(f"{place.options.database}-wal").stat().st_size > 0
    await place.offering().make(place.snapshot)
    assert place.app.execute("SELECT count(*) FROM t").get == 5
    assert place.app.execute("PRAGMA integrity_check").get == "ok"
    other.close()
    assert place.app.execute("SELECT count(*) FROM t").get == 5


async def test_a_file_that_the_application_made_meanwhile_stays(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    ends = 0
    usual = Tape.end

    async def end(tape: Tape) -> int:
        nonlocal ends
        ends += 1
        if ends == 2:  # the rows are in the new database already
            place.app.execute("CREATE TABLE own(x); INSERT INTO own VALUES (1)")
        return await usual(tape)

    monkeypatch.setattr(Tape, "end", end)
    with pytest.raises(DatabaseError, match="was made by somebody else meanwhile"):
        await place.offering().make(place.snapshot)
    assert place.app.execute("SELECT x FROM own").get == 1


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
    place: Place, beginning: list[str]
) -> None:
    a, _ = place.group.members
    a.run(
        "WITH RECURSIVE n(i) AS (SELECT 10 UNION ALL SELECT i + 1 FROM n WHERE i < 9999)"
        " INSERT INTO t SELECT i, hex(zeroblob(200)), 0 FROM n"
    )
    place.group.settle()
    watching = Watching(place.options.database, *beginning)
    inode = place.options.database.stat().st_ino
    watching.start()
    await place.offering().make(place.snapshot)
    watching.stop()
    watching.seen.add(watching.look())
    assert watching.seen == {None, 9995}
    assert place.options.database.stat().st_ino == inode
    assert not list(place.options.database.parent.glob(".*")), "nothing is left behind"
    watching.reader.execute("INSERT INTO t VALUES (9, 'at once', 0)")
    replica = Replica(place.options)
    replica.open()
    assert replica.joined
    assert not grew_apart(replica.connection)
    assert replica.look() == 1, "what was written at once is pending, and nothing else"
    replica.close()
    assert watching.reader.execute("PRAGMA integrity_check").get == "ok"
    watching.reader.close()


async def test_a_table_that_the_application_makes_in_its_empty_file_meanwhile_stays(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = place.app
    app.execute("PRAGMA journal_mode = wal")
    usual = offering.pour

    def pour(building: Path, path: Path) -> None:
        app.execute("CREATE TABLE own(x); INSERT INTO own VALUES (1)")
        usual(building, path)

    monkeypatch.setattr(offering, "pour", pour)
    with pytest.raises(DatabaseError, match="made by somebody else meanwhile"):
        await place.offering().make(place.snapshot)
    assert app.execute("SELECT name, x FROM sqlite_schema, own").fetchall() == [("own", 1)]
    app.execute("INSERT INTO own VALUES (2)")
    app.close()


async def test_a_change_set_that_the_snapshots_schema_lacks_lets_none_appear(place: Place) -> None:
    a, b = place.group.members
    for member in (a, b):
        member.run("ALTER TABLE t ADD COLUMN x")
    a.run("INSERT INTO t(id, x) VALUES (9, 1)")
    place.group.settle()
    with pytest.raises(SchemaWaitError, match="column x"):
        await place.offering().make(place.snapshot)
    assert not place.options.database.exists()


async def test_a_message_that_cannot_be_understood_lets_none_appear(place: Place) -> None:
    newer = Envelope(VERSION + 1, KIND_CHANGES, "b", "s", 1, 0, False, True, [0], 0.0, {}, False, b"")
    place.group.world.publish(0, "b", encode_envelope(newer))
    with pytest.raises(PoisonError):
        await place.offering().make(place.snapshot)
    assert not place.options.database.exists()


async def test_what_this_node_left_unfinished_before_its_disk_was_lost_holds_it_up_no_more(
    make_group: Callable[[int], Group], tmp_path: Path, thread: SqliteThread
) -> None:
    group = make_group(2)
    a, b = group.several(2, "CREATE TABLE t(id INTEGER PRIMARY KEY, v)")
    place = Place(group, tmp_path, thread)
    place.options = replace(place.options, node="b", session="after")
    place.tapes = [Tape(group.world, shard, 0, node="b") for shard in range(2)]
    b.run("INSERT INTO t SELECT value, 'half' FROM json_each('[1,2,3,4,5,6,7,8,9]')")
    b.capture()
    assert b.flight is not None
    assert len(b.flight.parts) == 2
    for payload in b.flight.payloads(0):
        group.world.publish(0, "b", payload)
    a.run("INSERT INTO t VALUES (20, 'after it'), (21, 'after it'), (22, 'after it'), (23, 'after it')")
    a.send()
    await place.offering().make(place.snapshot)
    assert place.app.execute("SELECT DISTINCT v FROM t").fetchall() == [("after it",)]
    b.drop()


# healing -----------------------------------------------------------------------------------------------------------


async def heal(place: Place, member: Member, mirror: Path | None = None, *, close: bool = True) -> None:
    """Have the database of a member healed as a damaged one, from its mirror or from ``mirror``."""
    member.stop()
    file = member.options.folder / "healing.db"
    shutil.copy(mirror, file) if mirror is not None else save_copy(member.options.mirror, file)
    if close:
        member.app.close()
    aside, _ = await place.offering(member.options).heal(file)
    assert aside.exists()
    assert damage(member.options.database) == ""
    member.app = apsw.Connection(str(member.options.database))


@pytest.mark.parametrize("source", ["its mirror", "a snapshot before it"])
async def test_a_healed_database_holds_what_others_wrote_and_its_unsent_rows_three_ways(
    place: Place, source: str
) -> None:
    a, b = place.group.members
    b.run("UPDATE t SET w = 1 WHERE id = 0")  # unsent
    b.run("INSERT INTO t VALUES (9, 'unsent', 0)")
    b.run("DELETE FROM t WHERE id = 4")
    a.run("UPDATE t SET v = 'newer' WHERE id IN (0, 1)")
    a.send()
    a.receive()
    await heal(place, b, place.snapshot if source != "its mirror" else None)
    assert b.run("SELECT v, w FROM t WHERE id = 0") == [("newer", 1)], "column by column"
    assert b.run("SELECT v FROM t WHERE id IN (1, 4, 9)") == [("newer",), ("unsent",)]
    b.start()
    b.receive()
    assert sorted(row[0] for row in place.group.equal("t")) == [0, 1, 2, 3, 9]


async def test_a_healed_database_does_not_send_again_what_is_in_the_stream_already(place: Place) -> None:
    a, b = place.group.members
    b.run("UPDATE t SET v = 'by b' WHERE id = 0")
    b.send()  # and it was killed before that came back
    a.receive()
    a.run("UPDATE t SET v = 'by a, later' WHERE id = 0")
    a.send()
    a.receive()
    await heal(place, b)
    assert b.run("SELECT v FROM t WHERE id = 0") == [("by a, later",)]
    b.start()
    b.receive()
    place.group.settle()
    assert a.run("SELECT v FROM t WHERE id = 0") == [("by a, later",)]


async def test_what_the_writer_of_a_saved_row_saw_is_saved_with_it(place: Place) -> None:
    """A value that others wrote meanwhile is overruled unseen, and stands in the journal, however the row got there."""
    a, b = place.group.members
    b.run("UPDATE t SET v = 'of b' WHERE id = 0")
    a.run("UPDATE t SET v = 'of a' WHERE id = 0")
    a.send()
    a.receive()
    b.receive()  # the pending row stays, on top of a value that its writer never saw
    await heal(place, b)
    b.start()
    b.receive()
    assert place.group.equal("t")[0] == (0, "of b", 0)
    assert [entry.overruled for entry in a.replica.conflicts()] == ["of a"]


async def test_what_is_written_into_a_damaged_file_while_no_stream_answers_is_saved(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, b = place.group.members
    back, refused = asyncio.Event(), asyncio.Event()

    async def end(tape: Tape) -> int:
        if not back.is_set():
            refused.set()
            raise StreamError("no server answers")
        return tape.now.last

    monkeypatch.setattr(Tape, "end", end)
    healing = asyncio.create_task(heal(place, b, close=False))
    await refused.wait()
    assert "no database is put in place before that: no server answers" in place.status.part("join").reason
    b.run("INSERT INTO t VALUES (9, 'meanwhile', 0)")
    b.app.close()
    back.set()
    await healing
    assert b.run("SELECT v FROM t WHERE id = 9") == [("meanwhile",)]


async def test_a_row_that_is_held_back_stays_so_in_a_healed_database(
    group: Group, tmp_path: Path, thread: SqliteThread
) -> None:
    """The pending row's own change set displaces it, with a line in the journal; its writer did not delete it."""
    a, b = group.several(2, "CREATE TABLE claim(id INTEGER PRIMARY KEY, seat INTEGER UNIQUE)")
    place = Place(group, tmp_path, thread)
    b.run("INSERT INTO claim VALUES (9, 1)")
    a.run("INSERT INTO claim VALUES (5, 1)")
    a.send()
    a.receive()
    b.receive()
    assert b.replica.held_rows() == 1
    await heal(place, b)
    assert b.run("SELECT id FROM claim") == [(9,)]
    b.start()
    assert b.replica.held_rows() == 1
    b.receive()
    assert group.equal("claim") == [(9, 1)]
    assert {str(entry.key) for entry in a.replica.conflicts()} == {str({"id": 5})}


async def test_the_journal_that_a_damaged_database_alone_holds_is_saved(place: Place) -> None:
    a, _ = place.group.members
    a.run("INSERT INTO t VALUES (7, 'the cluster''s', 0)")
    place.group.settle()
    late = place.group.member(T, "INSERT INTO t VALUES (7, 'its own', 0)")
    assert [entry.overruled for entry in late.replica.conflicts()] == ["its own"]
    await heal(place, late)
    late.start()
    assert [entry.overruled for entry in late.replica.conflicts()] == ["its own"]


async def test_a_healed_database_comes_up_to_a_schema_that_only_its_application_can_bring(place: Place) -> None:
    a, b = place.group.members
    a.run("UPDATE t SET v = 'before' WHERE id = 0")
    a.send()
    a.receive()
    a.run("ALTER TABLE t ADD COLUMN x")
    a.replica.reinstall()
    a.run("UPDATE t SET x = 'after' WHERE id = 0")
    a.send()
    a.receive()
    await heal(place, b)
    assert b.run("SELECT v FROM t WHERE id = 0") == [("before",)]
    b.run("ALTER TABLE t ADD COLUMN x")
    b.start()
    b.receive()
    assert place.group.equal("t")[0] == (0, "before", 0, "after")
