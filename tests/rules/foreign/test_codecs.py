"""Every decoder of foreign bytes ends with a value within its bounds or with a ForeignError, whatever it is given."""

from __future__ import annotations

import json
import math
import tracemalloc
from collections.abc import Iterator
from functools import reduce
from operator import getitem
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harmonylite.errors import ForeignError
from harmonylite.foreign import DEEPEST, Codec, Text, Untyped
from tests.rules.foreign.codecs import GOOD, USES, every_codec

UNBOUNDED = {"an argument", "what the last stop noted"}
"""Checked by anyone who asked for it, and compared for equality only."""

CODECS = every_codec()
NAMES = sorted(CODECS)

ODD: list[Any] = [
    None,
    True,
    -1,
    0,
    2**31,
    2**63 - 1,
    2**63,
    2**64 - 1,
    -(2**63),
    1.5,
    -0.5,
    1e308,
    "",
    "../../x",
    "a\nb",
    "\x00",
    "*.>",
    "x" * 5000,
    "\u202e",
    [],
    {},
    [[]],
    {"": {}},
    {"-1": 5},
    {"5000": 1},
    ["x"] * 2000,
    "ä" * 300,
]
"""What a field may hold instead of what it should."""
KINDS: list[Any] = [None, True, -1, 2**64 - 1, 1.5, "x", "a\nb", [], {}]
"""The same, one of each kind."""


def places(value: Any, here: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield where a value of lists and dictionaries holds something, itself first."""
    yield here
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in pairs:
        yield from places(each, (*here, key))


def put(value: Any, place: tuple[Any, ...], new: Any) -> Any:
    """Return a copy of ``value`` that holds ``new`` at ``place``."""
    if not place:
        return new
    copied = dict(value) if isinstance(value, dict) else list(value)
    copied[place[0]] = put(copied[place[0]], place[1:], new)
    return copied


def without(value: Any, place: tuple[Any, ...]) -> Any:
    """Return a copy of ``value`` without the key at ``place``."""
    if len(place) == 1:
        return {key: each for key, each in value.items() if key != place[0]}
    return put(value, place[:1], without(value[place[0]], place[1:]))


def renamed(value: Any, place: tuple[Any, ...], new: str) -> Any:
    """Return a copy of ``value`` with the key at ``place`` called ``new``."""
    if len(place) == 1:
        return {new if key == place[0] else key: each for key, each in value.items()}
    return put(value, place[:1], renamed(value[place[0]], place[1:], new))


def plain(codec: Codec[Any], good: Any) -> Any:
    """Return a good value as lists and dictionaries."""
    data = codec.encode(good)
    return msgspec.msgpack.decode(data) if codec.packed else json.loads(data)


def encoded(codec: Codec[Any], value: Any) -> bytes:
    """Return any value in the codec's format, within it or not."""
    return msgspec.msgpack.encode(value) if codec.packed else json.dumps(value).encode()


def texts(codec: Codec[Any], good: Any) -> Iterator[tuple[bytes, int, int]]:
    """Yield encoded values, each with begin and end of a text in it that the codec reads: a field's, or a key of a
    dictionary. The name of a field is none, nor is what an unknown field holds: another text there makes no difference.
    """
    if isinstance(codec, Text):
        yield codec.encode(good), 0, len(codec.encode(good))
        return
    value = plain(codec, good)
    for place in places(value):
        held = reduce(getitem, place, value)
        if isinstance(held, str):
            data, other = (encoded(codec, put(value, place, new)) for new in (held or "n", "~" * len(held or "n")))
            if found(codec, data) != found(codec, other):
                yield _text(codec, held or "n", data, other)
        if place and isinstance(place[-1], str) and place[-1]:
            data, other = encoded(codec, value), encoded(codec, renamed(value, place, "~" * len(place[-1])))
            if any(b"~" in codec.encode(each) for each in found(codec, other)):
                yield _text(codec, place[-1], data, other)


def _text(codec: Codec[Any], text: str, data: bytes, other: bytes) -> tuple[bytes, int, int]:
    """Return ``data`` and where ``text`` is in it, which is where ``other`` begins to differ."""
    start = next(at for at, (one, another) in enumerate(zip(data, other, strict=False)) if one != another)
    length = len(text.encode() if codec.packed else json.dumps(text)[1:-1])
    return data, start, start + length


@st.composite
def bent(draw: st.DrawFn, codec: Codec[Any]) -> bytes:
    """Return a good value of a codec with something else in it, at the level of values or of bytes."""
    good = draw(st.sampled_from(GOOD[codec.what]))
    data = codec.encode(good)
    if not isinstance(codec, Text) and draw(st.booleans()):
        value = plain(codec, good)
        for _ in range(draw(st.integers(1, 3))):
            value = put(value, draw(st.sampled_from(list(places(value)))), draw(st.sampled_from(ODD)))
        data = encoded(codec, value)
        if draw(st.booleans()):
            return data
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(data)))
        match draw(st.sampled_from(["flip", "cut", "insert", "repeat"])):
            case "flip" if at < len(data):
                data = data[:at] + bytes([data[at] ^ 1 << draw(st.integers(0, 7))]) + data[at + 1 :]
            case "cut":
                data = data[:at]
            case "insert":
                data = (
                    data[:at] + draw(st.sampled_from([b"\xff", b"\xed\xa0\x80", b"\x00", b"[", b"{", b'"'])) + data[at:]
                )
            case "repeat":
                data = data[:at] + data
    return data


