"""A snapshot from outside is looked through before it is used: what is no mirror is passed over for an older one."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import apsw
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harmonylite.db.mirror.database_schema import SCHEMA
from harmonylite.db.mirror.mirror_file import POSITION
from harmonylite.db.mirror.state import STATE
from harmonylite.db.sqlite.deadline import Deadline
from harmonylite.db.untrusted_snapshot import inspect_file
from harmonylite.errors import OverdueError, SnapshotDamagedError, SnapshotRefusedError, SnapshotRoomError
from harmonylite.nats.link import NatsLink
from harmonylite.ports import Progress
from harmonylite.snapshots import archive
from harmonylite.snapshots.archive import fetch, pack, unpack
from harmonylite.snapshots.manifest import DESCRIPTION, decode, encode
from harmonylite.snapshots.repository import SnapshotRepository
from harmonylite.stores.directory import DirectoryStore
from tests.parts.snapshots.test_repository import Mirror, Place, saved

MIRROR = "CREATE TABLE t(id INTEGER PRIMARY KEY, v)"
REMEMBERED = ("table", "t", "t", MIRROR)


def mirror(folder: Path, *statements: str, lying: str = "") -> Path:
    """Return the file of a small mirror, after ``statements``; ``lying``: a change of its catalog by force."""
    file = folder / "snapshot.db"
    small = Mirror()
    small.schema.append(REMEMBERED)
    small.copy(file)
    connection = apsw.Connection(str(file))
    for sql in (MIRROR, *statements):
        connection.execute(sql)
    if lying:
        connection.pragma("writable_schema", 1)
        connection.execute(lying)
    connection.close()
    return file


def test_a_mirror_passes_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    file = mirror(tmp_path, "CREATE UNIQUE INDEX u ON t(v)")
    before = file.read_bytes()
    assert inspect_file(file, Deadline()).positions[0].created == "then"
    assert [path.name for path in tmp_path.iterdir()] == ["snapshot.db"]
    assert file.read_bytes() == before


MARK = "CREATE TRIGGER r AFTER DELETE ON __harmonylite__skipped BEGIN SELECT 1; END"


@pytest.mark.parametrize(
    "statements",
    [
        (MARK,),
        ("CREATE VIEW seen AS SELECT 1",),
        ("CREATE VIRTUAL TABLE f USING fts5(v)",),
        (f"DROP TABLE {SCHEMA}",),
        (f"DROP TABLE {POSITION}",),
        (f"DROP TABLE {STATE}",),
        (f"DROP TABLE {SCHEMA}", f"CREATE TABLE {SCHEMA}(a)"),
        (f"INSERT INTO {SCHEMA} VALUES ('table', 'x', 'x', 'CREATE TABLE x(y); CREATE TABLE z(y)')",),
        (f"INSERT INTO {SCHEMA} VALUES (1, 2, 3, 4)",),
        (f"INSERT INTO {SCHEMA} VALUES ('table', 'x', 'x', CAST(x'ff' AS TEXT))",),
    ],
)
def test_what_is_no_mirror_is_refused(tmp_path: Path, statements: tuple[str, ...]) -> None:
    with pytest.raises(SnapshotRefusedError):
        inspect_file(mirror(tmp_path, *statements), Deadline())


@pytest.mark.parametrize("called", ["table", "index"])
def test_a_trigger_that_the_catalog_calls_something_else_is_refused(tmp_path: Path, called: str) -> None:
    lying = f"UPDATE sqlite_schema SET type = '{called}' WHERE name = 'r'"
    with pytest.raises(SnapshotRefusedError):
        inspect_file(mirror(tmp_path, MARK, lying=lying), Deadline())


def test_a_remembered_schema_runs_nothing(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    sql = f"CREATE TABLE x(y); ATTACH '{marker}' AS m; CREATE TABLE m.marker(x)"
    file = mirror(tmp_path, f"INSERT INTO {SCHEMA} VALUES ('table', 'x', 'x', '{sql.replace(chr(39), 2 * chr(39))}')")
    with pytest.raises(SnapshotRefusedError, match="more than one statement"):
        inspect_file(file, Deadline())
    assert not marker.exists()


def test_what_this_sqlite_lacks_is_no_reason_to_refuse(tmp_path: Path) -> None:
    sql = "CREATE TABLE x(y CHECK (is_fine(y)))"
    inspect_file(mirror(tmp_path, f"INSERT INTO {SCHEMA} VALUES ('table', 'x', 'x', '{sql}')"), Deadline())


@pytest.mark.parametrize("page", range(4))
def test_a_damaged_page_is_seen(tmp_path: Path, page: int) -> None:
    file = mirror(tmp_path, "INSERT INTO t VALUES (1, 'x')")
    size = 4096
    data = bytearray(file.read_bytes())
    data[page * size + 100 * (page == 0) : page * size + 300] = b"\x55" * (300 - 100 * (page == 0))
    file.write_bytes(data)
    with pytest.raises(SnapshotRefusedError):
        inspect_file(file, Deadline())


@pytest.mark.parametrize("content", [b"", b"x" * 5000, b"SQLite format 3\0" + b"\0" * 4080])
def test_what_is_no_sqlite_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file.db").write_bytes(content)
    with pytest.raises(SnapshotRefusedError):
        inspect_file(tmp_path / "file.db", Deadline())


def test_a_look_is_given_up_when_nobody_waits_for_it(tmp_path: Path) -> None:
    deadline = Deadline()
    deadline.give_up()
    with pytest.raises(OverdueError):
        inspect_file(mirror(tmp_path), deadline)


COLUMNS = ["seq", "resume", "created", "aborted", "newest"]
VALUES = st.none() | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.text(max_size=9) | st.binary(max_size=9)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(column=st.sampled_from(COLUMNS), value=VALUES, name=VALUES, past=VALUES)
def test_odd_values_are_refused_or_read_and_never_anything_else(
    tmp_path: Path, column: str, value: object, name: object, past: object
) -> None:
    (tmp_path / "snapshot.db").unlink(missing_ok=True)
    file = mirror(tmp_path, f"DROP TABLE {POSITION}", f"CREATE TABLE {POSITION}(shard, {', '.join(COLUMNS)})")
    connection = apsw.Connection(str(file))
    connection.execute(f"INSERT INTO {POSITION} VALUES (0, 1, 2, 'then', x'90', NULL)")
    connection.execute(f"UPDATE {POSITION} SET {column} = ?", (value,))
    for fact, new in (("history", name), ("past", past)):
        connection.execute(f"INSERT OR REPLACE INTO {STATE} VALUES (?, ?)", (fact, new))
    connection.close()
    try:
        found = inspect_file(file, Deadline())
    except SnapshotRefusedError:
        return
    assert isinstance(found.history, str)
    assert isinstance(found.positions[0].seq, int)


# in a store ------------------------------------------------------------------------------------------------------


@pytest.fixture
def place(link: NatsLink, tmp_path: Path) -> Place:
    return Place(link, tmp_path)


class Counted(DirectoryStore):
    """A directory that remembers what it was asked for."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, owner="a")
        self.asked: list[str] = []

    async def get(self, name: str, target: Path, progress: Progress | None = None) -> None:
        self.asked.append(name)
        await super().get(name, target, progress)


