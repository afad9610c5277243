"""Questions between nodes: everybody is asked, anyone who answers is heard, nothing is stored."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from harmonylite.errors import StreamError
from harmonylite.jetstream.settings import StreamSettings
from harmonylite.jetstream.shard import JetStreamShard
from harmonylite.nats.link import NatsLink
from harmonylite.nats.peers import NatsPeers
from harmonylite.status import NodeStatus
from tests.parts.fix_nats import PATIENCE, RealNats, eventually, quick

PREFIX = StreamSettings().subject_prefix


@asynccontextmanager
async def serving(
    peers: NatsPeers, topic: str, answer: Callable[[bytes], Awaitable[bytes | None]]
) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(peers.serve(topic, bytes, answer))
    await answered(peers, topic)
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait([task])


async def answered(peers: NatsPeers, topic: str) -> None:
    """Return once somebody serves ``topic``."""
    while not (await peers.ask(topic, b"ready?", bytes, seconds=5, expect=1)).answers:
        pass


async def echo(question: bytes) -> bytes:
    return b"re: " + question


async def test_every_node_answers_and_the_asker_stops_when_all_are_in(nats: RealNats, link: NatsLink) -> None:
    async with (
        NatsLink(quick(nats.url)) as second,
        serving(NatsPeers(link, PREFIX), "digest", echo),
        serving(NatsPeers(second, PREFIX), "digest", echo),
    ):
        async with asyncio.timeout(PATIENCE):
            answers = (await NatsPeers(link, PREFIX).ask("digest", b"\x00\xff", bytes, seconds=600, expect=2)).answers
        assert answers == [b"re: \x00\xff"] * 2


async def test_who_does_not_answer_is_not_waited_for_longer_than_told(link: NatsLink) -> None:
    async def sulk(question: bytes) -> bytes | None:
        return None if question == b"?" else b"here"

    peers = NatsPeers(link, PREFIX)
    async with serving(peers, "topic", sulk):
        assert (await peers.ask("topic", b"?", bytes, seconds=0.2, expect=3)).answers == []


async def test_when_nobody_listens_the_asker_knows_at_once(link: NatsLink) -> None:
    async with asyncio.timeout(PATIENCE):
        assert (await NatsPeers(link, PREFIX).ask("nobody", b"", bytes, seconds=600)).answers == []


async def test_an_error_in_an_answer_is_logged_and_the_next_question_is_answered(
    link: NatsLink, caplog: pytest.LogCaptureFixture
) -> None:
    async def fragile(question: bytes) -> bytes:
        if question == b"break":
            raise RuntimeError("broken on purpose")
        return b"fine"

    peers = NatsPeers(link, PREFIX)
    async with serving(peers, "topic", fragile):
        assert (await peers.ask("topic", b"break", bytes, seconds=0.2)).answers == []
        assert (await peers.ask("topic", b"work", bytes, seconds=PATIENCE, expect=1)).answers == [b"fine"]
    assert "broken on purpose" in caplog.text


async def test_serving_goes_on_after_a_restart_of_the_server(nats: RealNats, link: NatsLink) -> None:
    peers = NatsPeers(link, PREFIX)
    async with serving(peers, "topic", echo):
        await nats.kill()
        await eventually(lambda: not link.connected)
        with pytest.raises(StreamError):
            await peers.ask("topic", b"", bytes, seconds=0.1)
        await nats.start()
        await link.connection()
        await answered(peers, "topic")


async def test_serving_ends_when_the_link_is_closed(link: NatsLink) -> None:
    async with serving(NatsPeers(link, PREFIX), "topic", echo) as task:
        await link.aclose()
        await asyncio.wait_for(task, PATIENCE)


async def test_questions_are_not_stored_in_the_streams(link: NatsLink, streams: StreamSettings) -> None:
    peers = NatsPeers(link, PREFIX)
    async with serving(peers, "0", echo):
        await peers.ask("0", b"?", bytes, seconds=5, expect=1)
    assert (await JetStreamShard(link, streams, 0, "n").info()).last == 0


async def test_clusters_with_other_prefixes_do_not_hear_each_other(link: NatsLink) -> None:
    async with serving(NatsPeers(link, "one"), "topic", echo):
        assert (await NatsPeers(link, "two").ask("topic", b"", bytes, seconds=0.2)).answers == []


async def test_who_stops_to_serve_is_not_asked_any_more(nats: RealNats) -> None:
    asked: list[bytes] = []

    async def noting(question: bytes) -> bytes:
        asked.append(question)
        return question

    async with NatsLink(quick(nats.url), NodeStatus()) as link:
        peers = NatsPeers(link, PREFIX)
        async with serving(peers, "t", noting):
            assert (await peers.ask("t", b"1", bytes, seconds=20, expect=1)).answers == [b"1"]
        assert (await peers.ask("t", b"2", bytes, seconds=5)).answers == []
        async with serving(peers, "t", noting):
            for question in (b"3", b"4"):  # they come in order: both may have been asked twice by the second answer
                assert (await peers.ask("t", question, bytes, seconds=20, expect=1)).answers == [question]
    assert asked.count(b"3") == 1, "one answers, not two"
