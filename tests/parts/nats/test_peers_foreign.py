"""Questions and answers that can't be read, and too many of them: counted, named, and in nobody's way."""

from __future__ import annotations

import asyncio

import pytest

from harmonylite.errors import ForeignError
from harmonylite.jetstream.settings import StreamSettings
from harmonylite.nats import peers
from harmonylite.nats.link import NatsLink
from harmonylite.nats.peers import NatsPeers
from harmonylite.status import Counters
from tests.parts.fix_nats import PATIENCE, RealNats, eventually, quick

PREFIX = StreamSettings().subject_prefix


def word(data: bytes) -> str:
    """Decode a word of letters."""
    if not data.isalpha():
        raise ForeignError(f"a word can't be read: it has {len(data)} bytes")
    return data.decode()


async def until_asked(asker: NatsPeers, topic: str, count: int = 1) -> None:
    """Return once so many nodes serve ``topic``."""
    while len((await asker.ask(topic, b"ready", bytes, seconds=0.3, expect=count)).answers) < count:
        pass


async def test_an_answer_that_can_not_be_read_is_its_nodes_and_the_others_count(
    nats: RealNats, link: NatsLink, caplog: pytest.LogCaptureFixture
) -> None:
    counters = Counters()
    asker = NatsPeers(link, PREFIX, "asker", counters)

    async def good(_: str) -> bytes:
        return b"fine"

    async def bad(_: str) -> bytes:
        return b"\xff"

    async with NatsLink(quick(nats.url)) as second, NatsLink(quick(nats.url)) as third:
        serving = [
            asyncio.create_task(NatsPeers(where, PREFIX, name).serve("topic", word, answer))
            for where, name, answer in ((link, "a", good), (second, "b", bad), (third, "", bad))
        ]
        await until_asked(asker, "topic", 3)
        for _ in range(3):
            async with asyncio.timeout(PATIENCE):
                while True:  # nobody waits for an answer that can't be read: on a slow machine it comes too late
                    heard = await asker.ask("topic", b"question", word, seconds=0.3)
                    if len(heard.answers) + len(heard.unread) == 3:
                        break
            assert (heard.answers, sorted(heard.unread)) == (["fine"], ["", "b"])
        heard = await asker.ask("topic", b"question", word, seconds=20, expect=1)
        assert heard.answers == ["fine"], "one that can't be read is none of those that are waited for"
        for task in serving:
            task.cancel()
    assert counters.unread_answers >= 6
    assert caplog.text.count("node b answered what this version can't read") == 1, "it is logged once"
    assert caplog.text.count("a node without a name answered what") == 1


async def test_a_question_that_can_not_be_read_gets_no_answer_and_is_counted(
    link: NatsLink, caplog: pytest.LogCaptureFixture
) -> None:
    counters = Counters()
    asked: list[str] = []

    async def answer(question: str) -> bytes:
        asked.append(question)
        return b"fine"

    serving = asyncio.create_task(NatsPeers(link, PREFIX, "a", counters).serve("topic", word, answer))
    asker = NatsPeers(link, PREFIX)
    await until_asked(asker, "topic")
    for _ in range(3):
        assert (await asker.ask("topic", b"\xff", bytes, seconds=0.1)).answers == []
    await eventually(lambda: counters.unread_questions == 3, "all three are counted")
    assert set(asked) == {"ready"}
    assert (await asker.ask("topic", b"again", bytes, seconds=20, expect=1)).answers == [b"fine"]
    assert caplog.text.count("gets no answer") == 1
    serving.cancel()


async def test_of_a_flood_of_questions_a_bounded_number_waits_and_none_beyond_its_patience(
    link: NatsLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    counters, hold, begun = Counters(), asyncio.Event(), 0

    async def answer(_: bytes) -> bytes:
        nonlocal begun
        begun += 1
        await hold.wait()
        return b"fine"

    serving = asyncio.create_task(NatsPeers(link, PREFIX, "a", counters).serve("topic", bytes, answer))
    asker = NatsPeers(link, PREFIX)
    while not begun:
        await asker.ask("topic", b"", bytes, seconds=0.1)
    monkeypatch.setattr(peers, "PATIENCE", 0.3)
    many = peers.AT_ONCE + peers.WAITING
    for _ in range(many + 100):
        await link.now().publish(f"{PREFIX}.peers.topic", b"", reply="_INBOX.nobody")
    await eventually(lambda: counters.dropped_questions >= 100, "what is beyond the bound is dropped")
    assert sum(task.get_name() == "answer on topic" for task in asyncio.all_tasks()) <= many
    await eventually(lambda: counters.dropped_questions >= 100 + peers.WAITING, "so is who waits for too long")
    assert begun == peers.AT_ONCE
    hold.set()
    assert (await asker.ask("topic", b"", bytes, seconds=20, expect=1)).answers == [b"fine"], "then it continues"
    serving.cancel()


async def test_an_asker_looks_at_a_bounded_number_of_answers(link: NatsLink, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "MOST_ANSWERS", 5)
    replies: list[str] = []
    new_inbox = link.now().new_inbox

    def noted() -> str:
        replies.append(new_inbox())
        return replies[-1]

    async def answer(_: bytes) -> None:
        for _number in range(50):
            await link.now().publish(replies[-1], b"x")

    monkeypatch.setattr(link.now(), "new_inbox", noted)
    serving = asyncio.create_task(NatsPeers(link, PREFIX).serve("topic", bytes, answer))
    heard: list[bytes] = []
    while not heard:
        heard = (await NatsPeers(link, PREFIX).ask("topic", b"", bytes, seconds=5)).answers
    assert len(heard) == 5
    serving.cancel()
