"""The reassembler gives the largest whole batch of what was read, however the messages of the shards come in turn."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harmonylite.changes.reassembler import UNFINISHED_WATCHED, AtomicBatch, Reassembler
from harmonylite.errors import PoisonError
from harmonylite.model import ChangeSetId, Position, StreamMessage
from harmonylite.wire import KIND_ABORT, VERSION
from tests.rules.changes.fix_streams import Streams, abort, envelope, fresh, streams

ONE, TWO = ChangeSetId("a", "s", 1), ChangeSetId("b", "s", 1)


def feed(reassembler: Reassembler, made: Streams, turns: Iterable[int], read: dict[int, int]) -> None:
    """Add the next message of each shard in ``turns`` that has one; count them in ``read``."""
    for shard in turns:
        if shard < made.shards and read[shard] < made.ends()[shard]:
            read[shard] += 1
            reassembler.add(made.message(shard, read[shard]))


def everything(reassembler: Reassembler) -> list[AtomicBatch]:
    """Take until nothing is whole any more."""
    batches = []
    while (batch := reassembler.take()) is not None:
        batches.append(batch)
    return batches


def names(batches: Iterable[AtomicBatch]) -> set[ChangeSetId]:
    """Return the change sets in ``batches``."""
    return {fragment.id for batch in batches for fragment in batch.fragments}


TURNS = st.lists(st.integers(0, 2), max_size=60)


@given(streams(aborts=True), TURNS)
def test_all_that_is_whole_is_taken_and_nothing_else(made: Streams, turns: list[int]) -> None:
    reassembler, read = fresh(made.shards), dict.fromkeys(range(made.shards), 0)
    feed(reassembler, made, turns, read)
    assert names(everything(reassembler)) == made.largest(read)


@given(streams(aborts=True), TURNS, st.sampled_from([1, 3, 1 << 62]), st.booleans())
def test_no_cut_holds_a_part_of_a_change_set(made: Streams, turns: list[int], most: int, least: bool) -> None:
    reassembler, read = fresh(made.shards), dict.fromkeys(range(made.shards), 0)
    batches = []
    for turn in turns:
        feed(reassembler, made, [turn], read)
        if (batch := reassembler.take(most_bytes=most, least=least)) is not None:
            batches.append(batch)
            found: dict[ChangeSetId, set[int]] = {}
            for fragment in batch.fragments:
                found.setdefault(fragment.id, set()).add(fragment.shard)
            assert found == {name: made.touched[name] for name in found}
    assert names([*batches, *everything(reassembler)]) == made.largest(read)


@given(streams(aborts=True), TURNS, TURNS)
def test_two_nodes_that_read_in_other_turns_agree(made: Streams, one: list[int], other: list[int]) -> None:
    found = []
    for turns in (one, other):
        reassembler, read = fresh(made.shards), dict.fromkeys(range(made.shards), 0)
        batches = []
        for turn in [*turns, *(shard for shard, end in made.ends().items() for _ in range(end))]:
            feed(reassembler, made, [turn], read)
            batches += everything(reassembler)
        order = {s: [p.id for batch in batches for p in batch.fragments if p.shard == s] for s in range(made.shards)}
        found.append((order, {name for batch in batches for name in batch.voided}, reassembler.position(0)))
    assert found[0] == found[1]


@given(streams(aborts=True), TURNS, TURNS)
def test_a_restart_reads_on_where_the_positions_say(made: Streams, before: list[int], after: list[int]) -> None:
    reassembler, read = fresh(made.shards), dict.fromkeys(range(made.shards), 0)
    feed(reassembler, made, before, read)
    first = everything(reassembler)
    positions = {shard: reassembler.position(shard) for shard in range(made.shards)}
    again, reread = Reassembler(positions), {shard: p.resume - 1 for shard, p in positions.items()}
    assert all(again.read_up_to(shard) == seq for shard, seq in reread.items())
    feed(again, made, [*after, *(shard for shard, end in made.ends().items() for _ in range(end))], reread)
    second = everything(again)
    assert not names(first) & names(second)
    assert names(first) | names(second) == made.largest(made.ends())


@given(streams(), TURNS)
def test_a_cut_that_is_put_back_comes_again(made: Streams, turns: list[int]) -> None:
    reassembler, read = fresh(made.shards), dict.fromkeys(range(made.shards), 0)
    feed(reassembler, made, turns, read)
    batch = reassembler.take()
    if batch is not None:
        reassembler.put_back(batch)
        assert reassembler.take() == batch


@given(streams(), TURNS)
def test_positions_stand_before_the_first_thing_that_waits(made: Streams, turns: list[int]) -> None:
    reassembler, read = fresh(made.shards), dict.fromkeys(range(made.shards), 0)
    feed(reassembler, made, turns, read)
    taken = names(everything(reassembler))
    for shard in range(made.shards):
        position = reassembler.position(shard)
        waiting = [seq for seq, name in made.fragments[shard] if seq <= read[shard] and name not in taken]
        assert position.seq == (waiting[0] - 1 if waiting else read[shard])
        assert position.resume <= position.seq + 1


def test_a_message_that_comes_twice_changes_nothing() -> None:
    reassembler = fresh(1)
    for seq, index in ((1, 0), (1, 0), (2, 0), (3, 1), (4, 1), (5, 2)):
        reassembler.add(StreamMessage(0, seq, "t.0.a", envelope(ONE, index, last=index == 2, shards=[0])))
    (batch,) = everything(reassembler)
    assert [(fragment.id, fragment.seq, len(fragment.blocks)) for fragment in batch.fragments] == [(ONE, 5, 3)]


def test_a_writer_that_begins_anew_gives_up_on_what_it_left_unfinished() -> None:
    reassembler = fresh(1)
    newer = ChangeSetId("a", "later", 0)
    reassembler.add(StreamMessage(0, 1, "t.0.a", envelope(ONE, 0, last=False, shards=[0])))
    reassembler.add(StreamMessage(0, 2, "t.0.a", envelope(newer, 0, last=True, shards=[0])))
    reassembler.add(StreamMessage(0, 3, "t.0.a", envelope(ONE, 1, last=True, shards=[0])))
    assert names(everything(reassembler)) == {newer}


def test_an_abort_that_comes_first_voids_and_one_that_comes_late_does_not() -> None:
    for late in (False, True):
        reassembler = fresh(2)
        reassembler.add(StreamMessage(0, 1, "t.0.a", envelope(ONE, 0, last=True, shards=[0, 1])))
        reassembler.add(StreamMessage(0, 2, "t.0.b", envelope(TWO, 0, last=True, shards=[0])))
        assert reassembler.unfinished() == [(ONE, 1)]
        assert everything(reassembler) == []
        both = [abort(ONE, 1), envelope(ONE, 0, last=True, shards=[0, 1])]
        sent = list(zip("za", both, strict=True))
        for seq, (node, payload) in enumerate(reversed(sent) if late else sent, 1):
            reassembler.add(StreamMessage(1, seq, f"t.1.{node}", payload))
        batches = everything(reassembler)
        assert names(batches) == ({ONE, TWO} if late else {TWO})
        assert [name for batch in batches for name in batch.voided] == ([] if late else [ONE])


def stray(number: int) -> ChangeSetId:
    """Return the name of a change set that stays without its part on shard 1."""
    return ChangeSetId("stray", "s", number)


def test_all_that_misses_a_part_is_unfinished_at_once_and_not_only_what_comes_first() -> None:
    reassembler = fresh(2)
    for number in range(UNFINISHED_WATCHED + 10):
        payload = envelope(stray(number), 0, last=True, shards=[0, 1])
        reassembler.add(StreamMessage(0, number + 1, "t.0.stray", payload))
    assert reassembler.unfinished() == [(stray(number), 1) for number in range(UNFINISHED_WATCHED)]
    for seq, number in enumerate(range(10), 1):
        reassembler.add(StreamMessage(1, seq, "t.1.z", abort(stray(number), 1)))
    assert reassembler.unfinished() == [(stray(number), 1) for number in range(10, UNFINISHED_WATCHED + 10)]


def test_what_is_unfinished_between_two_others_is_found_though_no_shard_begins_with_it() -> None:
    reassembler, crossing = fresh(2), ChangeSetId("c", "s", 1)
    for shard, seq, name in ((0, 1, ONE), (0, 2, stray(1)), (0, 3, crossing), (1, 1, crossing), (1, 2, ONE)):
        payload = envelope(name, 0, last=True, shards=[0, 1])
        reassembler.add(StreamMessage(shard, seq, f"t.{shard}.{name.node}", payload))
    assert everything(reassembler) == []
    assert reassembler.unfinished() == [(stray(1), 1)]
    reassembler.add(StreamMessage(1, 3, "t.1.z", abort(stray(1), 1)))
    assert names(everything(reassembler)) == {ONE, crossing}


def test_an_abort_whose_body_names_no_change_set_is_stepped_over() -> None:
    told: list[int] = []
    reassembler = Reassembler({0: Position(0)}, foreign=lambda message, why: told.append(message.seq))
    bodies = b"", b"\xff", b"\x90", msgspec.msgpack.encode(["a", "s", -1]), msgspec.msgpack.encode(["", "s", 1])
    for seq, body in enumerate(bodies, 1):
        payload = [VERSION, KIND_ABORT, "z", "s", 0, 0, False, True, [0], 0.0, {}, False, body]
        reassembler.add(StreamMessage(0, seq, "t.0.z", msgspec.msgpack.encode(payload)))
    assert told == [1, 2, 3, 4, 5]
    assert reassembler.read_up_to(0) == 5


def test_a_block_that_can_not_be_read_is_its_writers_fault_and_not_this_nodes_age() -> None:
    reassembler = fresh(1)
    reassembler.add(StreamMessage(0, 1, "t.0.a", envelope(ONE, 0, last=True, shards=[0], body=b"\xc1")))
    (batch,) = everything(reassembler)
    with pytest.raises(PoisonError, match="node a wrote what no version writes") as caught:
        list(batch.fragments[0].decoded())
    assert "update this node" not in str(caught.value)
    assert "`harmonylite skip 0 1` leaves it out" in str(caught.value)


def test_a_change_set_of_one_shard_that_others_gave_up_on_halfway_is_told_as_void_once() -> None:
    reassembler = fresh(1)
    reassembler.add(StreamMessage(0, 1, "t.0.a", envelope(ONE, 0, last=False, shards=[0])))
    reassembler.add(StreamMessage(0, 2, "t.0.a", envelope(ONE, 1, last=False, shards=[0])))
    assert reassembler.begun(0) == [(ONE, 2)]
    everything(reassembler)
    assert reassembler.position(0).resume == 1
    reassembler.add(StreamMessage(0, 3, "t.0.z", abort(ONE, 0)))
    batch = reassembler.take()
    assert batch is not None
    reassembler.put_back(batch)
    assert [name for batch in everything(reassembler) for name in batch.voided] == [ONE], "put back, it is told again"
    assert (reassembler.begun(0), reassembler.position(0).resume) == ([], 4), "anyone who starts now needs none of it"
    reassembler.add(StreamMessage(0, 4, "t.0.a", envelope(ONE, 2, last=True, shards=[0])))
    assert [(batch.fragments, batch.voided) for batch in everything(reassembler)] == [((), ())]


def test_a_block_that_goes_on_in_the_next_message_is_one_block() -> None:
    reassembler = fresh(1)
    for seq, more in ((1, True), (2, False), (3, False)):
        payload = envelope(ONE, seq - 1, last=seq == 3, shards=[0], more=more, body=b"part%d" % seq)
        reassembler.add(StreamMessage(0, seq, "t.0.a", payload))
    (batch,) = everything(reassembler)
    assert batch.fragments[0].blocks == [(0, 10, False), (10, 5, False)]


NEWER = b"\x93\x02\x00\xa1a"
"""How a message of the next version of the format may begin, in the name of node a."""


def test_what_a_newer_version_wrote_names_its_message_and_a_way_on() -> None:
    reassembler = Reassembler({3: Position(3)}, shards=4)
    with pytest.raises(PoisonError, match="message 1 of shard 3 can't be applied: format version 2") as caught:
        reassembler.add(StreamMessage(3, 1, "t.3.a", NEWER))
    assert "update this node" in str(caught.value.advice)
    assert "harmonylite skip 3 1" in str(caught.value.advice)
    assert reassembler.read_up_to(3) == 0
    reassembler.skip(3, 1)
    reassembler.add(StreamMessage(3, 1, "t.3.a", NEWER))
    assert reassembler.read_up_to(3) == 1


def test_a_change_set_of_the_own_session_stands_alone_in_its_cut_and_those_of_earlier_ones_like_anybodys() -> None:
    reassembler = fresh(1)
    names = TWO, ONE, ChangeSetId("b", "s", 2), *(ChangeSetId("a", "earlier", number) for number in range(3))
    for seq, name in enumerate(names, 1):
        reassembler.add(StreamMessage(0, seq, f"t.0.{name.node}", envelope(name, 0, last=True, shards=[0])))
    batches = []
    while (batch := reassembler.take(own=("a", "s"))) is not None:
        batches.append([fragment.id.node for fragment in batch.fragments])
    assert batches == [["b"], ["a"], ["b", "a", "a", "a"]]


def test_a_cut_with_a_limit_leaves_the_shards_alone_that_the_limit_does_not_name() -> None:
    reassembler = fresh(2)
    for shard in (0, 1):
        reassembler.add(StreamMessage(shard, 1, f"t.{shard}.z", abort(ONE, shard)))
    batch = reassembler.take(limit={0: 1})
    assert batch is not None
    assert {shard: position.seq for shard, position in batch.positions.items()} == {0: 1, 1: 0}
    assert reassembler.position(1).seq == 0


@pytest.mark.parametrize("least", [False, True])
def test_who_reads_some_of_the_shards_waits_for_none_of_the_others(least: bool) -> None:
    reassembler = Reassembler({1: Position(1)}, shards=3)
    reassembler.add(StreamMessage(1, 1, "t.1.a", envelope(ONE, 0, last=True, shards=[0, 1, 2])))
    assert not reassembler.held_up
    batch = reassembler.take(least=least)
    assert batch is not None
    assert [fragment.id for fragment in batch.fragments] == [ONE]
