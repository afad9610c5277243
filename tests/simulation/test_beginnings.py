"""Schedules of nodes that begin a cluster at the same time, the same ones every time."""

from __future__ import annotations

import pytest

from tests.simulation import beginnings
from tests.simulation.beginnings import run
from tests.simulation.properties import BrokenError

SEEDS = range(1, 61)
NAMELESS = (1, 2, 5, 6)
"""Schedules that fail where first histories have no names of their own."""


@pytest.mark.parametrize("first", SEEDS[::5])
def test_nodes_that_begin_at_once_end_the_same(first: int) -> None:
    for seed in range(first, first + 5):
        run(seed)


@pytest.mark.parametrize("seed", NAMELESS)
def test_a_schedule_fails_when_two_beginnings_can_not_be_told_apart(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beginnings, "name_of", lambda _: "")
    with pytest.raises(BrokenError):
        run(seed)
