"""How far a mirror and a stream agree: told by forks and contents, never by numbers alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from harmonylite.changes.epochs import Lineage
from harmonylite.db.mirror.positions import folded_seqs
from harmonylite.db.snapshot import reading_as_mirror, save_copy
from harmonylite.db.sqlite.thread import SqliteThread
from harmonylite.errors import StreamError
from harmonylite.model import Position, StreamInfo, StreamMessage
from harmonylite.snapshots.divergence import FoldedByReplica, common_end, diverged, is_lost
from tests.parts.db.fix_replicas import Group, Member
from tests.parts.snapshots.fix_streams import ReadStream

MADE, MOVED = "2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z/moved"


@dataclass
class Stream(ReadStream):
    """A stream of given messages, kept from ``first`` on. ``empty``: a copy that tells its numbers and holds none."""

    messages: list[StreamMessage]
    created: str = MADE
    forks: tuple[tuple[str, int], ...] = ()
    empty: bool = False
    shard: int = 0
    first: int = 1
    whole: bool = True

    async def info(self) -> StreamInfo:
        last = len(self.messages)
        return StreamInfo(0, self.first, last, self.created, forks=self.forks, whole=self.whole)

    async def get(self, seq: int) -> StreamMessage | None:
        if self.empty or not self.first <= seq <= len(self.messages):
            return None
        return replace(self.messages[seq - 1], seq=seq)


@pytest.fixture
def member(group: Group) -> Member:
    """A node that has folded five change sets."""
    member = group.member("CREATE TABLE t(id INTEGER PRIMARY KEY, v)")
    for n in range(5):
        member.run("INSERT INTO t VALUES (?, 'here')", (n,))
        group.settle()
    return member


@pytest.fixture
def folded(member: Member) -> list[StreamMessage]:
    """Those change sets."""
    return member.world.after(0, 0, 100)


@pytest.fixture
def others(make_group: Callable[[int], Group]) -> list[StreamMessage]:
    """Five change sets of another node, under the same numbers."""
    group = make_group(1)
    _, other = group.several(2, "CREATE TABLE t(id INTEGER PRIMARY KEY, v)")
    for n in range(5):
        other.run("INSERT INTO t VALUES (?, 'elsewhere')", (n,))
        group.settle()
    return other.world.after(0, 0, 100)


async def common(member: Member, stream: Stream) -> tuple[int | None, bool]:
    thread = SqliteThread()
    try:
        position = replace(member.replica.positions()[0], created=MADE)
        return await common_end(stream, await stream.info(), position, FoldedByReplica(member.replica, thread))
    finally:
        await thread.aclose()


async def test_the_stream_that_was_folded_is_known_to_its_end(member: Member, folded: list[StreamMessage]) -> None:
    assert await common(member, Stream(folded)) == (5, True)


async def test_a_lost_tail_is_seen_where_it_begins(member: Member, folded: list[StreamMessage]) -> None:
    assert await common(member, Stream(folded[:3])) == (3, False)


async def test_a_copy_that_lags_loses_nothing_while_its_order_can_not_be_asked(
    member: Member, folded: list[StreamMessage], others: list[StreamMessage], tmp_path: Path
) -> None:
    save_copy(member.options.mirror, file := tmp_path / "snapshot.db")
    position, copy = member.replica.merged_positions()[0], Stream(folded[:3], whole=False)
    for asked in (common(member, copy), diverged(file, [copy])):
        with pytest.raises(StreamError, match="ends at 3, before message 5"):
            await asked
    assert not await is_lost(copy, position)
    assert await common(member, Stream(folded, whole=False)) == (5, True)
    other = Stream(folded[:4] + others[4:], whole=False)
    assert await common(member, other) == (4, False), "what a copy holds is the order's"
    assert await is_lost(other, position)


async def test_other_messages_under_the_same_numbers_are_told_by_what_they_hold(
    member: Member, folded: list[StreamMessage], others: list[StreamMessage]
) -> None:
    assert await common(member, Stream(folded[:2] + others[2:])) == (2, False)


async def test_a_stream_of_another_beginning_has_nothing_in_common(member: Member, folded: list[StreamMessage]) -> None:
    assert await common(member, Stream(folded, created="later")) == (None, False)


@pytest.mark.parametrize("empty", [False, True], ids=["filled", "still being filled"])
async def test_beyond_a_fork_nothing_is_common_whatever_the_copy_holds_so_far(
    member: Member, folded: list[StreamMessage], others: list[StreamMessage], empty: bool
) -> None:
    moved = Stream(folded[:2] + others[2:], MOVED, ((MADE, 2),), empty=empty)
    assert await common(member, moved) == (2, False)


async def test_a_move_after_all_that_was_folded_changes_nothing(member: Member, folded: list[StreamMessage]) -> None:
    assert await common(member, Stream(folded, MOVED, ((MADE, 5),))) == (5, True)


async def test_a_snapshot_of_a_lost_tail_is_astray_though_its_numbers_fit(
    member: Member, folded: list[StreamMessage], others: list[StreamMessage], tmp_path: Path
) -> None:
    save_copy(member.options.mirror, file := tmp_path / "snapshot.db")
    assert await diverged(file, [Stream(folded)]) == ""
    assert await diverged(file, [Stream([*folded, *others])]) == ""
    assert "other messages" in await diverged(file, [Stream(folded[:2] + others[2:])])


@pytest.mark.parametrize("since", [0, 2])
async def test_a_beginning_within_a_stream_stands_on_what_that_still_holds(
    member: Member, folded: list[StreamMessage], others: list[StreamMessage], tmp_path: Path, since: int
) -> None:
    """What was folded of the lost tail is in it, and is nothing that the stream has to hold."""
    beginning = Lineage("anew", {0: Position(0, 3, 4, MADE)})
    save_copy(member.options.mirror, file := tmp_path / "snapshot.db", beginning=lambda _: beginning)
    assert await diverged(file, [Stream(folded[:3] + others[:since])]) == ""
    kept = reading_as_mirror(file, folded_seqs, 0)
    assert [seq for seq in kept if seq > 0] == [1, 2, 3], "later numbers will be others'"
    assert len(kept) == 5, "whose they were is still known"
    assert await diverged(file, [Stream(others)]) != ""


async def test_a_database_tells_by_itself_whether_the_stream_lost_what_it_merged(
    member: Member, folded: list[StreamMessage], others: list[StreamMessage]
) -> None:
    position = member.replica.merged_positions()[0]
    assert not await is_lost(Stream(folded), position)
    assert not await is_lost(Stream(folded + others), position)
    assert await is_lost(Stream(folded[:4]), position)
    assert await is_lost(Stream(folded[:4] + others[4:]), position)
    assert not await is_lost(Stream(others), replace(position, newest=None)), "nobody can tell"


async def test_the_oldest_message_that_is_kept_still_tells_and_one_before_it_does_not(
    member: Member, folded: list[StreamMessage], others: list[StreamMessage]
) -> None:
    position = member.replica.merged_positions()[0]
    mixed = folded[:4] + others[4:]
    assert await is_lost(Stream(mixed, first=5), position)
    assert not await is_lost(Stream(mixed + others, first=6), position)
    assert await common(member, Stream(mixed, first=5)) == (4, False)
    assert await common(member, Stream(mixed + others, first=6)) == (5, True), "nobody can tell"
    assert await common(member, Stream(others, first=3)) == (2, False), "what is gone can't contradict"


async def test_a_message_that_no_node_wrote_is_not_the_one_that_was_folded(
    member: Member, folded: list[StreamMessage]
) -> None:
    garbage = replace(folded[4], payload=b"hello\xff")
    assert await is_lost(Stream([*folded[:4], garbage]), member.replica.merged_positions()[0])
