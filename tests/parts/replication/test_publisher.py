"""Publishing a change set to a real JetStream: in the stream exactly once, whatever happens to acknowledgements."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Awaitable, Callable
from io import BytesIO

import msgspec
import pytest

from harmonylite.changes.reassembler import Fragment, Reassembler
from harmonylite.db.capture.capture import Outgoing
from harmonylite.errors import FencedError, NotAcknowledgedError, StreamLostError
from harmonylite.jetstream.api import JetStream
from harmonylite.jetstream.settings import StreamSettings
from harmonylite.jetstream.shard import JetStreamShard, id_of
from harmonylite.jetstream.stream import Stream
from harmonylite.jetstream.streams import ensure_streams
from harmonylite.model import ChangeSetId, Position, StreamInfo
from harmonylite.nats.link import NatsLink
from harmonylite.replication.publisher import Publisher
from harmonylite.replication.throttle import Throttle
from harmonylite.status import NodeStatus
from tests.parts.fix_nats import eventually

WINDOW = 0.1
"""JetStream's duplicate window in these tests, in seconds: the least that it takes. It forgets ids after that."""


class LossyShard(JetStreamShard):
    """A real shard whose acknowledgements get lost: those of the publishes counted in ``lose``.

    ``late``: seconds at most by which each of them comes late, at random, so that they come in any order.
    ``then``: what another program puts on the subject right after a message whose acknowledgement got lost.
    """

    lose: frozenset[int] = frozenset()
    then: bytes | None = None
    late = 0.0
    count = 0

    async def publish(
        self, payload: bytes, *, message_id: str, expected_last: int | None = None, expected_end: int | None = None
    ) -> int:
        self.count += 1
        lost = self.count in self.lose
        seq = await super().publish(
            payload, message_id=message_id, expected_last=expected_last, expected_end=expected_end
        )
        if self.late:
            await asyncio.sleep(random.uniform(0.0, self.late))
        if lost and self.then is not None:
            await super().publish(self.then, message_id=f"then-{self.count}")
        if lost:
            await asyncio.sleep(2 * WINDOW)  # the next try comes when JetStream has forgotten this one's id
            raise NotAcknowledgedError("the acknowledgement got lost")
        return seq


@pytest.fixture
async def shard(link: NatsLink, streams: StreamSettings) -> LossyShard:
    """Shard 0, with a duplicate window that is over before anything is tried again."""
    stream = Stream(JetStream(link), "harmonylite-changes-0", 0)
    config = {**(await stream.details()).config, "duplicate_window": int(WINDOW * 1e9)}
    await stream.api.call(f"STREAM.UPDATE.{stream.name}", config)
    return LossyShard(link, streams, 0, "node-1")


def change_set(number: int, parts: int, *, session: str = "s1") -> Outgoing:
    """Return a change set of one block in ``parts`` messages on shard 0."""
    spool, cuts = BytesIO(), []
    for index in range(parts):
        cuts.append((spool.tell(), 100, index < parts - 1, False))
        spool.write(os.urandom(100))
    return Outgoing(ChangeSetId("node-1", session, number), 0, time.time(), {}, spool, rows=1, parts={0: cuts})


async def received(shard: JetStreamShard) -> list[Fragment]:
    """Return the change sets that a reader of the whole stream puts together."""
    reassembler = Reassembler({0: Position(0)})
    last = (await shard.info()).last
    async for batch in shard.read(1):
        for message in batch:
            reassembler.add(message)
        if batch[-1].seq >= last:
            break
    found: list[Fragment] = []
    while (cut := reassembler.take()) is not None:
        found += cut.fragments
    return found


def publisher(shard: JetStreamShard, session: str = "s1", connection: Callable[[], int] = int) -> Publisher:
    status = NodeStatus()
    throttle = Throttle(status, "node-1", lambda: Reassembler({0: Position(0)}), None)
    return Publisher([shard], "node-1", session, status, throttle, connection=connection)


SENT: dict[str, Callable[[Publisher], Awaitable[object]]] = {
    "a small change set": lambda sending: sending.publish(change_set(1, 1)),
    "a large one": lambda sending: sending.publish(change_set(1, 7)),
    "an abort": lambda sending: sending.abort(ChangeSetId("node-2", "s", 1), 0),
    "a checkpoint": lambda sending: sending.checkpoint("h"),
}


@pytest.mark.parametrize("what", SENT)
async def test_a_node_that_never_published_puts_nothing_into_a_stream_that_took_the_place_of_its_own(
    link: NatsLink, streams: StreamSettings, shard: LossyShard, what: str
) -> None:
    connection = 1
    sending = publisher(shard, connection=lambda: connection)
    sending.follow({0: (await shard.info()).created}, connection)
    await sending.open()
    connection = 2
    await JetStream(link).call(f"STREAM.DELETE.{shard.name}")
    await ensure_streams(link, streams)
    with pytest.raises(StreamLostError):
        await SENT[what](sending)
    assert (await shard.info()).last == 0


