"""A message is honest, foreign, or of a newer version; message, subject and number of shards alone tell which."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from harmonylite.model import ChangeSetId, StreamMessage
from harmonylite.wire import (
    KIND_ABORT,
    KIND_CHANGES,
    KIND_CHECKPOINT,
    LARGEST,
    NAME_CHARACTERS,
    VERSION,
    ForeignMessageError,
    WireError,
    decode_envelope,
    encode_abort,
    token,
)

SHARDS = 3
KINDS = {"changes": KIND_CHANGES, "checkpoint": KIND_CHECKPOINT, "abort": KIND_ABORT, "unknown": 7, "large": LARGEST}
FIELDS = (
    "version",
    "kind",
    "node",
    "session",
    "number",
    "index",
    "more",
    "last",
    "shards",
    "time",
    "base",
    "packed",
    "body",
    "history",
    "current",
)
GOOD = [VERSION, KIND_CHANGES, "a", "s", 1, 0, False, True, [1], 1.0, {1: 5}, False, b"", "", True]


def envelope(**fields: Any) -> bytes:
    """Return an honest envelope of node a on shard 1, with other ``fields``; an abort names a change set."""
    if fields.get("kind") == KIND_ABORT:
        fields = {"body": encode_abort(ChangeSetId("b", "s", 1)), **fields}
    return msgspec.msgpack.encode([fields.get(name, good) for name, good in zip(FIELDS, GOOD, strict=True)])


def outcome(payload: bytes, subject: str = "p.1.a", shard: int = 1, shards: int | None = SHARDS) -> str:
    """Return which of the three a message is; whatever else is raised is the test's failure."""
    try:
        decode_envelope(StreamMessage(shard, 1, subject, payload), shards)
    except ForeignMessageError:
        return "foreign"
    except WireError:
        return "newer"
    return "honest"


CONTRADICTIONS: dict[str, dict[str, Any]] = {
    "no shard": {"shards": []},
    "another shard only": {"shards": [0]},
    "a shard twice": {"shards": [1, 1]},
    "another shard twice": {"shards": [0, 1, 0]},
    "a shard that does not exist": {"shards": [1, SHARDS]},
    "a shard below zero": {"shards": [-1, 1]},
    "a number below zero": {"number": -1},
    "a number that SQLite can't keep": {"number": LARGEST + 1},
    "an index below zero": {"index": -1},
    "an index that SQLite can't keep": {"index": LARGEST + 1},
    "a block that continues after the last message": {"more": True},
    "a time that is none": {"time": float("nan")},
    "a time that never comes": {"time": float("inf")},
    "a time before 1970": {"time": -1.0},
    "a time whose sum has no end": {"time": 1e308},
    "a time as far back": {"time": -1e308},
    "a time after the year 9999": {"time": 253370764801.0},
    "a session as long as a book": {"session": "s" * (NAME_CHARACTERS + 1)},
    "a session of two lines": {"session": "s\n"},
    "a history of two lines": {"history": "h\x7f"},
    "a history as long as a book": {"history": "h" * (NAME_CHARACTERS + 1)},
}


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("fields", CONTRADICTIONS.values(), ids=CONTRADICTIONS)
def test_what_contradicts_itself_is_foreign_whatever_its_kind(kind: int, fields: dict[str, Any]) -> None:
    assert outcome(envelope(kind=kind)) == ("newer" if kind > KIND_ABORT else "honest")
    assert outcome(envelope(kind=kind, **fields)) == "foreign"


@pytest.mark.parametrize("fields", [{"index": 1}, {"last": False}, {"more": True, "last": False}])
@pytest.mark.parametrize("kind", [KIND_CHECKPOINT, KIND_ABORT])
def test_a_checkpoint_or_an_abort_in_several_messages_is_foreign(kind: int, fields: dict[str, Any]) -> None:
    assert outcome(envelope(**fields)) == "honest"
    assert outcome(envelope(kind=kind, **fields)) == "foreign"


@pytest.mark.parametrize("body", [b"", b"\xff", b"\x90", b"\x93\xa0\xa1s\x01", b"\x93\xa1b\xa1s\xff"])
def test_an_abort_that_names_no_change_set_is_foreign(body: bytes) -> None:
    assert outcome(envelope(kind=KIND_ABORT)) == "honest"
    assert outcome(envelope(kind=KIND_ABORT, body=body)) == "foreign"
    assert outcome(envelope(body=body)) == "honest", "of what a change set holds, its block decides"


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("subject", ["p.1.b", "p.1.A", "p.1.=61", "p.1.", "p.1.a.", "", "p.interim.north.1.1.b"])
def test_a_message_in_the_name_of_another_node_is_foreign(kind: int, subject: str) -> None:
    assert outcome(envelope(kind=kind), subject) == "foreign"
    assert outcome(envelope(kind=kind, version=VERSION + 1), subject) == "foreign"


