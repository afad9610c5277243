"""The reassembler under any sequence of messages: honest change sets become complete, and memory is bounded."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from typing import IO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harmonylite.changes.fragments import ABORTS_KEPT, OPEN_KEPT
from harmonylite.changes.reassembler import SPOOL_BYTES, Reassembler
from harmonylite.errors import PoisonError
from harmonylite.model import ChangeSetId, Position, StreamMessage
from harmonylite.wire import (
    KIND_ABORT,
    KIND_CHANGES,
    KIND_CHECKPOINT,
    VERSION,
    Envelope,
    encode_abort,
    encode_envelope,
    token,
)
from tests.rules.changes.fix_streams import abort, envelope

SHARDS = 2
HONEST = [ChangeSetId("honest", "s", number) for number in range(4)]
NUMBERS = st.integers(0, 3)
IDS = st.builds(ChangeSetId, st.sampled_from(["x", "y"]), st.sampled_from(["s", "t"]), NUMBERS)
BODIES = st.binary(max_size=3) | st.builds(encode_abort, IDS)
ENVELOPES = st.builds(
    Envelope,
    st.sampled_from([VERSION, VERSION, VERSION, VERSION + 1]),
    st.sampled_from([KIND_CHANGES, KIND_CHANGES, KIND_CHECKPOINT, KIND_ABORT, 9]),
    st.sampled_from(["x", "y", "honest"]),
    st.sampled_from(["s", "t"]),
    NUMBERS,
    NUMBERS,
    st.booleans(),
    st.booleans(),
    st.sampled_from([[0], [1], [0, 1], [1, 0]]) | st.lists(st.integers(-1, SHARDS), max_size=3),
    st.just(0.0) | st.floats(),
    st.just({}),
    st.booleans(),
    BODIES,
)
Sent = tuple[int, str, bytes]
"""Shard, node of the subject, payload."""
LIES = st.lists(
    st.tuples(st.integers(0, SHARDS - 1), st.sampled_from(["x", "y"]), ENVELOPES.map(encode_envelope) | BODIES),
    max_size=25,
)


@st.composite
def spoken(draw: st.DrawFn) -> tuple[list[Sent], dict[ChangeSetId, set[int]]]:
    """Draw what an honest writer and two liars say on two shards; and on which shards each honest change set is."""
    honest: list[Sent] = []
    on = {}
    for name in HONEST:
        on[name] = draw(st.sets(st.integers(0, SHARDS - 1), min_size=1), label=str(name))
        for shard in sorted(on[name]):
            count = draw(st.integers(1, 3))
            honest += [
                (shard, "honest", envelope(name, index, last=index == count - 1, shards=sorted(on[name])))
                for index in range(count)
            ]
    sent = list(honest)
    for lie in draw(LIES):
        sent.insert(draw(st.integers(0, len(sent))), lie)
    return sent, on


class Node:
    """Reads, takes what is whole, gives up on what holds it up, and leaves out what newer programs wrote."""

    def __init__(self, sent: Sequence[Sent]) -> None:
        self.streams: list[list[StreamMessage]] = [[] for _ in range(SHARDS)]
        for each in sent:
            self.publish(*each)
        self.foreign: set[tuple[int, int]] = set()
        self.reassembler = Reassembler({s: Position(s) for s in range(SHARDS)}, foreign=self._foreign)
        self.taken: list[tuple[ChangeSetId, int]] = []

    def publish(self, shard: int, node: str, payload: bytes) -> None:
        """Store a message."""
        stream = self.streams[shard]
        stream.append(StreamMessage(shard, len(stream) + 1, f"p.{shard}.{token(node)}", payload, 1.0))

    def _foreign(self, message: StreamMessage, why: str) -> None:
        self.foreign.add((message.shard, message.seq))

    def read(self, shard: int) -> None:
        """Read one message."""
        seq = self.reassembler.read_up_to(shard)
        if seq < len(self.streams[shard]):
            message = self.streams[shard][seq]
            try:
                self.reassembler.add(message)
            except PoisonError as error:
                self.reassembler.skip(error.shard, error.seq)
                self.reassembler.add(message)
        assert self.reassembler.under_way_count <= SHARDS * OPEN_KEPT

    def take(self, *, least: bool) -> None:
        """Take all that is whole."""
        while (batch := self.reassembler.take(most_bytes=5, own=("honest", "s"), least=least)) is not None:
            self.taken += [(fragment.id, fragment.shard) for fragment in batch.fragments]
            batch.close()

    def finish(self) -> None:
        """Read to the ends, and give up on what holds it up, until nothing does."""
        for _ in range(40):
            for shard in range(SHARDS):
                while self.reassembler.read_up_to(shard) < len(self.streams[shard]):
                    self.read(shard)
            self.take(least=False)
            stuck = self.reassembler.unfinished()
            if not stuck:
                return
            for victim, shard in stuck:
                self.publish(shard, "z", abort(victim, shard))
        raise AssertionError(f"still held up by {stuck}")


@given(spoken(), st.lists(st.tuples(st.integers(0, SHARDS - 1), st.booleans(), st.booleans()), max_size=60))
def test_honest_change_sets_become_complete_whatever_others_say(
    said: tuple[list[Sent], dict[ChangeSetId, set[int]]], turns: list[tuple[int, bool, bool]]
) -> None:
    sent, on = said
    node = Node(sent)
    for shard, take, least in turns:
        node.read(shard)
        if take:
            node.take(least=least)
    node.finish()
    found: dict[ChangeSetId, list[int]] = {}
    for name, shard in node.taken:
        found.setdefault(name, []).append(shard)
    assert {name: set(found.get(name, [])) for name in HONEST} == on
    assert all(len(found[name]) == len(on[name]) for name in HONEST), "and each once"
    ends = [len(stream) for stream in node.streams]
    assert [node.reassembler.position(shard).seq for shard in range(SHARDS)] == ends, "nothing holds the others up"


@given(spoken(), st.lists(st.integers(0, SHARDS - 1), max_size=60))
def test_two_nodes_step_over_the_same_messages(
    said: tuple[list[Sent], dict[ChangeSetId, set[int]]], turns: list[int]
) -> None:
    one, two = Node(said[0]), Node(said[0])
    for shard in turns:
        one.read(shard)
        one.take(least=True)
    one.finish()
    two.finish()
    ours = [{(s, q) for s, q in node.foreign if q <= len([m for m in said[0] if m[0] == s])} for node in (one, two)]
    assert ours[0] == ours[1]


def under(name: ChangeSetId, seq: int, payload: bytes) -> StreamMessage:
    return StreamMessage(0, seq, f"p.0.{token(name.node)}", payload)


class Places:
    """Hands out places for blocks; remembers how many bytes each may hold in memory."""

    def __init__(self) -> None:
        self.all: list[tuple[int, BytesIO]] = []

    def __call__(self, most: int) -> IO[bytes]:
        self.all.append((most, BytesIO()))
        return self.all[-1][1]

    @property
    def open(self) -> list[int]:
        """The bytes in memory of each that is not closed."""
        return [most for most, place in self.all if not place.closed]


def test_unfinished_change_sets_of_many_writers_take_little_memory_and_end_in_the_order_of_their_beginnings() -> None:
    places = Places()
    reassembler = Reassembler({0: Position(0)}, spool=places)
    writers = [ChangeSetId(f"writer-{number}", "s", 1) for number in range(250)]
    for seq, name in enumerate(writers, 1):
        reassembler.add(under(name, seq, envelope(name, 0, last=False, shards=[0])))
    assert [name for name, _ in reassembler.begun(0)] == writers[-OPEN_KEPT:]
    assert len(places.open) == reassembler.under_way_count == OPEN_KEPT
    assert sum(places.open) < 5 * SPOOL_BYTES
    batch = reassembler.take()
    assert batch is not None
    assert batch.voided == tuple(writers[:-OPEN_KEPT]), "their writers hear of it"
    assert reassembler.position(0).resume == 250 - OPEN_KEPT + 1


def test_a_change_set_of_one_message_ends_none_of_another_writer() -> None:
    reassembler = Reassembler({0: Position(0)})
    names = [ChangeSetId(f"writer-{number}", "s", 1) for number in range(OPEN_KEPT)]
    for seq, name in enumerate(names, 1):
        reassembler.add(under(name, seq, envelope(name, 0, last=False, shards=[0])))
    whole = ChangeSetId("honest", "s", 1)
    reassembler.add(under(whole, 1000, envelope(whole, 0, last=True, shards=[0])))
    assert [name for name, _ in reassembler.begun(0)] == names


def test_while_few_are_unfinished_each_may_take_much() -> None:
    places = Places()
    reassembler = Reassembler({0: Position(0)}, spool=places)
    for number in range(9):
        name = ChangeSetId("a", "s", number)
        reassembler.add(under(name, 2 * number + 1, envelope(name, 0, last=False, shards=[0])))
        reassembler.add(under(name, 2 * number + 2, envelope(name, 1, last=True, shards=[0])))
    assert places.open == [SPOOL_BYTES] * 9


@pytest.mark.parametrize("restart_at", range(0, 250, 13))
def test_a_restart_keeps_the_same_ones_under_way(restart_at: int) -> None:
    names = [ChangeSetId(f"writer-{number}", "s", 1) for number in range(125)]
    messages = [under(n, seq, envelope(n, 0, last=False, shards=[0])) for seq, n in enumerate(names, 1)]
    messages += [under(n, 125 + seq, envelope(n, 1, last=True, shards=[0])) for seq, n in enumerate(names, 1)]
    found = []
    for stop in (restart_at, 0):
        reassembler, taken = Reassembler({0: Position(0)}), []
        for message in messages:
            if message.seq == stop:
                while (batch := reassembler.take()) is not None:
                    taken += [fragment.id for fragment in batch.fragments]
                position = reassembler.position(0)
                reassembler = Reassembler({0: position})
                for again in messages[position.resume - 1 : stop - 1]:
                    reassembler.add(again)
            reassembler.add(message)
        while (batch := reassembler.take()) is not None:
            taken += [fragment.id for fragment in batch.fragments]
        found.append(taken)
    assert found[0] == found[1] == names[-OPEN_KEPT:]


def test_the_newest_aborts_are_remembered_and_no_others() -> None:
    reassembler = Reassembler({0: Position(0)})
    victims = [ChangeSetId("a", "s", number) for number in range(ABORTS_KEPT + 2)]
    for seq, victim in enumerate(victims, 1):
        reassembler.add(StreamMessage(0, seq, "p.0.z", abort(victim, 0)))
    reassembler.take()
    assert reassembler.position(0).aborted == tuple(victims[2:])
    for seq, victim in enumerate((victims[1], victims[2]), len(victims) + 1):
        reassembler.add(under(victim, seq, envelope(victim, 0, last=True, shards=[0])))
    batch = reassembler.take()
    assert batch is not None
    assert [fragment.id for fragment in batch.fragments] == [victims[1]], (
        "the one that is forgotten, on every node alike"
    )


def test_a_change_set_whose_writer_begins_another_ends_and_the_next_one_is_the_newest() -> None:
    places = Places()
    reassembler = Reassembler({0: Position(0)}, spool=places)
    first, other, again = ChangeSetId("a", "s", 1), ChangeSetId("b", "s", 1), ChangeSetId("a", "s", 2)
    for seq, name in enumerate((first, other, again), 1):
        reassembler.add(under(name, seq, envelope(name, 0, last=False, shards=[0])))
    assert reassembler.begun(0) == [(other, 1), (again, 1)], "in the order of their beginnings"
    assert len(places.open) == 2
    batch = reassembler.take()
    assert batch is not None
    assert batch.voided == (first,), "its writer hears of it"


def test_a_position_stands_right_before_what_waits_and_names_what_was_taken_last() -> None:
    whole, waits = ChangeSetId("a", "s", 1), ChangeSetId("a", "s", 2)
    reassembler = Reassembler({0: Position(0), 1: Position(1)})
    reassembler.add(under(whole, 1, envelope(whole, 0, last=True, shards=[0])))
    reassembler.add(StreamMessage(0, 2, "p.0.z", b"foreign"))
    reassembler.add(under(waits, 3, envelope(waits, 0, last=True, shards=[0, 1])))
    reassembler.take()
    for _ in range(2):
        assert (reassembler.position(0).seq, reassembler.position(0).resume) == (2, 3)
        assert reassembler.position(0).newest == (1, whole)
        reassembler.add(StreamMessage(1, 1, "p.1.z", b"foreign"))
        reassembler.take()


def test_a_message_in_another_name_does_not_end_a_change_set_under_way() -> None:
    mine, forged = ChangeSetId("a", "s", 1), ChangeSetId("a", "forged", 1)
    reassembler = Reassembler({0: Position(0)})
    reassembler.add(under(mine, 1, envelope(mine, 0, last=False, shards=[0])))
    reassembler.add(StreamMessage(0, 2, "p.0.b", envelope(forged, 0, last=True, shards=[0])))
    reassembler.add(under(mine, 3, envelope(mine, 1, last=True, shards=[0])))
    batch = reassembler.take()
    assert batch is not None
    assert [fragment.id for fragment in batch.fragments] == [mine]


def test_a_checkpoint_does_not_end_a_change_set_of_its_writer() -> None:
    mine = ChangeSetId("a", "s", 1)
    checkpoint = Envelope(VERSION, KIND_CHECKPOINT, "a", "s.verify", 1, 0, False, True, [0], 0.0, {}, False, b"")
    reassembler = Reassembler({0: Position(0)})
    reassembler.add(under(mine, 1, envelope(mine, 0, last=False, shards=[0])))
    reassembler.add(under(mine, 2, encode_envelope(checkpoint)))
    assert reassembler.begun(0) == [(mine, 1)]
    reassembler.add(under(mine, 3, envelope(mine, 1, last=True, shards=[0])))
    taken = []
    while (batch := reassembler.take()) is not None:
        taken += [(fragment.id, fragment.seq) for fragment in batch.fragments]
    assert taken == [(checkpoint.id, 2), (mine, 3)]


def test_pieces_that_disagree_on_their_shards_are_no_change_set_together() -> None:
    name = ChangeSetId("a", "s", 1)
    for turns in ((0, 1), (1, 0)):
        reassembler, taken = Reassembler({0: Position(0), 1: Position(1)}), []
        for shard in turns:
            shards = [0, 1] if shard == 0 else [1]
            reassembler.add(StreamMessage(shard, 1, f"p.{shard}.a", envelope(name, 0, last=True, shards=shards)))
            while (batch := reassembler.take()) is not None:
                taken += [fragment.shard for fragment in batch.fragments]
        assert taken == [1]
        assert reassembler.unfinished() == [(name, 1)], "the other one waits to be given up on"


def test_a_message_that_names_other_shards_than_the_first_is_stepped_over() -> None:
    name, told = ChangeSetId("a", "s", 1), []
    reassembler = Reassembler(
        {0: Position(0), 1: Position(1)}, foreign=lambda message, why: told.append((message.seq, why))
    )
    reassembler.add(under(name, 1, envelope(name, 0, last=False, shards=[0, 1])))
    reassembler.add(under(name, 2, envelope(name, 1, last=True, shards=[0])))
    assert told == [(2, "it names other shards than the change set's first message, 1")]
    assert reassembler.begun(0) == [(name, 1)]