@pytest.mark.parametrize("what", SENT)
async def test_a_new_connection_to_the_same_stream_is_asked_for_it_once(shard: LossyShard, what: str) -> None:
    connection, asked, info = 1, list[int](), shard.info

    async def noted() -> StreamInfo:
        asked.append(connection)
        return await info()

    sending = publisher(shard, connection=lambda: connection)
    sending.follow({0: (await shard.info()).created}, connection)
    await sending.open()
    shard.info = noted  # type: ignore[method-assign]
    await SENT[what](sending)
    connection = 2
    await SENT[what](sending)
    assert asked.count(2) == 1


@pytest.mark.parametrize("parts", [1, 2, 7])
@pytest.mark.parametrize("lose", [{1}, {2}, {1, 2}, {1, 3, 4}])
async def test_a_publish_whose_acknowledgement_got_lost_is_there_once_also_after_the_duplicate_window(
    shard: LossyShard, parts: int, lose: set[int]
) -> None:
    sending = publisher(shard)
    await sending.open()
    shard.lose = frozenset(lose)
    sets = [change_set(number, parts) for number in (1, 2)]
    for out in sets:
        await sending.publish(out)
    fragments = await received(shard)
    assert [fragment.id for fragment in fragments] == [out.id for out in sets]
    for fragment, out in zip(fragments, sets, strict=True):
        fragment.spool.seek(0)
        assert fragment.spool.read() == out.spool.getvalue()  # type: ignore[attr-defined] # a BytesIO here


async def test_a_node_that_publishes_everything_at_once_never_takes_its_own_words_for_another_processs(
    shard: LossyShard,
) -> None:
    shard.late = 0.01
    sending = publisher(shard)
    await sending.open()
    sets = [change_set(number, random.choice([1, 1, 2, 5, 20])) for number in range(1, 61)]
    checkpoints: list[ChangeSetId] = []

    async def change() -> None:
        for out in sets:
            await sending.publish(out)

    async def check() -> None:
        checkpoints.extend([await sending.checkpoint("h") for _ in range(60)])

    async def give_up() -> None:
        for number in range(60):
            await sending.abort(ChangeSetId("node-2", "s", number), 0)

    async with asyncio.TaskGroup() as group:
        for each in (change, check, give_up):
            group.create_task(each())
    names = [fragment.id for fragment in await received(shard)]
    assert [name for name in names if name not in checkpoints] == [out.id for out in sets], "all whole, in their order"
    assert [name for name in names if name in checkpoints] == checkpoints


async def test_an_abort_and_a_checkpoint_whose_acknowledgements_got_lost_are_this_process_own_words(
    shard: LossyShard,
) -> None:
    sending = publisher(shard)
    await sending.open()
    await sending.publish(change_set(1, 1))
    shard.lose = frozenset({2, 4, 5})
    with pytest.raises(NotAcknowledgedError):
        await sending.abort(ChangeSetId("node-2", "s", 1), 0)
    await sending.publish(change_set(2, 1))  # the first try finds the abort in its way
    checkpoint = asyncio.create_task(sending.checkpoint("h"))
    await eventually(lambda: shard.count == 5)
    checkpoint.cancel()
    await asyncio.wait({checkpoint})
    shard.lose = frozenset()
    await sending.publish(change_set(3, 1))


async def test_what_another_program_left_on_the_subject_is_no_other_process(shard: LossyShard, link: NatsLink) -> None:
    sending = publisher(shard)
    await sending.open()
    await sending.publish(change_set(1, 1))
    await shard.publish(b"a line that somebody typed", message_id="typed")
    await sending.publish(change_set(2, 1))
    assert (await shard.info()).last == 3


@pytest.mark.parametrize("seen", [False, True], ids=["that is guessed", "that is known"])
@pytest.mark.parametrize("parts", [1, 2, 3])
async def test_a_message_id_that_another_program_uses_keeps_no_message_out(
    link: NatsLink, streams: StreamSettings, parts: int, seen: bool
) -> None:
    shard, theirs = JetStreamShard(link, streams, 0, "node-1"), JetStreamShard(link, streams, 0, "node-2")
    sending = publisher(shard)
    await sending.open()
    out, victim = change_set(1, parts), ChangeSetId("node-3", "s", 1)
    names = [
        *(f"{out.id}-0-{index}" for index in range(parts)),
        f"s1-abort-{victim}",
        "s1-checkpoint-node-1/s1.verify/1",
    ]
    for name in names:
        header = id_of(shard.subject, name) if seen else name
        await link.now().request(theirs.subject, b"junk", seconds=5.0, headers={"Nats-Msg-Id": header})
    junk = (await shard.info()).last
    assert junk == len(names)
    assert await sending.publish(out) == {0: junk + parts}
    assert await sending.abort(victim, 0) == junk + parts + 1
    await sending.checkpoint("h")
    assert (await shard.info()).last == junk + parts + 2, "everything landed, once"
    assert out.id in [fragment.id for fragment in await received(shard)]


