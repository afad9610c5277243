"""Objects and pointers on a real server: whole or not at all, checked, and readable by NATS's own client."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from threading import Event
from typing import Any

import nats as nats_py
import pytest

from harmonylite.errors import ObjectMissingError, SnapshotDamagedError, SnapshotError, StreamError
from harmonylite.jetstream.object_store import JetStreamObjects
from harmonylite.jetstream.pull_consumer import PullConsumer
from harmonylite.jetstream.settings import StreamSettings
from harmonylite.nats.link import NatsLink
from tests.parts.fix_nats import RealNats, frozen

MB = 1024 * 1024


@pytest.fixture
def objects(link: NatsLink) -> JetStreamObjects:
    return JetStreamObjects(link, StreamSettings())


def file(folder: Path, name: str, size: int) -> Path:
    path = folder / name
    path.write_bytes(os.urandom(size))
    return path


async def subjects(link: NatsLink, objects: JetStreamObjects, pattern: str) -> dict[str, int]:
    body = json.dumps({"subjects_filter": f"$O.{objects.bucket}.{pattern}"}).encode()
    message = await link.now().request(f"$JS.API.STREAM.INFO.OBJ_{objects.bucket}", body, seconds=5)
    found: dict[str, int] = json.loads(message.data)["state"].get("subjects") or {}
    return found


@pytest.mark.parametrize("size", [0, 1, 512 * 1024, 512 * 1024 + 1, 50 * MB])
async def test_what_is_stored_comes_back_bit_for_bit(objects: JetStreamObjects, tmp_path: Path, size: int) -> None:
    source = file(tmp_path, "source", size)
    await objects.put("snapshot/1 ä", source)
    await objects.get("snapshot/1 ä", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == source.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["copy", "source"]


async def test_names_are_listed_sorted_and_deleted_ones_are_gone(objects: JetStreamObjects, tmp_path: Path) -> None:
    assert await objects.names() == []
    source = file(tmp_path, "source", 10)
    for name in ("b", "a", "c d"):
        await objects.put(name, source)
    await objects.delete("b")
    await objects.delete("never there")
    assert await objects.names() == ["a", "c d"]
    with pytest.raises(SnapshotError, match="not in"):
        await objects.get("b", tmp_path / "copy")


async def test_storing_a_name_again_replaces_it_and_drops_the_old_chunks(
    link: NatsLink, objects: JetStreamObjects, tmp_path: Path
) -> None:
    await objects.put("x", file(tmp_path, "one", MB))
    await objects.put("x", file(tmp_path, "two", 2 * MB))
    await objects.get("x", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == (tmp_path / "two").read_bytes()
    assert list((await subjects(link, objects, "C.>")).values()) == [4]
    await objects.delete("x")
    assert await subjects(link, objects, ">") == {}


async def test_nats_own_client_reads_our_objects_and_we_read_its(
    nats: RealNats, objects: JetStreamObjects, tmp_path: Path
) -> None:
    source = file(tmp_path, "source", 700_000)
    await objects.put("ours", source)
    client = await nats_py.connect(nats.url)
    try:
        store = await client.jetstream().object_store(objects.bucket)
        assert (await store.get("ours")).data == source.read_bytes()
        await store.put("theirs", b"hello" * 100_000)
        await objects.get("theirs", tmp_path / "copy")
        assert (tmp_path / "copy").read_bytes() == b"hello" * 100_000
        await store.delete("theirs")
        assert await objects.names() == ["ours"]
    finally:
        await client.close()


async def test_an_altered_chunk_is_refused_and_the_target_stays_as_it_was(
    link: NatsLink, objects: JetStreamObjects, tmp_path: Path
) -> None:
    await objects.put("x", file(tmp_path, "source", 100_000))
    (chunk,) = await subjects(link, objects, "C.>")
    stream = f"OBJ_{objects.bucket}"
    await link.now().request(f"$JS.API.STREAM.PURGE.{stream}", json.dumps({"filter": chunk}).encode(), seconds=5)
    await link.now().request(chunk, os.urandom(100_000), seconds=5)
    target = tmp_path / "copy"
    target.write_text("as it was")
    with pytest.raises(SnapshotError, match="damaged"):
        await objects.get("x", target)
    assert target.read_text() == "as it was"
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["copy", "source"]


@pytest.fixture
def never_stalls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing end a get but what the server says."""
    monkeypatch.setattr("harmonylite.jetstream.object_store.STALLED_SECONDS", 1e6)


@pytest.mark.usefixtures("never_stalls")
async def test_an_object_without_its_chunks_is_refused_and_does_not_hang(
    link: NatsLink, objects: JetStreamObjects, tmp_path: Path
) -> None:
    await objects.put("x", file(tmp_path, "source", 2 * MB))
    (chunk,) = await subjects(link, objects, "C.>")
    body = json.dumps({"filter": chunk, "keep": 1}).encode()
    await link.now().request(f"$JS.API.STREAM.PURGE.OBJ_{objects.bucket}", body, seconds=5)
    with pytest.raises(SnapshotDamagedError, match="1 of 4 chunks"):
        await objects.get("x", tmp_path / "copy")


@pytest.mark.usefixtures("never_stalls")
@pytest.mark.parametrize("noticed", ["when the consumer is made", "while nothing comes"])
async def test_an_object_that_goes_while_it_is_read_is_known_to_be_gone_at_once(
    objects: JetStreamObjects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, noticed: str
) -> None:
    opened = PullConsumer.open

    async def late(pull: PullConsumer) -> None:
        await objects.delete("x")
        await opened(pull)
        if noticed == "while nothing comes":
            pull.pending = 1 << 20

    monkeypatch.setattr(PullConsumer, "open", late)
    await objects.put("x", file(tmp_path, "source", 2 * MB))
    with pytest.raises(ObjectMissingError, match="was removed from the NATS object store"):
        await objects.get("x", tmp_path / "copy")
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["source"]


