"""A row's shard is the same on every node, in every version, and for every way to write its key."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harmonylite.changes.sharding import shard_of
from harmonylite.model import RawText
from tests.rules.wire.fix_values import VALUES

GOLDEN: list[tuple[str, tuple[Any, ...], int]] = [
    ("plain", (1,), 34673111),
    ("plain", (2,), 2602057837),
    ("t", (), 3823383384),
    ("t", (None,), 1048624934),
    ("t", ("a",), 1180885479),
    ("t", (b"a",), 4252944661),
    ("t", (RawText(b"\xff"),), 4142912550),
    ("t", (0,), 2783214998),
    ("t", (2.5,), 3542147565),
    ("t", (float("inf"),), 536657654),
    ("t", (2**63 - 1,), 1145295792),
    ("t", (-(2**63),), 1255236256),
    ("ü", ("ключ", 1), 1293247971),
]
"""What is in streams already: a change here takes rows away from their history."""


@pytest.mark.parametrize(("table", "key", "whole"), GOLDEN, ids=lambda value: repr(value)[:20])
@pytest.mark.parametrize("shards", [2, 3, 7, 64])
def test_the_hash_never_changes(table: str, key: tuple[Any, ...], whole: int, shards: int) -> None:
    assert shard_of(table, key, 1 << 32) == whole
    assert shard_of(table, key, shards) == whole % shards


@given(st.text(), st.lists(VALUES, max_size=4), st.integers(1, 100))
def test_a_shard_is_one_of_those_there_are(table: str, key: list[Any], shards: int) -> None:
    assert 0 <= shard_of(table, key, shards) < shards


@given(st.text(), st.lists(VALUES, max_size=4))
def test_one_shard_takes_all(table: str, key: list[Any]) -> None:
    assert shard_of(table, key, 1) == 0


@given(st.integers(-(2**63), 2**63 - 1))
def test_numbers_that_sqlite_holds_equal_share_a_shard(number: int) -> None:
    if float(number) == number:
        assert shard_of("t", (number,), 1 << 32) == shard_of("t", (float(number),), 1 << 32)


def test_zero_has_one_shard_whatever_its_sign() -> None:
    assert shard_of("t", (0.0,), 1 << 32) == shard_of("t", (-0.0,), 1 << 32)


def test_rows_spread_over_all_shards() -> None:
    counts = [0] * 8
    for key in range(8_000):
        counts[shard_of("t", (key,), 8)] += 1
    assert min(counts) > 800
