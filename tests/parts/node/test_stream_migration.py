"""Moving a cluster's streams to another NATS: all of them or none, and nothing that would not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harmonylite.config import Settings, load
from harmonylite.errors import ConfigError, HarmonyLiteError, NotAcknowledgedError, StreamError, StreamLostError
from harmonylite.jetstream.api import JetStream
from harmonylite.jetstream.backup import MovedError
from harmonylite.jetstream.settings import StreamSettings
from harmonylite.jetstream.shard import JetStreamShard
from harmonylite.jetstream.stream import SECONDS, Stream
from harmonylite.jetstream.streams import ensure_streams
from harmonylite.nats.link import NatsLink
from harmonylite.nats.names import stream_name
from harmonylite.node.stream_migration import check_versions, move, release_all
from tests.cluster.servers import older_server
from tests.parts.fix_nats import NatsFactory, quick

STREAMS = StreamSettings(shards=2, max_entries=0)


def configured(folder: Path, name: str, nats: str, log: str = "shards = 2") -> Settings:
    """Return a configuration with this ``[nats]`` section."""
    path = folder / f"{name}.toml"
    path.write_text(f'db_path = "{folder}/app.db"\nnode_id = "n"\n[nats]\n{nats}\n[replication_log]\n{log}\n')
    return load(path)


async def test_all_streams_arrive_and_the_old_ones_say_where_they_went(tmp_path: Path, new_nats: NatsFactory) -> None:
    one, two = await new_nats(), await new_nats()
    old = configured(tmp_path, "old", f'urls = ["{one.url}"]')
    new = configured(tmp_path, "new", f'urls = ["{two.url}"]')
    said: list[str] = []
    async with NatsLink(quick(one.url)) as here, NatsLink(quick(two.url)) as there:
        await ensure_streams(here, STREAMS)
        for shard in range(2):
            await JetStreamShard(here, STREAMS, shard, "n").publish(b"x", message_id="1")
        assert [done.last for done in await move(old, new, said.append)] == [1, 1]
        assert "take nothing any more" in said[0]
        for shard in range(2):
            assert (await JetStreamShard(there, STREAMS, shard, "n").info()).messages == 1
        with pytest.raises(MovedError, match=two.url.removeprefix("nats://")):
            await _look(here)
        assert len(await release_all(old)) == 2
        assert await release_all(old) == []


async def test_a_move_over_a_slow_line_waits_for_the_answers(
    tmp_path: Path, new_nats: NatsFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No question of the move gets its answer within the time that a node's own questions have."""
    one, two = await new_nats(), await new_nats()
    old = configured(tmp_path, "old", f'urls = ["{one.url}"]')
    new = configured(tmp_path, "new", f'urls = ["{two.url}"]')
    async with NatsLink(quick(one.url)) as here:
        await ensure_streams(here, STREAMS)
        await JetStreamShard(here, STREAMS, 0, "n").publish(b"x", message_id="1")
    call = JetStream.call

    async def late(self: JetStream, verb: str, *given: Any, seconds: float = 5.0, **more: Any) -> dict[str, Any]:
        if seconds <= 2 * SECONDS and not verb.startswith(("STREAM.DELETE", "STREAM.RESTORE")):
            raise NotAcknowledgedError(f"no answer on {verb} within {seconds:g} s")
        return await call(self, verb, *given, seconds=seconds, **more)

    monkeypatch.setattr(JetStream, "call", late)
    assert [done.last for done in await move(old, new, lambda _: None)] == [1, 0]
    assert len(await release_all(old)) == 2


async def _look(link: NatsLink) -> None:
    from harmonylite.jetstream.backup import check_not_sealed

    details = await Stream(JetStream(link), stream_name(STREAMS.stream_prefix, 0), 0).details()
    check_not_sealed("s", details.config)


