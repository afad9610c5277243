"""Slow tests are the first ones that each worker of a run begins."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.order import dealt


def test_each_worker_begins_with_its_share_of_the_slow_ones() -> None:
    assert dealt("ABC", "abcdefg", 2) == [*"ACabc", *"Bdefg"]
    assert dealt("", "abc", 2) == [*"abc"]


@given(st.integers(0, 9), st.integers(0, 30), st.integers(1, 7))
def test_nothing_is_lost_and_the_others_keep_their_order(slow: int, others: int, workers: int) -> None:
    found = dealt(range(-slow, 0), range(others), workers)
    assert sorted(found) == [*range(-slow, others)]
    assert [each for each in found if each >= 0] == [*range(others)]
