"""Envelopes, aborts and names of change sets survive the wire."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from harmonylite.model import ChangeSetId, StreamMessage
from harmonylite.wire import (
    ENVELOPE_BYTES,
    KIND_CHANGES,
    LATEST,
    NAME_CHARACTERS,
    VERSION,
    Envelope,
    decode_abort,
    decode_envelope,
    decode_named,
    decode_names,
    encode_abort,
    encode_envelope,
    encode_named,
    encode_names,
    token,
)

SHARDS = 4
NUMBERS = st.integers(0, 2**63 - 1)
WORDS = st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=NAME_CHARACTERS)
NODES = WORDS.filter(bool)
NAMES = st.builds(ChangeSetId, NODES, WORDS, NUMBERS)
ENVELOPES = st.builds(
    Envelope,
    st.just(VERSION),
    st.just(KIND_CHANGES),
    NODES,
    WORDS,
    NUMBERS,
    NUMBERS,
    st.just(value=False),
    st.booleans(),
    st.just([2]) | st.permutations(range(SHARDS)),
    st.floats(0, LATEST),
    st.dictionaries(NUMBERS, NUMBERS, max_size=4),
    st.booleans(),
    st.binary(),
)


@given(ENVELOPES)
def test_an_envelope_comes_back_whole(envelope: Envelope) -> None:
    message = StreamMessage(2, 1, f"p.2.{token(envelope.node)}", encode_envelope(envelope))
    assert decode_envelope(message, SHARDS) == envelope


@given(NAMES)
def test_an_abort_names_its_victim(victim: ChangeSetId) -> None:
    assert decode_abort(encode_abort(victim)) == victim


@given(st.lists(NAMES))
def test_names_that_are_kept_beside_a_position_come_back(names: list[ChangeSetId]) -> None:
    assert decode_names(encode_names(names)) == names


@given(st.none() | st.tuples(NUMBERS, NAMES))
def test_the_last_change_set_of_a_position_comes_back(named: tuple[int, ChangeSetId] | None) -> None:
    assert decode_named(encode_named(named)) == named


def test_an_envelope_leaves_the_room_that_is_set_aside_for_it() -> None:
    """Node ids have 64 characters at most, and 32 shards are more than anybody uses."""
    widest = Envelope(
        VERSION,
        KIND_CHANGES,
        "n" * 64,
        "s" * 32,
        2**62,
        2**62,
        True,
        True,
        list(range(32)),
        1e18,
        dict.fromkeys(range(32), 2**62),
        True,
        b"",
        "h" * 64,
    )
    assert len(encode_envelope(widest)) < ENVELOPE_BYTES