@frozen
async def test_a_put_that_fails_leaves_no_object(
    nats: RealNats, link: NatsLink, objects: JetStreamObjects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await objects.put("kept", file(tmp_path, "small", 10))
    really, published = objects._bucket.publish, 0

    async def publish(*what: Any, **how: Any) -> int:
        nonlocal published
        published += 1
        if published == 3:
            await nats.freeze()
        return await really(*what, **how)

    with monkeypatch.context() as patch:
        patch.setattr(objects._bucket, "publish", publish)
        with pytest.raises(SnapshotError):
            await objects.put("x", file(tmp_path, "large", 40 * MB))
    nats.thaw()
    await link.connection()
    assert await objects.names() == ["kept"]


async def test_a_missing_file_is_said_and_nothing_is_stored(objects: JetStreamObjects, tmp_path: Path) -> None:
    with pytest.raises(SnapshotError, match="absent"):
        await objects.put("x", tmp_path / "absent")
    assert await objects.names() == []


async def test_without_a_connection_it_fails_at_once(nats: RealNats, objects: JetStreamObjects, tmp_path: Path) -> None:
    await nats.kill()
    with pytest.raises(SnapshotError):
        await objects.put("x", file(tmp_path, "source", 10))
    with pytest.raises(SnapshotError):
        await objects.get("x", tmp_path / "copy")
    with pytest.raises(StreamError):
        await objects.pointer("x")


async def test_a_pointer_is_set_by_whoever_knows_its_revision(objects: JetStreamObjects) -> None:
    assert await objects.pointer("latest") is None
    assert await objects.set_pointer("latest", b"one", revision=0)
    assert not await objects.set_pointer("latest", b"two", revision=0)
    found = await objects.pointer("latest")
    assert found is not None
    assert found[0] == b"one"
    assert await objects.set_pointer("latest", b"two", revision=found[1])
    assert not await objects.set_pointer("latest", b"three", revision=found[1])
    assert (await objects.pointer("latest") or (b"", 0))[0] == b"two"


async def test_of_many_that_set_a_pointer_at_once_one_succeeds(objects: JetStreamObjects) -> None:
    for round_number in range(3):
        revision = (await objects.pointer("leader") or (b"", 0))[1]
        sets = (objects.set_pointer("leader", f"{round_number}/{i}".encode(), revision=revision) for i in range(8))
        assert sorted(await asyncio.gather(*sets)) == [False] * 7 + [True]


async def test_a_pointer_may_be_empty_and_may_have_any_name(objects: JetStreamObjects) -> None:
    assert await objects.set_pointer("a b.c*>", b"", revision=0)
    found = await objects.pointer("a b.c*>")
    assert found is not None
    assert found[0] == b""


async def test_a_pointer_deleted_with_natss_own_client_can_be_set_again(
    nats: RealNats, objects: JetStreamObjects
) -> None:
    assert await objects.set_pointer("x", b"one", revision=0)
    client = await nats_py.connect(nats.url)
    try:
        store = await client.jetstream().key_value(StreamSettings().stream_prefix + "-pointers")
        assert (await store.get("x")).value == b"one"
        await store.delete("x")
    finally:
        await client.close()
    assert await objects.pointer("x") is None
    assert await objects.set_pointer("x", b"two", revision=0)


async def test_two_clusters_do_not_see_each_others_objects(link: NatsLink, tmp_path: Path) -> None:
    one = JetStreamObjects(link, StreamSettings(stream_prefix="one"))
    two = JetStreamObjects(link, StreamSettings(stream_prefix="two"))
    await one.put("x", file(tmp_path, "source", 10))
    await one.set_pointer("p", b"1", revision=0)
    assert await two.names() == []
    assert await two.pointer("p") is None


async def test_a_put_that_is_cancelled_while_its_file_is_being_opened_leaves_no_file_open(
    objects: JetStreamObjects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = file(tmp_path, "source", 10)
    begun, go_on, opened = Event(), Event(), []
    really = Path.open

    def slowly(path: Path, mode: str) -> Any:
        begun.set()
        assert go_on.wait(60)
        opened.append(really(path, mode))
        return opened[-1]

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", slowly)
        putting = asyncio.create_task(objects.put("cut", source))
        assert await asyncio.to_thread(begun.wait, 60)
        putting.cancel()
        await asyncio.sleep(0)
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await putting
    assert [handle.closed for handle in opened] == [True]
    assert await objects.names() == []


async def test_a_put_that_is_cancelled_again_while_it_gives_up_leaves_no_file_open(
    objects: JetStreamObjects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, opened, really = file(tmp_path, "source", 10), [], Path.open
    publishing, giving_up = asyncio.Event(), asyncio.Event()

    def opening(path: Path, mode: str) -> Any:
        opened.append(really(path, mode))
        return opened[-1]

    async def publish(*_: object) -> int:
        publishing.set()
        try:
            await asyncio.Event().wait()
        finally:
            giving_up.set()
            await asyncio.Event().wait()
        raise AssertionError("not reached")

    await objects.names()  # the bucket is there
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", opening)
        patch.setattr(objects._bucket, "publish", publish)
        putting = asyncio.create_task(objects.put("cut", source))
        for reached in (publishing, giving_up):
            await asyncio.wait_for(reached.wait(), 60)
            putting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(putting, 60)
    assert [handle.closed for handle in opened] == [True]
