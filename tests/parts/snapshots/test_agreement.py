"""How far a mirror and a stream agree: told by forks and contents, never by numbers alone."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace

import pytest

from harmonylite.db.thread import SqliteThread
from harmonylite.model import StreamInfo, StreamMessage
from harmonylite.snapshots.agreement import common_end
from tests.parts.db.fix_replicas import Group, Member

MADE, MOVED = "2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z/moved"


@dataclass
class Stream:
    """A stream of given messages. ``empty``: a copy that tells its numbers and holds nothing yet."""

    messages: list[bytes]
    created: str = MADE
    forks: tuple[tuple[str, int], ...] = ()
    empty: bool = False
    shard: int = 0

    async def publish(
        self, payload: bytes, *, message_id: str, expected_last: int | None = None, expected_end: int | None = None
    ) -> int:
        raise NotImplementedError

    def read(self, start: int) -> AsyncIterator[list[StreamMessage]]:
        raise NotImplementedError

    async def info(self) -> StreamInfo:
        return StreamInfo(0, 1, len(self.messages), self.created, forks=self.forks)

    async def end(self) -> int:
        return len(self.messages)

    async def last_own(self) -> StreamMessage | None:
        return None

    async def get(self, seq: int) -> StreamMessage | None:
        if self.empty or not 1 <= seq <= len(self.messages):
            return None
        return StreamMessage(0, seq, "s", self.messages[seq - 1])


@pytest.fixture
def member(group: Group) -> Member:
    """A node that has folded five change sets."""
    member = group.member("CREATE TABLE t(id INTEGER PRIMARY KEY, v)")
    for n in range(5):
        member.run("INSERT INTO t VALUES (?, 'here')", (n,))
        group.settle()
    return member


@pytest.fixture
def folded(member: Member) -> list[bytes]:
    """Those change sets."""
    return [message.payload for message in member.world.after(0, 0, 100)]


@pytest.fixture
def others(make_group: Callable[[int], Group]) -> list[bytes]:
    """Five change sets of another node, under the same numbers."""
    group = make_group(1)
    _, other = group.several(2, "CREATE TABLE t(id INTEGER PRIMARY KEY, v)")
    for n in range(5):
        other.run("INSERT INTO t VALUES (?, 'elsewhere')", (n,))
        group.settle()
    return [message.payload for message in other.world.after(0, 0, 100)]


async def common(member: Member, stream: Stream) -> tuple[int | None, bool]:
    thread = SqliteThread()
    try:
        position = replace(member.replica.positions()[0], created=MADE)
        return await common_end(stream, await stream.info(), position, member.replica, thread)
    finally:
        await thread.aclose()


async def test_the_stream_that_was_folded_is_known_to_its_end(member: Member, folded: list[bytes]) -> None:
    assert await common(member, Stream(folded)) == (5, True)


async def test_a_lost_tail_is_seen_where_it_begins(member: Member, folded: list[bytes]) -> None:
    assert await common(member, Stream(folded[:3])) == (3, False)


async def test_other_messages_under_the_same_numbers_are_told_by_what_they_hold(
    member: Member, folded: list[bytes], others: list[bytes]
) -> None:
    assert await common(member, Stream(folded[:2] + others[2:])) == (2, False)


async def test_a_stream_of_another_beginning_has_nothing_in_common(member: Member, folded: list[bytes]) -> None:
    assert await common(member, Stream(folded, created="later")) == (None, False)


@pytest.mark.parametrize("empty", [False, True], ids=["filled", "still being filled"])
async def test_beyond_a_fork_nothing_is_common_whatever_the_copy_holds_so_far(
    member: Member, folded: list[bytes], others: list[bytes], empty: bool
) -> None:
    moved = Stream(folded[:2] + others[2:], MOVED, ((MADE, 2),), empty=empty)
    assert await common(member, moved) == (2, False)


async def test_a_move_after_all_that_was_folded_changes_nothing(member: Member, folded: list[bytes]) -> None:
    assert await common(member, Stream(folded, MOVED, ((MADE, 5),))) == (5, True)