def counted(place: Place) -> tuple[SnapshotRepository, Counted]:
    repository, store = place.repository(), Counted(place.folder)
    repository._store = store
    return repository, store


def hurt_schema(place: Place) -> None:
    place.mirror.schema.append(("table", "x", "x", "CREATE TABLE x(y); CREATE TABLE z(y)"))


@pytest.mark.parametrize("way", ["as fetched", "restored from"])
async def test_one_that_is_refused_is_passed_over_and_not_fetched_again(place: Place, way: str) -> None:
    repository, store = counted(place)
    names = await saved(place, repository, 1, 2)
    hurt_schema(place)
    names += await saved(place, repository, 3)
    for _ in range(3):
        fetched = await repository.fetch()
        assert fetched is not None
        assert fetched[0].name == names[1]
        assert "is refused: " in place.status.part("snapshots").reason
    assert store.asked.count(names[2]) == 1
    assert names[2] in repository.damaged, "a new one is due"
    (newest,) = [s for s in await repository.catalog.listed() if s.name == names[2]]
    with pytest.raises(SnapshotRefusedError, match=f"snapshot {names[2]} is refused"):
        await repository.fetch_one(newest, place.work / "copy.db")
    assert not (place.work / "copy.db").exists()


async def test_a_description_that_says_something_else_than_the_snapshot_is_refused(place: Place) -> None:
    repository, _ = counted(place)
    names = await saved(place, repository, 1, 2)
    honest = (await repository.candidates())[0]
    for changed in (
        {"positions": {0: 1}},
        {"resume": {0: 9}},
        {"created": {0: "now"}},
        {"history": "x"},
        {"size": honest.size - 1},
        {"size": honest.size + 1},
        {"bytes": honest.bytes - 1},
        {"sha256": "0" * 64},
    ):
        with pytest.raises(SnapshotDamagedError):
            await repository.fetch_one(msgspec.structs.replace(honest, **changed))
    assert list(place.work.iterdir()) == []
    path = next(place.folder.rglob(f"{names[0]}{DESCRIPTION}"))
    path.write_bytes(encode(honest))
    place.repository()
    assert [s.name for s in await place.repository().catalog.listed()] == [names[1]], (
        "that of another one counts for none"
    )