async def test_a_message_that_was_deleted_is_published_again(link: NatsLink, streams: StreamSettings) -> None:
    shard = JetStreamShard(link, streams, 0, "node-1")
    assert [await shard.publish(b"x", message_id="same") for _ in range(2)] == [1, 1]
    stream = Stream(JetStream(link), "harmonylite-changes-0", 0)
    await stream.api.call(f"STREAM.MSG.DELETE.{stream.name}", {"seq": 1})
    assert [await shard.publish(b"x", message_id="same") for _ in range(2)] == [2, 2]


FOREIGN = {
    "plain text": b"a line that somebody typed",
    "nothing": b"",
    "another name": msgspec.msgpack.encode([1, 0, "node-2", "s1", 1, 0, False, True, [0], 0.0, {}, False, b""]),
    "no shard": msgspec.msgpack.encode([1, 0, "node-1", "twin", 1, 0, False, True, [], 0.0, {}, False, b""]),
    "another name in a newer version": msgspec.msgpack.encode([2, 0, "node-2"]),
}


@pytest.mark.parametrize("then", FOREIGN.values(), ids=FOREIGN)
@pytest.mark.parametrize("parts", [1, 3])
async def test_a_message_that_went_through_is_found_behind_what_another_program_left(
    shard: LossyShard, parts: int, then: bytes
) -> None:
    sending = publisher(shard)
    await sending.open()
    await sending.publish(change_set(1, 1))
    shard.lose, shard.then = frozenset({2, 5}), then  # the first message, and the last of three
    out = change_set(2, parts)
    assert await sending.publish(out) == {0: {1: 2, 3: 5}[parts]}, "the sequence of its last message"
    assert [fragment.id for fragment in await received(shard)] == [ChangeSetId("node-1", "s1", 1), out.id]
    assert (await shard.info()).last == {1: 3, 3: 6}[parts], "and each message is there once"


@pytest.mark.parametrize("then", FOREIGN.values(), ids=FOREIGN)
async def test_another_process_is_seen_behind_what_another_program_left(
    shard: LossyShard, link: NatsLink, streams: StreamSettings, then: bytes
) -> None:
    one, twin = publisher(shard), publisher(JetStreamShard(link, streams, 0, "node-1"), "s2")
    for each in (one, twin):
        await each.open()
    await one.publish(change_set(1, 1))
    await twin.publish(change_set(1, 1, session="s2"))
    await shard.publish(then, message_id="then")
    with pytest.raises(FencedError, match="another process publishes as node node-1"):
        await one.publish(change_set(2, 1))


@pytest.mark.parametrize(
    "newer", [[2, 0, "node-1"], [1, 9, "node-1", "s2", 1, 0, False, True, [0], 0.0, {}, False, b""]]
)
async def test_a_newer_program_under_the_same_id_is_another_process(shard: LossyShard, newer: list[object]) -> None:
    sending = publisher(shard)
    await sending.open()
    await sending.publish(change_set(1, 1))
    await shard.publish(msgspec.msgpack.encode(newer), message_id="newer")
    with pytest.raises(FencedError):
        await sending.publish(change_set(2, 1))


async def test_another_process_under_the_same_id_is_an_error_and_not_a_second_history(
    shard: LossyShard, link: NatsLink, streams: StreamSettings
) -> None:
    one, twin = publisher(shard), publisher(JetStreamShard(link, streams, 0, "node-1"), "s2")
    for each in (one, twin):
        await each.open()
    await one.publish(change_set(1, 3))
    await twin.publish(change_set(1, 1, session="s2"))
    with pytest.raises(FencedError, match="another process publishes as node node-1"):
        await one.publish(change_set(2, 1))
    assert [str(fragment.id) for fragment in await received(shard)] == ["node-1/s1/1", "node-1/s2/1"]


async def test_a_stream_that_lost_what_this_node_published_is_told_from_another_process(
    shard: LossyShard, link: NatsLink, streams: StreamSettings
) -> None:
    before = publisher(shard)
    await before.open()
    await before.publish(change_set(1, 1))
    after = publisher(JetStreamShard(link, streams, 0, "node-1"), "s2")
    await after.open()
    await after.publish(change_set(1, 1, session="s2"))
    stream = Stream(JetStream(link), "harmonylite-changes-0", 0)
    await stream.api.call(f"STREAM.MSG.DELETE.{stream.name}", {"seq": 2})
    with pytest.raises(StreamLostError, match="lost its tail: this node's last message in it is 1, and it had 2"):
        await after.publish(change_set(2, 1, session="s2"))


async def test_a_restarted_process_goes_on_behind_the_last_words_of_the_one_before(
    shard: LossyShard, link: NatsLink, streams: StreamSettings
) -> None:
    before = publisher(shard)
    await before.open()
    await before.publish(change_set(1, 2))
    after = publisher(JetStreamShard(link, streams, 0, "node-1"), "s2")
    await after.open()
    await before.publish(change_set(2, 1))  # its last words come after the new process looked
    await after.publish(change_set(1, 2, session="s2"))
    assert [str(fragment.id) for fragment in await received(shard)] == ["node-1/s1/1", "node-1/s1/2", "node-1/s2/1"]
