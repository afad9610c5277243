"""Hundreds of schedules with lost streams, disks and backups, the same ones every time."""

from __future__ import annotations

import pytest

from tests.simulation.calamities import Calamities, run

pytestmark = pytest.mark.timeout(900)  # a busy machine may take its time; a schedule itself has an end

FOUND = (70_000_834, 70_006_831, 70_007_876)
"""Schedules that failed once, each for a reason of its own; they run to the number of steps that they draw."""
SEEDS = range(4_000_001, 4_000_061)
STEPS = 60


@pytest.mark.parametrize("first", SEEDS[::20])
def test_nodes_end_the_same_and_nothing_is_lost_whatever_strikes(first: int) -> None:
    for seed in range(first, first + 20):
        run(seed, steps=STEPS)


@pytest.mark.parametrize("seed", FOUND)
def test_what_once_went_wrong_stays_right(seed: int) -> None:
    run(seed)


def test_every_calamity_strikes() -> None:
    for seed in range(1, 1_000):
        if len(Calamities.counts) == 7:
            break
        run(seed, steps=STEPS)
    assert set(Calamities.counts) == {
        "back_up",
        "forget",
        "lose_disk",
        "lose_streams",
        "lose_tail",
        "restore",
        "save",
    }
