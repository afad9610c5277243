"""What every store must do, run against every store on a real server."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Coroutine
from pathlib import Path

import pytest

from harmonylite.errors import ObjectMissingError, SnapshotError
from harmonylite.ports import Progress
from harmonylite.stores.blocking_call import BlockingCall
from tests.parts.stores.fix_stores import MB, Place
from tests.parts.stores.line import Line

pytestmark = pytest.mark.timeout(300)

MOST_MEMORY = 56 * MB
"""Bytes that a put or get of 64 MB may take: S3 has four parts of 8 MB in hand, everybody else less."""

ODD = ["snapshot-1", "a/b", "..", ".hidden.part", "per%20cent", "a=2Fb", "ä 日本", "q?x=1&y#z", "new\nline", "'*\\"]


def file(folder: Path, name: str, size: int) -> Path:
    """Make a file of random bytes."""
    path = folder / name
    path.write_bytes(os.urandom(size))
    return path


def same(one: Path, two: Path) -> bool:
    """Return whether two files are equal."""
    return one.read_bytes() == two.read_bytes()


async def cancelled(move: Callable[[str, Path, Progress], Coroutine[None, None, None]], name: str, path: Path) -> bool:
    """Cancel a put or get once a MB is carried; return whether it ended by that.

    A thread that carries waits there until it hears of it: on a busy machine it would be through before that.
    """
    moved = BlockingCall.moved

    def held(call: BlockingCall, count: int, total: int) -> None:
        moved(call, count, total)
        if call._done > MB:
            assert call._given_up.wait(60)

    def progress(done: int, _total: int) -> None:
        if done > MB:
            running.cancel()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BlockingCall, "moved", held)
        running = asyncio.create_task(move(name, path, progress))
        await asyncio.wait({running}, timeout=60)
    return running.cancelled()


@pytest.mark.parametrize("size", [0, 1, 5 * MB + 1])
async def test_what_is_stored_comes_back_bit_for_bit(place: Place, tmp_path: Path, size: int) -> None:
    store, source, told = await place.make(), file(tmp_path, "source", size), list[tuple[int, int]]()
    await store.put("x", source, lambda done, total: told.append((done, total)))
    assert told == sorted(told)
    assert size == 0 or told[-1] == (size, size)
    told.clear()
    await store.get("x", tmp_path / "copy", lambda done, total: told.append((done, total)))
    assert same(source, tmp_path / "copy")
    assert told == sorted(told)
    assert size == 0 or told[-1] == (size, size)
    assert {path.name for path in tmp_path.iterdir() if path.is_file()} == {"copy", "source"}


async def test_a_large_object_takes_little_memory(place: Place, large: Path, tmp_path: Path) -> None:
    store = await place.make()
    for move, path in ((store.put, large), (store.get, tmp_path / "copy")):
        Path("/proc/self/clear_refs").write_text("5")
        before = memory("VmRSS")
        await move("large", path)
        assert memory("VmHWM") - before < MOST_MEMORY
    assert same(large, tmp_path / "copy")
    (tmp_path / "copy").unlink()
    await store.delete("large")


def memory(what: str) -> int:
    """Return bytes of this process's memory: VmRSS now, VmHWM the most since clear_refs."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{what}:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(what)


async def test_names_may_be_odd_and_are_listed_sorted(place: Place, tmp_path: Path) -> None:
    store = await place.make()
    assert await store.names() == []
    for number, name in enumerate(ODD):
        await store.put(name, file(tmp_path, "source", number))
    assert await store.names() == sorted(ODD)
    for number, name in enumerate(ODD):
        await store.get(name, tmp_path / "copy")
        assert (tmp_path / "copy").stat().st_size == number
    for name in ODD[1:]:
        await store.delete(name)
    await store.delete("never there")
    assert await store.names() == [ODD[0]]


async def test_storing_a_name_again_replaces_it(place: Place, tmp_path: Path) -> None:
    store = await place.make()
    await store.put("x", file(tmp_path, "one", MB))
    await store.put("x", two := file(tmp_path, "two", 2 * MB))
    await store.put("x", one := file(tmp_path, "three", 10))
    await store.get("x", tmp_path / "copy")
    assert same(one, tmp_path / "copy")
    assert not same(two, tmp_path / "copy")
    assert await store.names() == ["x"]


async def test_a_missing_object_is_told_from_a_store_out_of_reach(place: Place, tmp_path: Path) -> None:
    store = await place.make()
    target = tmp_path / "copy"
    target.write_text("as it was")
    for _ in range(2):
        with pytest.raises(ObjectMissingError, match="'none/there'"):
            await store.get("none/there", target)
        await store.put("other", file(tmp_path, "source", 1))
    assert target.read_text() == "as it was"