def found(codec: Codec[Any], data: bytes) -> list[Any]:
    """Return what the codec decodes, [] where it refuses; whatever is no ForeignError is the test's failure."""
    try:
        return [codec.decode(data)]
    except ForeignError as error:
        refusal = str(error)
    assert refusal.startswith(codec.what), "an error says what the bytes were to be"
    assert refusal.isprintable(), "nothing that came reaches the log as it came"
    return []


def used(codec: Codec[Any], data: bytes) -> None:
    """Use what the codec decodes for what it is for: that raises nothing either."""
    for value in found(codec, data):
        if codec.what in USES:
            USES[codec.what](value)


def within(value: Any) -> bool:
    """Return whether every number in a decoded value can be stored and compared."""
    if isinstance(value, dict):
        return all(within(each) for pair in value.items() for each in pair)
    if isinstance(value, list | tuple):
        return all(map(within, value))
    if isinstance(value, int):
        return -(2**31) <= value < 2**63  # user_version is signed
    return not isinstance(value, float) or (math.isfinite(value) and value >= 0)


def test_every_codec_has_good_values_here() -> None:
    assert CODECS.keys() == GOOD.keys(), "a new codec needs good values in codecs.py, so that its decoder is mutated"
    assert USES.keys() <= GOOD.keys()


@pytest.mark.parametrize("name", NAMES)
def test_a_good_value_comes_back(name: str) -> None:
    codec = CODECS[name]
    for good in GOOD[name]:
        assert codec.decode(codec.encode(good)) == good
        if name in USES:
            USES[name](good)


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
def test_what_is_bent_is_a_value_within_bounds_or_refused(name: str, data: st.DataObject) -> None:
    codec = CODECS[name]
    for value in found(codec, data.draw(bent(codec))):
        if not isinstance(codec, Untyped) and name not in UNBOUNDED:
            assert within(msgspec.to_builtins(value, str_keys=False))
        if name in USES:
            USES[name](value)


@pytest.mark.parametrize("name", [name for name in NAMES if not isinstance(CODECS[name], Text)])
def test_each_field_in_turn_may_be_missing_or_of_another_kind(name: str) -> None:
    codec = CODECS[name]
    for good in GOOD[name]:
        value = plain(codec, good)
        for place in places(value):
            for new in KINDS:
                used(codec, encoded(codec, put(value, place, new)))
            if place and isinstance(place[-1], str):
                used(codec, encoded(codec, without(value, place)))


