"""Every SQLite value survives the wire bit for bit, whatever is beside it."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harmonylite.model import RawText
from harmonylite.wire import (
    TableBlock,
    Updates,
    cut,
    decode_block,
    decode_value,
    encode_block,
    encode_tables,
    encode_value,
)
from tests.rules.wire.fix_values import ROWS, VALUES, bits


@given(VALUES)
def test_a_value_comes_back_bit_for_bit(value: Any) -> None:
    assert bits(decode_value(encode_value(value))) == bits(value)


@pytest.mark.parametrize(
    "value",
    [
        None,
        0,
        2**63 - 1,
        -(2**63),
        2**53 + 1,
        0.0,
        -0.0,
        1.0,
        float("inf"),
        float("-inf"),
        5e-324,
        "",
        "a\0b",
        "\0",
        "é",
        RawText(b"\xff\xfe"),
        RawText(b"a\x00\xe9"),
        b"",
        b"\0\xff",
        b"text",
    ],
    ids=bits,
)
def test_a_value_that_others_bend_comes_back_bit_for_bit(value: Any) -> None:
    assert bits(decode_value(encode_value(value))) == bits(value)


@given(st.text(), st.lists(ROWS, max_size=5), st.lists(ROWS, max_size=5), st.lists(ROWS, max_size=5), st.booleans())
def test_a_block_comes_back_whole(
    name: str, deletes: list[Any], inserts: list[Any], images: list[Any], compress: bool
) -> None:
    updates = [Updates([1, 2], images, [row[:2] for row in images])]
    block = TableBlock(name, ["k", "ä", ""], 1, deletes, inserts, updates)
    body, packed = encode_block([encode_tables(block), encode_tables(block)], compress=compress)
    first, second = decode_block(body, packed=packed)
    assert bits(first) == bits(second) == bits(block)


@pytest.mark.parametrize("count", [0, 1, 15, 16, 70_000])
def test_a_block_holds_any_number_of_tables(count: int) -> None:
    one = encode_tables(TableBlock("t", ["k"], 1, [], [[1]]))
    body, packed = encode_block([one] * count, compress=True)
    assert len(decode_block(body, packed=packed)) == count


@pytest.mark.parametrize("blob", [bytes(10_000_000), random.Random(1).randbytes(5000)], ids=["zeros", "noise"])
def test_a_block_is_compressed_only_where_that_makes_it_smaller(blob: bytes) -> None:
    one = encode_tables(TableBlock("t", ["k"], 1, [], [[blob]]))
    body, packed = encode_block([one], compress=True)
    assert packed == (len(body) < len(one)) == (not any(blob))
    assert decode_block(body, packed=packed)[0].inserts == [[blob]]


@given(st.binary(max_size=300), st.integers(1, 50))
def test_pieces_of_a_block_join_to_the_block(body: bytes, most: int) -> None:
    pieces = list(cut(body, most))
    assert b"".join(piece for piece, _ in pieces) == body
    assert all(len(piece) <= most for piece, _ in pieces)
    assert [more for _, more in pieces] == [True] * (len(pieces) - 1) + [False]
