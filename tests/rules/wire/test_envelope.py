"""Envelopes, aborts and names of change sets survive the wire."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harmonylite.model import ChangeSetId
from harmonylite.wire import (
    ENVELOPE_BYTES,
    KIND_CHANGES,
    VERSION,
    Envelope,
    WireError,
    decode_abort,
    decode_envelope,
    decode_names,
    encode_abort,
    encode_envelope,
    encode_names,
)

NUMBERS = st.integers(0, 2**63 - 1)
NAMES = st.builds(ChangeSetId, st.text(), st.text(), NUMBERS)
ENVELOPES = st.builds(
    Envelope, st.just(VERSION), st.integers(0, 2), st.text(), st.text(), NUMBERS, NUMBERS, st.booleans(),
    st.booleans(), st.lists(NUMBERS, max_size=4), st.floats(allow_nan=False),
    st.dictionaries(NUMBERS, NUMBERS, max_size=4), st.booleans(), st.binary(),
)  # fmt: skip


@given(ENVELOPES)
def test_an_envelope_comes_back_whole(envelope: Envelope) -> None:
    assert decode_envelope(encode_envelope(envelope)) == envelope


@given(NAMES)
def test_an_abort_names_its_victim(victim: ChangeSetId) -> None:
    assert decode_abort(encode_abort(victim)) == victim


@given(st.lists(NAMES))
def test_names_that_are_kept_beside_a_position_come_back(names: list[ChangeSetId]) -> None:
    assert decode_names(encode_names(names)) == names


def test_an_envelope_leaves_the_room_that_is_set_aside_for_it() -> None:
    """Node ids have 64 characters at most, and 32 shards are more than anybody uses."""
    widest = Envelope(VERSION, KIND_CHANGES, "n" * 64, "s" * 32, 2**62, 2**62, True, True, list(range(32)), 1e18,
                      dict.fromkeys(range(32), 2**62), True, b"", "h" * 64)  # fmt: skip
    assert len(encode_envelope(widest)) < ENVELOPE_BYTES


@pytest.mark.parametrize("version", [0, 2, 100, 1000])
def test_another_version_is_refused_by_its_number(version: int) -> None:
    envelope = Envelope(version, KIND_CHANGES, "n", "s", 1, 0, False, True, [0], 1.0, {}, False, b"")
    with pytest.raises(WireError, match=rf"format version {version} is not 1; update this node"):
        decode_envelope(encode_envelope(envelope))


def test_a_newer_version_of_another_shape_is_told_from_garbage() -> None:
    with pytest.raises(WireError, match="format version 2 is newer than 1; update this node"):
        decode_envelope(b"\x92\x02\xa5other")