@pytest.mark.parametrize("name", NAMES)
@given(data=st.binary(max_size=300))
def test_any_bytes_are_a_value_or_refused(name: str, data: bytes) -> None:
    found(CODECS[name], data)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "data",
    [b"[" * 60_000, b'{"a":' * 10_000, b"\x91" * 60_000, b"\x81\xa1a" * 20_000, b"9" * 60_000, b"\xdd\xff\xff\xff\xf0"],
    ids=["arrays", "objects", "packed arrays", "packed maps", "a number", "a length that lies"],
)
def test_nesting_and_numbers_without_end_are_refused(name: str, data: bytes) -> None:
    tracemalloc.start()
    try:
        assert not found(CODECS[name], data)
        assert tracemalloc.get_traced_memory()[1] < 16_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", NAMES)
def test_one_byte_that_is_not_utf8_in_any_text_is_refused(name: str) -> None:
    """At each byte of each text that the codec reads."""
    codec = CODECS[name]
    for good in GOOD[name]:
        for data, start, end in texts(codec, good):
            for at in range(start, end):
                assert not found(codec, data[:at] + b"\xff" + data[at + 1 :]), data[start:end]


def test_the_texts_of_a_codec_are_those_that_it_reads() -> None:
    for name, read in (
        ("a digest of a mirror", [b"n1", b"ab", b"t", b"table t", b"ab"]),
        ("a question for a digest", [b"n1/s-verify/1"]),
        ("the kept identity of the node", [b"n1", b"ab", b"cd", b"n"]),
        ("the name of a node", [b"n1"]),
    ):
        codec = CODECS[name]
        assert sorted(data[start:end] for data, start, end in texts(codec, GOOD[name][0])) == sorted(read)


@pytest.mark.parametrize("name", NAMES)
def test_a_size_beyond_the_bound_is_refused_before_anything_is_read(name: str) -> None:
    class Claims(bytes):
        def __len__(self) -> int:
            return CODECS[name].most + 1

    with pytest.raises(ForeignError, match="more than"):
        CODECS[name].decode(Claims())


def test_an_untyped_object_may_not_nest_deeper_than_an_encoder_can_follow() -> None:
    codec = CODECS["the report of a node"]
    for levels, fine in ((DEEPEST - 2, True), (DEEPEST, False)):
        inner: Any = 0
        for _ in range(levels):
            inner = [inner]
        assert bool(found(codec, json.dumps({"node_id": "n", "more": inner}).encode())) is fine


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("the description of a snapshot", {"name": "../../etc/passwd"}),
        ("the description of a snapshot", {"name": "snapshot-1\n"}),
        ("the description of a snapshot", {"older": ["snapshot-1/../x"]}),
        ("the description of a snapshot", {"positions": {"0": -1}}),
        ("the description of a snapshot", {"positions": {"0": 2**63}}),
        ("the description of a snapshot", {"resume": {"5000": 1}}),
        ("the description of a snapshot", {"sha256": "zz"}),
        ("the description of a snapshot", {"at": 1e300}),
        ("the description of a snapshot", {"history": "a\nERROR made up"}),
        ("at which position a node is", {"past": 2**62}),
        ("at which position a node is", {"past": -1}),
        ("where a failover begins", {"mark": "../../x"}),
        ("where a failover begins", {"starts": {}}),
        ("the description of an object", {"nuid": ">"}),
        ("the description of an object", {"nuid": "a.b"}),
        ("the control file", {"port": 70000}),
        ("the control file", {"token": "a\r\nX-More: yes"}),
        ("the kept identity of the node", {"node_id": "a/../b"}),
        ("the report of a node", {"node_id": ""}),
        ("the report of a node", {"shards": [{"shard": 0, "lag_messages": "many"}]}),
        ("the report of a node", {"counters": {"conflicts": None}}),
        ("an answer of JetStream", {"config": {"metadata": {"a": 5}}}),
    ],
)
def test_what_is_well_formed_and_can_not_be_meant_is_refused(name: str, change: dict[str, Any]) -> None:
    codec = CODECS[name]
    good = plain(codec, GOOD[name][0])
    assert found(codec, encoded(codec, good))
    assert not found(codec, encoded(codec, good | change))


@pytest.mark.parametrize("seconds", [0.0, -1.0, math.inf, math.nan, 1e9])
def test_a_question_asks_nobody_to_wait_for_ever(seconds: float) -> None:
    assert not found(CODECS["a question for a digest"], msgspec.msgpack.encode(("n/s/1", seconds)))