async def test_two_writers_of_one_name_leave_one_of_theirs_whole(place: Place, tmp_path: Path) -> None:
    stores = [await place.make(owner=owner) for owner in ("one", "two")]
    sources = [file(tmp_path, str(number), 6 * MB + number) for number in range(2)]
    puts = [store.put("x", source) for store, source in zip(stores, sources, strict=True)]
    await asyncio.gather(*puts, stores[0].put("y", sources[0]), stores[1].put("z", sources[1]))
    await stores[0].get("x", tmp_path / "copy")
    assert any(same(source, tmp_path / "copy") for source in sources)
    assert await stores[1].names() == ["x", "y", "z"]
    assert len(place.lies_there()) in (0, 3)


async def test_a_put_that_is_cancelled_in_the_middle_leaves_nothing(place: Place, medium: Path, tmp_path: Path) -> None:
    store = await place.make()
    await store.put("x", before := file(tmp_path, "before", 10))
    assert await cancelled(store.put, "x", medium)
    assert await cancelled(store.put, "y", medium)
    assert await store.names() == ["x"]
    await store.get("x", tmp_path / "copy")
    assert same(before, tmp_path / "copy")
    end = time.monotonic() + 60
    while len(place.lies_there()) > 1:
        assert time.monotonic() < end, place.lies_there()
        await asyncio.sleep(0.01)
    await store.put("y", before)
    assert await store.names() == ["x", "y"]


async def test_a_get_that_is_cancelled_in_the_middle_leaves_the_target(
    place: Place, medium: Path, tmp_path: Path
) -> None:
    store, target = await place.make(), tmp_path / "copy"
    await store.put("x", medium)
    target.write_text("as it was")
    assert await cancelled(store.get, "x", target)
    end = time.monotonic() + 60
    while {path.name for path in tmp_path.iterdir() if path.is_file()} != {"copy"}:
        assert time.monotonic() < end
        await asyncio.sleep(0.01)
    assert target.read_text() == "as it was"


async def test_a_source_or_target_that_can_not_be_is_said(place: Place, tmp_path: Path) -> None:
    store = await place.make()
    with pytest.raises(SnapshotError, match="absent"):
        await store.put("x", tmp_path / "absent")
    assert await store.names() == []
    await store.put("x", file(tmp_path, "source", 10))
    with pytest.raises(SnapshotError, match="nowhere"):
        await store.get("x", tmp_path / "nowhere" / "copy")


async def test_a_put_over_a_line_that_breaks_leaves_nothing_and_works_again(
    remote: Place, medium: Path, tmp_path: Path
) -> None:
    async with Line(remote.port) as line:
        store = await remote.make(port=line.port)
        await store.put("x", before := file(tmp_path, "before", 10))
        line.heal()
        line.breaks_after = 10 * MB
        with pytest.raises(SnapshotError, match="'x'"):
            await store.put("x", medium)
        assert line.broken
        with pytest.raises(SnapshotError):
            await store.names()
        line.heal()
        assert await store.names() == ["x"]
        await store.get("x", tmp_path / "copy")
        assert same(before, tmp_path / "copy")
        await store.put("y", before)
        assert len(remote.lies_there()) in (0, 2), "the next put removes what the broken one left"


async def test_a_get_over_a_line_that_breaks_leaves_the_target(remote: Place, medium: Path, tmp_path: Path) -> None:
    target = tmp_path / "copy"
    target.write_text("as it was")
    async with Line(remote.port) as line:
        store = await remote.make(port=line.port)
        await store.put("x", medium)
        line.heal()
        line.breaks_after = 10 * MB
        with pytest.raises(SnapshotError, match="'x'"):
            await store.get("x", target)
        assert line.broken
        assert target.read_text() == "as it was"
        line.heal()
        await store.get("x", target)
        assert same(medium, target)


async def test_a_line_that_falls_silent_is_given_up(
    remote: Place, large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Line(remote.port) as line:
        store = await remote.make(port=line.port)
        line.sticks_after = 4 * MB
        with monkeypatch.context() as impatient:
            impatient.setattr("harmonylite.stores.blocking_call.STALLED_SECONDS", 2.0)
            impatient.setattr("harmonylite.stores.sftp.CLEANUP_SECONDS", 0.5)
            with pytest.raises(SnapshotError, match="nothing has moved for 2 s"):
                await store.put("x", large)
        line.heal()
        assert await store.names() == []


async def test_an_object_that_was_cut_short_behind_our_back_is_no_error_of_the_store(
    reached: Place, tmp_path: Path
) -> None:
    """Only the keeper's digest tells: a store gives what it has."""
    store = await reached.make()
    await store.put("x", file(tmp_path, "source", 5 * MB))
    os.truncate(reached.on_disk("x"), 3 * MB)
    await store.get("x", tmp_path / "copy")
    assert (tmp_path / "copy").stat().st_size == 3 * MB
