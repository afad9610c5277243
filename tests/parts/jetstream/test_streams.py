"""Streams are made as configured, found again, and never changed behind anybody's back."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest

from harmonylite.errors import ConfigError, WrongLastSequenceError
from harmonylite.jetstream.settings import StreamSettings
from harmonylite.jetstream.shard import JetStreamShard
from harmonylite.jetstream.streams import ensure_streams
from harmonylite.nats.link import NatsLink
from harmonylite.status import Part
from tests.parts.fix_nats import RealNats, eventually, frozen

SETTINGS = StreamSettings(shards=2, max_entries=50)


async def config(link: NatsLink, name: str) -> dict[str, Any]:
    message = await link.now().request(f"$JS.API.STREAM.INFO.{name}", seconds=30)
    found: dict[str, Any] = json.loads(message.data)["config"]
    return found


async def test_missing_streams_are_made_as_configured(link: NatsLink) -> None:
    part = Part("streams")
    assert await ensure_streams(link, SETTINGS, part) == []
    made = await config(link, "harmonylite-changes-1")
    assert made["subjects"] == ["harmonylite-change-log.1.*"]
    assert (made["storage"], made["max_msgs"], made["num_replicas"]) == ("file", 50, 1)
    assert (made["discard"], made["retention"]) == ("old", "limits")
    assert part.state == "ok"


async def test_finding_them_again_changes_nothing_and_says_nothing(link: NatsLink) -> None:
    await ensure_streams(link, SETTINGS)
    before = await config(link, "harmonylite-changes-0")
    assert await ensure_streams(link, SETTINGS) == []
    assert await config(link, "harmonylite-changes-0") == before


async def test_nodes_that_start_together_share_the_streams(link: NatsLink, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    answers = await asyncio.gather(*(ensure_streams(link, SETTINGS) for _ in range(5)))
    assert answers == [[]] * 5
    made = caplog.text.count("created stream harmonylite-changes-0")
    assert made == 1, "a server that makes one stream twice may name either time of creation afterwards"


async def test_a_stream_that_is_made_again_has_another_identity(link: NatsLink) -> None:
    shard = JetStreamShard(link, SETTINGS, 0, "n")
    identities = set()
    for _ in range(2):
        await ensure_streams(link, SETTINGS)
        identities.add((await shard.info()).created)
        await link.now().request("$JS.API.STREAM.DELETE.harmonylite-changes-0", seconds=30)
    assert len(identities) == 2


async def test_other_settings_of_an_existing_stream_are_reported_and_left(link: NatsLink) -> None:
    await ensure_streams(link, SETTINGS)
    warnings = await ensure_streams(link, replace(SETTINGS, max_entries=70))
    assert len(warnings) == 2
    assert "max_msgs = 50, configured is 70" in warnings[0]
    assert "update_existing" in warnings[0]
    assert (await config(link, "harmonylite-changes-0"))["max_msgs"] == 50


async def test_other_settings_are_taken_over_with_update_existing(link: NatsLink) -> None:
    await ensure_streams(link, SETTINGS)
    shard = JetStreamShard(link, SETTINGS, 0, "n")
    await shard.publish(b"", message_id="1")
    created = (await shard.info()).created
    assert await ensure_streams(link, replace(SETTINGS, max_entries=70, update_existing=True)) == []
    assert (await config(link, "harmonylite-changes-0"))["max_msgs"] == 70
    info = await shard.info()
    assert (info.created, info.messages) == (created, 1)


async def test_two_clusters_live_side_by_side_through_their_prefixes(link: NatsLink) -> None:
    other = StreamSettings(subject_prefix="other.log", stream_prefix="other")
    await ensure_streams(link, SETTINGS)
    await ensure_streams(link, other)
    await JetStreamShard(link, SETTINGS, 0, "n").publish(b"", message_id="1", expected_last=0)
    theirs = JetStreamShard(link, other, 0, "n")
    assert await theirs.publish(b"", message_id="1", expected_last=0) == 1
    with pytest.raises(WrongLastSequenceError):
        await theirs.publish(b"", message_id="2", expected_last=0)


async def test_half_of_another_clusters_prefixes_is_an_error_that_names_them(link: NatsLink) -> None:
    await ensure_streams(link, SETTINGS)
    with pytest.raises(ConfigError, match="subject_prefix"):
        await ensure_streams(link, replace(SETTINGS, stream_prefix="mine"))
    with pytest.raises(ConfigError, match="stream_prefix"):
        await ensure_streams(link, replace(SETTINGS, subject_prefix="mine"))


async def test_more_replicas_than_a_single_server_can_keep_is_an_error_at_once(link: NatsLink) -> None:
    with pytest.raises(ConfigError, match="replicas"):
        await asyncio.wait_for(ensure_streams(link, replace(SETTINGS, replicas=3)), 60)


@frozen
async def test_it_waits_and_says_why_while_the_server_does_not_answer(nats: RealNats, link: NatsLink) -> None:
    part = Part("streams")
    await nats.freeze()
    waiting = asyncio.create_task(ensure_streams(link, SETTINGS, part))
    await eventually(lambda: not link.connected)
    nats.thaw()
    assert await asyncio.wait_for(waiting, 30) == []
    assert part.state == "ok"


async def test_it_waits_while_jetstream_has_no_quorum_and_says_streams_not_ready(
    nats: RealNats, link: NatsLink
) -> None:
    await nats.stop()
    route = "cluster { name: c, listen: '127.0.0.1:-1', routes: ['nats://127.0.0.1:1', 'nats://127.0.0.1:2'] }"
    nats.extra = f"server_name: lonely\n{route}"
    await nats.start()
    await link.connection()
    part = Part("streams")
    waiting = asyncio.create_task(ensure_streams(link, SETTINGS, part))
    await eventually(lambda: part.reason.startswith("streams not ready, waiting"), "a word on what is waited for")
    assert part.state == "waiting"
    waiting.cancel()
    await asyncio.wait([waiting])
