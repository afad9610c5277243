"""Histories: which mirror knows more, told from where earlier histories were left."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harmonylite.changes.epochs import (
    PAST_KEPT,
    Lineage,
    are_strangers,
    drift,
    further,
    held,
    is_message,
    newest,
    relation,
)
from harmonylite.model import Position, StreamMessage
from harmonylite.wire import KIND_CHANGES, KIND_CHECKPOINT, VERSION, Envelope, encode_envelope

SEQS = st.dictionaries(st.integers(0, 3), st.integers(0, 50), min_size=1, max_size=4)


def at(history: str, seqs: dict[int, int], created: str = "then") -> Lineage:
    return Lineage(history, {shard: Position(shard, seq, created=created) for shard, seq in seqs.items()})


def next_epoch(lineage: Lineage, history: str = "new") -> Lineage:
    return lineage.next_epoch(history, {shard: Position(shard, 0, created="now") for shard in lineage.positions})


@given(SEQS, st.data())
def test_whoever_was_nowhere_further_is_behind_and_ahead_is_told_by_shard(
    left: dict[int, int], data: st.DataObject
) -> None:
    beginning = next_epoch(at("", left))
    mine = {shard: data.draw(st.integers(0, 50), label=str(shard)) for shard in left}
    more = frozenset(shard for shard in left if mine[shard] > left[shard])
    expected = "ahead" if more else "behind"
    assert further(at("", mine), beginning) == more
    assert relation(at("", mine), beginning) == expected
    assert relation(at("", mine), next_epoch(beginning, "newer")) == expected, (
        "a later beginning remembers earlier ones"
    )


def test_a_mirror_of_the_same_history_is_the_same_wherever_it_stands() -> None:
    assert relation(at("h", {0: 3}), at("h", {0: 9})) == "same"


@pytest.mark.parametrize(
    "other", [next_epoch(at("another", {0: 5})), next_epoch(at("", {0: 5}, created="another stream"))]
)
def test_what_was_not_taken_over_is_apart(other: Lineage) -> None:
    assert relation(at("", {0: 3}), other) == "diverged"


@given(st.lists(SEQS, min_size=1, max_size=5))
def test_the_node_that_begins_anew_is_one_and_has_the_most(seqs: list[dict[int, int]]) -> None:
    nodes = [(f"n{i}", at("", each)) for i, each in enumerate(seqs)]
    best = newest(nodes)
    assert newest(reversed(nodes)) == best
    assert sum(dict(nodes)[best].positions[s].seq for s in dict(nodes)[best].positions) == max(
        sum(each.values()) for each in seqs
    )


def test_the_past_is_bounded() -> None:
    lineage = at("", {0: 1})
    for n in range(200):
        lineage = lineage.next_epoch(f"h{n}", lineage.positions)
    assert len(lineage.past) == PAST_KEPT
    assert "h198" in lineage.past


@given(st.lists(st.integers(0, 9), max_size=2 * PAST_KEPT + 9), st.integers(0, 9))
def test_clusters_are_told_apart_however_many_epochs_they_have_had(parents: list[int], other: int) -> None:
    """Each epoch starts from any of the latest before it, as nodes that are cut off from one another start them."""
    one, another = [at("one", {0: 1})], [at("another", {0: 1})]
    for n, back in enumerate(parents):
        for name, tree in (("one", one), ("another", another)):
            tree.append(next_epoch(tree[max(0, len(tree) - 1 - back)], f"{name}{n}"))
    for lineage in (one[-1], one[max(0, len(one) - 1 - other)]):
        assert not any(are_strangers(lineage, member) for member in one)
        assert all(are_strangers(lineage, stranger) for stranger in another)
        described = Lineage(lineage.history, past={lineage.origin: {}})
        assert not any(are_strangers(member, described) for member in one)
        assert all(are_strangers(stranger, described) for stranger in another)


def test_a_cluster_whose_first_epoch_has_no_name_is_a_stranger_to_none() -> None:
    unnamed, named = next_epoch(at("", {0: 1}), "h1"), next_epoch(at("g", {0: 1}), "g1")
    assert not are_strangers(unnamed, named)
    assert not are_strangers(named, unnamed)
    assert not are_strangers(named, Lineage("h1", past={"": {}})), "its description does not say the first"


def message(node: str, body: bytes, *, kind: int = KIND_CHANGES, last: bool = True) -> bytes:
    return encode_envelope(Envelope(VERSION, kind, node, "s", 1, 0, False, last, [0], 0.0, {}, False, body))


@pytest.mark.parametrize(
    ("payload", "same"),
    [
        (message("a", b"rows"), True),
        (message("a", b"ows"), True),  # the last of several messages
        (message("a", b"other"), False),
        (message("b", b"rows"), False),
        (message("a", b"rows"), None),  # on the subject of another node
        (message("a", b"rows", kind=KIND_CHECKPOINT), False),
        (message("a", b"rows", last=False), False),
        (b"no message at all", False),
    ],
)
def test_a_message_is_known_again_by_its_writer_and_its_rows(payload: bytes, same: bool | None) -> None:
    node = "b" if same is None else "a"
    assert is_message(StreamMessage(0, 7, f"t.0.{node}", payload), "a", [b"first", b"rows"]) is (same or False)


@given(SEQS, st.data())
def test_a_database_that_is_older_than_its_mirror_was_restored(seqs: dict[int, int], data: st.DataObject) -> None:
    older = {shard: data.draw(st.integers(0, seq), label=str(shard)) for shard, seq in seqs.items()}
    assert drift(at("", older), at("", seqs)) == ("same" if older == seqs else "behind")
    assert drift(at("", seqs), at("", older)) == "same", (
        "one that is further lost its mirror's last commit: it is folded"
    )


def test_a_mirror_of_an_earlier_history_is_left_alone_and_one_of_a_later_is_settled_with() -> None:
    earlier, later = at("", {0: 5}), next_epoch(at("", {0: 5}))
    assert drift(later, earlier) == "same"
    assert drift(earlier, later) == "behind"
    assert drift(at("", {0: 6}), later) == "ahead"
    assert drift(at("stranger", {0: 6}), later) == "same"


def test_a_node_holds_the_further_of_its_two_files() -> None:
    both = held(at("", {0: 7, 1: 1}), at("", {0: 5, 1: 2}))
    assert {shard: position.seq for shard, position in both.positions.items()} == {0: 7, 1: 2}
    later = at("later", {0: 1, 1: 1})
    assert held(at("", {0: 7, 1: 1}), later) is later
