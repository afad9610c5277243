"""Bytes that nobody of ours wrote end in a WireError: no other error, no memory that they didn't bring along."""

from __future__ import annotations

import sys
import tracemalloc
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harmonylite.model import StreamMessage
from harmonylite.wire import (
    MOST_PACKED_BYTES,
    WireError,
    decode_abort,
    decode_block,
    decode_envelope,
    decode_value,
    encode_block,
)

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

DECODERS: dict[str, Callable[[bytes], Any]] = {
    "envelope": lambda payload: decode_envelope(StreamMessage(0, 1, "p.0.n", payload), 1),
    "block": lambda body: decode_block(body, packed=False),
    "packed block": lambda body: decode_block(body, packed=True),
    "value": decode_value,
    "abort": decode_abort,
}
LENGTHS = {
    "array": b"\xdd\xff\xff\xff\xff",
    "map": b"\xdf\xff\xff\xff\xff",
    "text": b"\xdb\xff\xff\xff\xff",
    "blob": b"\xc6\xff\xff\xff\xff",
    "extension": b"\xc9\xff\xff\xff\xff\x01",
    "table": b"\x91\x96\xa1t\xdd\xff\xff\xff\xf0\xa1k",
    "rows": b"\x91\x96\xa1t\x91\xa1k\x01\xdd\xff\xff\xff\xf0\x91\xc0",
}


def refused(decode: Callable[[bytes], Any], data: bytes) -> bool:
    """Return whether ``data`` is refused; whatever is not a WireError is the test's failure."""
    try:
        decode(data)
    except WireError:
        return True
    return False


@pytest.mark.parametrize("decode", DECODERS.values(), ids=DECODERS)
@given(data=st.binary(max_size=400))
def test_any_bytes_decode_or_are_refused(decode: Callable[[bytes], Any], data: bytes) -> None:
    refused(decode, data)


@given(data=st.binary(max_size=200))
def test_any_bytes_within_a_sound_frame_decode_or_are_refused(data: bytes) -> None:
    refused(DECODERS["packed block"], zstd.compress(data))


@pytest.mark.parametrize("decode", DECODERS.values(), ids=DECODERS)
@pytest.mark.parametrize("data", LENGTHS.values(), ids=LENGTHS)
def test_a_length_that_lies_takes_no_memory(decode: Callable[[bytes], Any], data: bytes) -> None:
    tracemalloc.start()
    try:
        assert refused(decode, data)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("decode", DECODERS.values(), ids=DECODERS)
@pytest.mark.parametrize("data", [b"\x91" * 200_000, b"\x81\xa1k" * 200_000], ids=["arrays", "maps"])
def test_nesting_without_end_is_refused(decode: Callable[[bytes], Any], data: bytes) -> None:
    assert refused(decode, data)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("value", b"\xa2\xff\xfe"),
        ("abort", b"\x93\xa2\xff\xfe\xa1s\x01"),
        ("envelope", b"\x9d\x01\x00\xa2\xff\xfe\xa1s\x01\x00\xc2\xc3\x90\xcb" + bytes(8) + b"\x80\xc2\xc4\x00"),
        ("block", b"\x91\x96\xa2\xff\xfe\x91\xa1k\x01\x90\x90\x90"),
    ],
)
def test_names_that_are_not_utf8_are_refused(name: str, data: bytes) -> None:
    assert refused(DECODERS[name], data)


def test_an_extension_that_is_not_known_is_refused_by_its_number() -> None:
    with pytest.raises(WireError, match="extension type 7 is not known"):
        decode_value(b"\xd4\x07a")


def test_a_small_message_does_not_unfold_to_a_huge_block() -> None:
    bomb = zstd.compress(bytes(MOST_PACKED_BYTES + 1), level=1)
    with pytest.raises(WireError, match="larger than"):
        decode_block(bomb, packed=True)


def test_a_frame_that_hides_its_size_does_not_unfold_to_a_huge_block() -> None:
    compressor = zstd.ZstdCompressor(level=1)
    bomb = compressor.compress(bytes(MOST_PACKED_BYTES + 1)) + compressor.flush()
    with pytest.raises(WireError, match="too large"):
        decode_block(bomb, packed=True)


def test_a_block_of_the_largest_size_is_compressed_and_a_larger_one_is_not() -> None:
    _, packed = encode_block([bytes(MOST_PACKED_BYTES - 1)], compress=True)
    assert packed
    _, packed = encode_block([bytes(MOST_PACKED_BYTES)], compress=True)
    assert not packed


@pytest.mark.parametrize("spoil", [lambda body: body[:-3], lambda body: body + b"more"], ids=["cut off", "longer"])
def test_a_frame_with_another_end_is_refused(spoil: Callable[[bytes], bytes]) -> None:
    body = zstd.compress(b"\x90" + bytes(2000))
    assert refused(DECODERS["packed block"], spoil(body))


@pytest.mark.parametrize(
    "victim",
    [("", "s", 1), ("n" * 129, "s", 1), ("n\n", "s", 1), ("n", "s" * 129, 1), ("n", "s", -1), ("n", "s", 2**63)],
)
def test_an_abort_of_a_change_set_that_can_not_exist_is_refused(victim: tuple[str, str, int]) -> None:
    assert not refused(DECODERS["abort"], msgspec.msgpack.encode(("n", "s", 2**63 - 1)))
    assert refused(DECODERS["abort"], msgspec.msgpack.encode(victim))
