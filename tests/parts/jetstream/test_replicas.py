"""Replicas without a number: as many as there are servers, at most three, and never fewer than before."""

from __future__ import annotations

from typing import Any

import pytest

from harmonylite.errors import StreamError, StreamLostError
from harmonylite.jetstream.api import ApiError, JetStream
from harmonylite.jetstream.backup import HELD
from harmonylite.jetstream.replicas import MOST, ReplicaGrowth, create
from harmonylite.jetstream.settings import StreamSettings
from harmonylite.jetstream.stream import Stream
from harmonylite.jetstream.streams import ensure_streams
from harmonylite.nats.link import NatsLink


class Cluster:
    """JetStream of a cluster in which ``there`` servers can take a stream, and whose clients hear of ``announced``."""

    def __init__(self, there: int, announced: int = 0) -> None:
        self.there = there
        self.servers = announced or there
        self.link = self
        self.streams: dict[str, dict[str, Any]] = {}
        self.refused = 0
        self.no_leader = False

    async def call(self, verb: str, body: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
        action, _, name = verb.removeprefix("STREAM.").partition(".")
        if self.no_leader:
            raise StreamError("no leader")
        if action == "INFO":
            if name not in self.streams:
                raise ApiError("not found", code=10059)
            return {"config": self.streams[name], "created": "then", "state": {"last_seq": 0, "messages": 0}}
        assert body is not None
        if body["num_replicas"] > self.there:
            self.refused += 1
            raise ApiError("no suitable peers for placement", code=10005)
        self.streams[name] = {**body}
        return {}

    def replicas(self) -> dict[str, int]:
        return {name: config["num_replicas"] for name, config in self.streams.items()}


@pytest.mark.parametrize("announced", [1, 2, 3, 7])
@pytest.mark.parametrize("there", [1, 2, 3, 5])
async def test_a_stream_gets_as_many_replicas_as_there_are_servers(there: int, announced: int) -> None:
    cluster = Cluster(there, announced)
    made = await create(cluster, {"name": "s"})  # type: ignore[arg-type] # all it asks for
    assert made == cluster.replicas()["s"] == min(there, announced, MOST)


async def test_a_number_that_was_asked_for_is_not_made_smaller() -> None:
    cluster = Cluster(2)
    with pytest.raises(ApiError):
        await create(cluster, {"name": "s", "num_replicas": 3})  # type: ignore[arg-type]
    assert cluster.streams == {}


@pytest.mark.parametrize("later", [1, 2, 3, 4])
@pytest.mark.parametrize("have", [1, 2, 3, 5])
async def test_replicas_grow_with_the_servers_and_are_never_lowered(have: int, later: int) -> None:
    cluster = Cluster(later)
    cluster.streams = {"s": {"name": "s", "num_replicas": have, "max_msgs": 9}}
    raising = ReplicaGrowth(cluster, ["s", "not there yet"])  # type: ignore[arg-type]
    assert await raising.check() == min(max(have, min(later, MOST)), MOST)
    assert cluster.streams["s"] == {"name": "s", "num_replicas": max(have, min(later, MOST)), "max_msgs": 9}


async def test_what_takes_no_messages_or_has_no_leader_is_left_alone() -> None:
    cluster = Cluster(3)
    cluster.streams = {"s": {"name": "s", "num_replicas": 1, "metadata": {HELD: "there"}, "max_msg_size": 1}}
    before = dict(cluster.streams["s"])
    raising = ReplicaGrowth(cluster, ["s"])  # type: ignore[arg-type]
    await raising.check()
    assert cluster.streams["s"] == before, "a stream that is being moved stays held"
    cluster.no_leader = True
    with pytest.raises(StreamError):
        await raising.check()


async def test_a_single_server_keeps_one_and_that_is_no_difference_to_report(link: NatsLink) -> None:
    settings = StreamSettings(replicas=0)
    assert await ensure_streams(link, settings) == []
    assert await ensure_streams(link, settings) == []
    stream = Stream(JetStream(link), "harmonylite-changes-0", 0)
    assert (await stream.details()).config["num_replicas"] == 1
    assert await ReplicaGrowth(JetStream(link), [stream.name, "absent"]).check() == 1
    with pytest.raises(StreamLostError):
        await Stream(JetStream(link), "absent", 0).details()