async def test_a_move_that_fails_in_the_middle_leaves_both_places_as_they_were(
    tmp_path: Path, new_nats: NatsFactory
) -> None:
    one, two = await new_nats(), await new_nats()
    old = configured(tmp_path, "old", f'urls = ["{one.url}"]')
    new = configured(tmp_path, "new", f'urls = ["{two.url}"]')
    async with NatsLink(quick(one.url)) as here, NatsLink(quick(two.url)) as there:
        await ensure_streams(here, STREAMS)
        stranger = {"name": stream_name(STREAMS.stream_prefix, 1), "subjects": ["theirs"], "storage": "file"}
        await JetStream(there).call(f"STREAM.CREATE.{stranger['name']}", stranger)
        with pytest.raises(StreamError, match="exists at the target"):
            await move(old, new, lambda _: None)
        with pytest.raises(StreamLostError):
            await JetStreamShard(there, STREAMS, 0, "n").info()
        assert (await JetStreamShard(there, STREAMS, 1, "n").info()).messages == 0
        for shard in range(2):
            await JetStreamShard(here, STREAMS, shard, "n").publish(b"x", message_id="1", expected_last=0)


@pytest.mark.parametrize(
    ("source", "target", "refused"),
    [
        ("2.15.1", "2.14.6", True),
        ("2.15.0", "2.12.8", True),
        ("2.16.0", "2.10.26", True),
        ("3.0.0", "2.14.9", True),
        ("2.15.1", "2.15.0", False),
        ("2.14.6", "2.12.8", False),
        ("2.12.8", "2.15.1", False),
        ("", "2.12.8", False),
        ("2.15.1", "custom", False),
    ],
)
def test_what_the_target_can_not_read_is_refused_with_both_versions(source: str, target: str, refused: bool) -> None:
    if not refused:
        return check_versions(source, target)
    with pytest.raises(StreamError, match=f"{source}.*{target}") as caught:
        check_versions(source, target)
    assert "upgrade" in caught.value.advice
    return None


async def test_a_move_to_an_older_server_is_refused_before_anything_is_held(
    tmp_path: Path, new_nats: NatsFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = await new_nats()
    monkeypatch.setattr("tests.parts.fix_nats.find_server", older_server)
    two = await new_nats()
    old = configured(tmp_path, "old", f'urls = ["{one.url}"]')
    new = configured(tmp_path, "new", f'urls = ["{two.url}"]')
    async with NatsLink(quick(one.url)) as here:
        await ensure_streams(here, STREAMS)
        said: list[str] = []
        with pytest.raises(StreamError, match=r"2\.1\d\.\d+, whose backups nats-server 2\.1\d\.\d+ can't read"):
            await move(old, new, said.append)
        assert said == []
        await JetStreamShard(here, STREAMS, 0, "n").publish(b"taken", message_id="1", expected_last=0)


async def test_where_nothing_is_there_is_nothing_to_move(tmp_path: Path, new_nats: NatsFactory) -> None:
    one, two = await new_nats(), await new_nats()
    with pytest.raises(StreamError, match="no streams to move"):
        await move(
            configured(tmp_path, "old", f'urls = ["{one.url}"]'),
            configured(tmp_path, "new", f'urls = ["{two.url}"]'),
            lambda _: None,
        )


@pytest.mark.parametrize(
    ("nats", "log", "told"),
    [
        ('urls = ["nats://b:1"]\nsubject_prefix = "x"', "shards = 2", "nats.subject_prefix is"),
        ('urls = ["nats://b:1"]\nstream_prefix = "x"', "shards = 2", "nats.stream_prefix is"),
        ('urls = ["nats://b:1"]', "shards = 3", "number of shards is fixed"),
        ('urls = ["nats://a:1"]', "shards = 2", "both configurations name a:1"),
    ],
)
async def test_configurations_that_do_not_fit_are_refused_before_anything_is_touched(
    tmp_path: Path, nats: str, log: str, told: str
) -> None:
    old = configured(tmp_path, "old", 'urls = ["nats://a:1"]')
    with pytest.raises(ConfigError, match=told):
        await move(old, configured(tmp_path, "new", nats, log), lambda _: None)


async def test_a_place_that_can_not_be_reached_is_named(tmp_path: Path, new_nats: NatsFactory) -> None:
    one = await new_nats()
    old = configured(tmp_path, "old", f'urls = ["{one.url}"]')
    new = configured(tmp_path, "new", 'urls = ["nats://127.0.0.1:1"]\nreconnect_wait_seconds = 0.01')
    with pytest.raises(HarmonyLiteError, match=r"not accepting connections at 127\.0\.0\.1:1"):
        await move(old, new, lambda _: None)