@given(st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=NAME_CHARACTERS))
def test_a_node_of_any_name_speaks_on_its_own_subject(node: str) -> None:
    for subject in (f"p.1.{token(node)}", f"p.interim.north.1.1.{token(node)}"):
        assert outcome(envelope(node=node), subject) == "honest"


@pytest.mark.parametrize("node", ["", "n" * (NAME_CHARACTERS + 1), "n\n", "\x1b[2J"])
def test_a_name_that_no_node_can_have_is_foreign(node: str) -> None:
    assert outcome(envelope(node=node), f"p.1.{token(node) if node else node}") == "foreign"


def test_elements_that_a_later_program_adds_are_passed_over() -> None:
    assert outcome(msgspec.msgpack.encode([*GOOD, "more", 7])) == "honest"
    for absent in (1, 2):
        assert outcome(msgspec.msgpack.encode(GOOD[:-absent])) == "honest", "what an earlier one had not is not missed"


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("version", [2, 100, 1000, LARGEST])
def test_a_newer_version_is_told_from_what_is_no_message_at_all(kind: int, version: int) -> None:
    assert outcome(envelope(kind=kind, version=version)) == "newer"
    assert outcome(envelope(kind=kind, version=version, shards=[])) == "newer", "who knows what it means there"
    assert outcome(msgspec.msgpack.encode([version, kind, "a"])) == "newer", "another shape"
    assert outcome(msgspec.msgpack.encode([version, kind, "a", *range(40)])) == "newer", "a larger shape"
    assert outcome(msgspec.msgpack.encode([version, kind, "a"])[:-1]) == "foreign", "cut off"


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\n",
        b"hello",
        b"{}",
        b"\x00",
        b"\xc1",
        b"\xff" * 100,
        envelope(version=0),
        envelope(version=-1),
        envelope()[:-1],
        envelope() + b"x",
        envelope(body="text"),
        envelope(session=5),
        envelope(node=None),
        msgspec.msgpack.encode([2]),
        msgspec.msgpack.encode([2, 0]),
        msgspec.msgpack.encode([2, 0, b"a"]),
    ],
)
def test_what_is_not_in_our_format_is_foreign(payload: bytes) -> None:
    assert outcome(payload) == "foreign"


ANY = st.recursive(
    st.one_of(
        st.integers(-(2**63), 2**64 - 1),
        st.floats(),
        st.text(max_size=4),
        st.binary(max_size=4),
        st.booleans(),
        st.none(),
        st.sampled_from(["a", "s"]),
    ),
    lambda more: st.one_of(st.lists(more, max_size=4), st.dictionaries(st.integers(0, 9), more, max_size=3)),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from(FIELDS), ANY, max_size=4), st.integers(0, 4), st.sampled_from([None, 1, 3]))
@example({"shards": [1] * 100_000}, 1, None)
@example({"shards": list(range(100_000))}, 1, 3)
def test_any_message_is_one_of_the_three_and_always_the_same(
    fields: dict[str, Any], shard: int, shards: int | None
) -> None:
    payload = envelope(**fields)
    found = outcome(payload, shard=shard, shards=shards)
    assert found in ("honest", "foreign", "newer")
    assert outcome(payload, shard=shard, shards=shards) == found


@given(st.binary(max_size=60))
def test_any_bytes_are_one_of_the_three(payload: bytes) -> None:
    assert outcome(payload) in ("foreign", "newer")


def test_why_a_message_is_foreign_is_a_short_sentence() -> None:
    with pytest.raises(ForeignMessageError) as caught:
        decode_envelope(StreamMessage(1, 1, "p.1.a", envelope(shards=[1, *range(5, 100_000)])), SHARDS)
    assert str(caught.value) == "it names shard 99999, and there are 3 shards"
    with pytest.raises(ForeignMessageError) as caught:
        decode_envelope(StreamMessage(0, 1, "p.0.a", envelope(shards=list(range(1, 100_000)))), SHARDS)
    assert str(caught.value) == "it is on shard 0 and names the shards [1, 2, 3, 4, 5, 6, 7, 8, …]"