async def test_a_snapshot_that_unpacks_to_more_than_it_says_stops_there(tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(b"\0" * 50_000_000)
    digest = pack(tmp_path / "plain", tmp_path / "packed")
    steps: list[int] = []

    class Counting(Deadline):
        def check(self) -> None:
            steps.append(1)

    with pytest.raises(SnapshotRefusedError, match="more than the 1000 bytes"):
        unpack(tmp_path / "packed", tmp_path / "out", digest, 1000, Counting())
    assert len(steps) == 1, "no more was unpacked than one piece"
    assert not (tmp_path / "out").exists()


async def test_an_object_that_is_larger_than_it_may_be_is_not_kept(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path, owner="a")
    (tmp_path / "large").write_bytes(os.urandom(9_000_000))
    with pytest.raises(SnapshotRefusedError, match="larger than the 100 bytes"):
        await fetch(store, "large", tmp_path / "out", 100)
    assert not (tmp_path / "out").exists()
    await fetch(store, "large", tmp_path / "out", 9_000_000)
    assert (tmp_path / "out").stat().st_size == 9_000_000


def room(free: int) -> Callable[[object], object]:
    return lambda _: SimpleNamespace(f_bavail=free, f_frsize=1, f_blocks=100_000_000_000)


async def test_a_disk_keeps_its_last_room_and_a_smaller_snapshot_is_tried(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository, store = counted(place)
    names = await saved(place, repository, 1, 2)
    honest = (await repository.candidates())[0]
    newest = msgspec.structs.replace(honest, size=10**15)
    place.folder.joinpath(f"{names[1]}{DESCRIPTION}").write_bytes(encode(newest))
    pointer = await repository._pointers.pointer("newest")
    assert pointer is not None
    assert await repository._pointers.set_pointer("newest", encode(newest), revision=pointer[1])
    assert decode(encode(newest), "it").size == 10**15
    fetched = await repository.fetch()
    assert fetched is not None
    assert fetched[0].name == names[0]
    assert names[1] not in store.asked, "it is known not to fit before it is fetched"
    assert repository.damaged == set(), "nobody has to save a new one for it"
    monkeypatch.setattr("os.statvfs", room(archive.MARGIN_BYTES + 10))
    with pytest.raises(SnapshotRoomError, match="has no room for snapshot-"):
        await repository.fetch()
    assert "has no room" in place.status.part("snapshots").reason


async def test_the_room_is_looked_at_while_bytes_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = DirectoryStore(tmp_path, owner="a")
    (tmp_path / "plain").write_bytes(os.urandom(9_000_000))
    digest = pack(tmp_path / "plain", tmp_path / "packed")
    monkeypatch.setattr(archive, "CHECK_BYTES", 1 << 20)
    unpack_into = tmp_path / "out"
    monkeypatch.setattr("os.statvfs", room(archive.MARGIN_BYTES - 1))
    with pytest.raises(SnapshotRoomError):
        unpack(tmp_path / "packed", unpack_into, digest)
    with pytest.raises(SnapshotRoomError):
        await fetch(store, "packed", unpack_into, 10**9)
    assert not unpack_into.exists()
