"""Snapshots in a store: named when whole, found without a pointer, pruned, and passed over when they are damaged."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from harmonylite.changes.epochs import Lineage
from harmonylite.db.mirror.database_schema import SCHEMA
from harmonylite.db.mirror.mirror_file import make_mirror, prepare, set_positions
from harmonylite.db.mirror.positions import write_history
from harmonylite.db.snapshot import lineage_of
from harmonylite.db.sqlite.connection import open_file
from harmonylite.errors import ObjectMissingError, SnapshotDamagedError, SnapshotError
from harmonylite.jetstream.object_store import JetStreamObjects
from harmonylite.jetstream.settings import StreamSettings
from harmonylite.model import Position, StreamInfo
from harmonylite.nats.link import NatsLink
from harmonylite.snapshots.repository import TRIES, RepositorySettings, SnapshotRepository
from harmonylite.status import NodeStatus
from harmonylite.stores.directory import DirectoryStore


class Mirror:
    """The least mirror that there is: it holds nothing, and says at which position it is."""

    def __init__(self) -> None:
        self.lineage = Lineage("", {0: Position(0, 0, 1, "then")})
        self.schema: list[tuple[object, ...]] = []

    def at(self, seq: int) -> None:
        self.lineage = Lineage(self.lineage.history, {0: Position(0, seq, seq + 1, "then")})

    def copy(self, target: Path, *, beginning: Callable[[Lineage], Lineage] | None = None) -> Lineage:
        lineage = self.lineage if beginning is None else beginning(self.lineage)
        make_mirror(target, "UTF-8")
        connection = open_file(target)
        prepare(connection, "main")
        connection.execute(f"CREATE TABLE {SCHEMA}(type, name, tbl, sql)")
        connection.executemany(f"INSERT INTO {SCHEMA} VALUES (?, ?, ?, ?)", self.schema)
        write_history(connection, "main", lineage)
        set_positions(connection, "main", lineage.positions)
        connection.pragma("journal_mode", "delete")
        connection.close()
        return lineage


class Place:
    """A keeper over a directory, with its pointer on a real NATS."""

    def __init__(self, link: NatsLink, folder: Path) -> None:
        self.folder = folder / "store"
        self.work = folder / "work"
        self.mirror = Mirror()
        self.link = link
        self.status = NodeStatus()
        for each in (self.folder, self.work):
            each.mkdir()

    def repository(self, *, prefix: str = "c", keep: int = 3, node: str = "a") -> SnapshotRepository:
        pointers = JetStreamObjects(self.link, StreamSettings(stream_prefix=prefix))
        store = DirectoryStore(self.folder, owner=node)
        return SnapshotRepository(
            store, pointers, RepositorySettings(self.work, node, "c", keep), self.status, copy=self.mirror.copy
        )

    def files(self) -> list[str]:
        return sorted(path.name for path in self.folder.rglob("*") if path.is_file())

    def damage(self, name: str) -> None:
        path = next(path for path in self.folder.rglob(name))
        path.write_bytes(path.read_bytes()[:-5])


@pytest.fixture
def place(link: NatsLink, tmp_path: Path) -> Place:
    return Place(link, tmp_path)


async def saved(place: Place, repository: SnapshotRepository, *seqs: int) -> list[str]:
    names = []
    for seq in seqs:
        place.mirror.at(seq)
        snapshot = await repository.save()
        assert snapshot is not None
        names.append(snapshot.name)
    return names


async def test_the_newest_is_fetched_and_nothing_is_left_in_the_private_folder(place: Place) -> None:
    repository = place.repository()
    await saved(place, repository, 3, 5)
    fetched = await repository.fetch()
    assert fetched is not None
    assert fetched[0].positions == {0: 5}
    assert lineage_of(fetched[1]).positions[0].seq == 5
    assert list(place.work.iterdir()) == [fetched[1]]


async def test_old_ones_are_pruned_with_what_somebody_left_unfinished_and_strangers_stay(place: Place) -> None:
    repository = place.repository(keep=2)
    (place.folder / "snapshot-00000000000000000001-abcdef").write_bytes(b"half an upload of a killed node")
    (place.folder / "holiday.jpg").write_bytes(b"not ours")
    names = await saved(place, repository, 1, 2, 3, 4)
    wanted = [f"{name}{end}" for name in names[-2:] for end in ("", ".json")]
    assert place.files() == sorted([*wanted, "holiday.jpg"])
    assert [snapshot.name for snapshot in await repository.catalog.listed()] == names[:1:-1]


async def test_all_stay_when_none_is_to_be_removed(place: Place) -> None:
    await saved(place, place.repository(keep=0), 1, 2, 3, 4)
    assert len(await place.repository().catalog.listed()) == 4


async def test_without_a_pointer_the_store_itself_tells_the_newest(place: Place) -> None:
    names = await saved(place, place.repository(), 1, 2)
    forgetful = place.repository(prefix="nats-lost-everything")
    newest = await forgetful.newest()
    assert newest is not None
    assert newest.name == names[-1]
    assert await forgetful.save(first=True) is None, "the cluster has a beginning already"


async def test_a_damaged_newest_one_is_passed_over_for_an_older_and_a_new_one_is_due(place: Place) -> None:
    repository = place.repository()
    names = await saved(place, repository, 1, 2, 3)
    place.damage(names[2])
    fetched = await repository.fetch()
    assert fetched is not None
    assert fetched[0].name == names[1]
    assert repository.damaged == {names[2]}
    assert "an older one is tried" in place.status.part("snapshots").reason
    for name in names[:2]:
        place.damage(name)
    with pytest.raises(SnapshotDamagedError):
        await repository.fetch()


async def test_a_store_out_of_reach_says_nothing_against_the_newest_one(place: Place) -> None:
    repository = place.repository()
    names = await saved(place, repository, 1, 2)
    away = place.folder.with_name("away")
    place.folder.rename(away)
    for _ in range(5):
        with pytest.raises(SnapshotError) as caught:
            await repository.fetch()
        assert not isinstance(caught.value, SnapshotDamagedError | ObjectMissingError)
        with pytest.raises(SnapshotError):
            await repository.check((await repository.candidates())[0])
    assert repository.damaged == set()
    away.rename(place.folder)
    fetched = await repository.fetch()
    assert fetched is not None
    assert fetched[0].name == names[1], "it is asked for again, not an older one"
    assert place.status.part("snapshots").state == "ok"


async def test_one_that_can_not_be_read_while_others_can_is_passed_over_at_last(place: Place) -> None:
    repository = place.repository()
    names = await saved(place, repository, 1, 2)
    path = next(place.folder.rglob(names[1]))
    path.unlink()
    path.mkdir()  # reading it fails, and not because it is missing
    for _ in range(TRIES - 1):
        with pytest.raises(SnapshotError):
            await repository.fetch()
        assert repository.damaged == set()
    fetched = await repository.fetch()
    assert fetched is not None
    assert (fetched[0].name, repository.damaged) == (names[0], {names[1]})


async def test_a_store_that_was_just_configured_lacks_the_newest_one(place: Place) -> None:
    repository = place.repository()
    await saved(place, repository, 1, 2)
    newest = await repository.newest()
    assert newest is not None
    await repository.check(newest)
    assert repository.damaged == set()
    for path in list(place.folder.rglob("snapshot-*")):
        path.unlink()
    await repository.check(newest)
    assert repository.damaged == {newest.name}
    assert "is not in" in place.status.part("snapshots").reason
    place.mirror.at(4)
    await repository.save()
    assert repository.damaged == set()
    again = await repository.fetch()
    assert again is not None
    assert again[0].positions == {0: 4}


async def test_a_full_disk_leaves_the_newest_what_it_was(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = place.repository()
    names = await saved(place, repository, 1)

    def full(target: Path, *, beginning: object = None) -> Lineage:
        target.write_bytes(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(repository, "_copy", full)
    with pytest.raises(SnapshotError, match="No space left on device"):
        await repository.save()
    newest = await repository.newest()
    assert newest is not None
    assert newest.name == names[0]
    assert list(place.work.iterdir()) == [], "what was begun is removed"


async def test_a_slow_node_does_not_name_an_older_state_the_newest(place: Place) -> None:
    ahead, slow = place.repository(), place.repository(node="b")
    names = await saved(place, ahead, 9)
    place.mirror.at(4)
    assert await slow.save() is not None
    newest = await slow.newest()
    assert newest is not None
    assert newest.name == names[0]
    assert len([name for name in place.files() if name.endswith(".json")]) == 1


async def test_a_new_history_begins_once_and_only_where_no_snapshot_fits(place: Place) -> None:
    repository, other = place.repository(), place.repository(node="b")
    await saved(place, repository, 5)

    def beginning(now: Lineage) -> Lineage:
        return now.next_epoch("anew", {0: Position(0, 0, 1, "now")})

    then = [StreamInfo(0, 1, 7, "then")]
    assert await repository.begin(then, beginning) is None, "the snapshot fits these streams"
    now = [StreamInfo(0, 1, 0, "now")]
    begun = await repository.begin(now, beginning)
    assert begun is not None
    assert (begun.history, begun.positions) == ("anew", {0: 0})
    assert await other.begin(now, beginning) is None
    newest = await other.newest()
    assert newest is not None
    assert newest.name == begun.name
    place.mirror.at(6)
    with pytest.raises(SnapshotError, match="new epoch"):
        await other.save()


async def test_snapshots_of_another_cluster_in_the_same_store_are_left_alone(place: Place) -> None:
    await saved(place, place.repository(), 1)
    pointers = JetStreamObjects(place.link, StreamSettings(stream_prefix="other"))
    store = DirectoryStore(place.folder, owner="x")
    stranger = SnapshotRepository(
        store, pointers, RepositorySettings(place.work, "x", "other", 1), place.status, copy=place.mirror.copy
    )
    assert await stranger.newest() is None
    await saved(place, stranger, 1, 2, 3)
    assert len(await place.repository().catalog.listed()) == 1


async def test_a_mirror_in_an_failover_never_becomes_a_snapshot(place: Place) -> None:
    repository = place.repository()
    (name,) = await saved(place, repository, 5)
    failover = place.mirror.lineage.next_epoch("interim-m", {0: Position(0, 7, 8, "then~m")})
    place.mirror.lineage = failover
    with pytest.raises(SnapshotError, match="region failed over"):
        await repository.save()
    newest = await repository.newest()
    assert newest is not None
    assert newest.name == name
    assert place.files() == [name, f"{name}.json"]


async def test_of_several_first_snapshots_at_once_one_is_the_beginning_and_nobody_ever_finds_another(
    place: Place,
) -> None:
    """Each of them is whole in the store before the pointer names one: what the store lists may be about to go."""
    keepers = [place.repository(node=name) for name in "abcd"]
    joining = place.repository(node="joining")
    seen: set[str] = set()
    saving = asyncio.gather(*(repository.save(first=True) for repository in keepers))
    while not saving.done():
        seen |= {snapshot.name for snapshot in await joining.candidates()}
        await asyncio.sleep(0)
    begun = [snapshot for snapshot in await saving if snapshot is not None]
    assert len(begun) == 1
    assert seen <= {begun[0].name}
    assert [snapshot.name for snapshot in await joining.candidates()] == [begun[0].name]
    assert place.files() == [begun[0].name, f"{begun[0].name}.json"], "the others are gone"


async def test_one_that_was_never_named_is_not_found_also_where_nats_lost_its_pointers(place: Place) -> None:
    repository = place.repository()
    await repository._upload(None)
    for finder in (repository, place.repository(prefix="nats-lost-everything")):
        assert await finder.newest() is None
        assert await finder.candidates() == []
        assert await finder.fetch() is None
    (name,) = await saved(place, repository, 1)
    found = await place.repository(prefix="nats-lost-everything").candidates()
    assert [snapshot.name for snapshot in found] == [name]


async def test_one_of_an_earlier_version_says_not_whether_it_was_named_and_counts(place: Place) -> None:
    (name,) = await saved(place, place.repository(), 1)
    path = place.folder / f"{name}.json"
    said = msgspec.json.decode(path.read_bytes())
    del said["named"]
    path.write_bytes(msgspec.json.encode(said))
    newest = await place.repository(prefix="nats-lost-everything").newest()
    assert newest is not None
    assert newest.name == name


async def test_what_is_about_to_be_named_is_not_pruned_by_whoever_is_faster(place: Place) -> None:
    """Of many that save at once, each prunes what its own pointer let go of; the pointer names what is there."""
    keepers = [place.repository(node=name, keep=1) for name in "abcdef"]
    for _ in range(4):
        await asyncio.gather(*(repository.save() for repository in keepers))
        newest = await keepers[0].newest()
        assert newest is not None
        assert {newest.name, *newest.older} <= set(place.files())


async def test_an_upload_that_was_never_named_is_pruned_once_it_is_old(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = place.repository(keep=2)
    left, _ = await repository._upload(None)
    names = await saved(place, repository, 1, 2, 3)
    assert left.name in place.files(), "anyone who uploaded it may be about to name it"
    monkeypatch.setattr("harmonylite.snapshots.catalog.LEFT_OVER", -3600.0)
    names += await saved(place, repository, 4)
    assert place.files() == sorted(f"{name}{end}" for name in names[-2:] for end in ("", ".json"))
