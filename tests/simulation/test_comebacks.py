"""Schedules in which files come back in every way, the same ones every time; leaving the rule out breaks them."""

from __future__ import annotations

import pytest

from harmonylite.recovery.build_database import DatabaseBuilder
from tests.simulation.calamities import run
from tests.simulation.comebacks import Comebacks
from tests.simulation.properties import BrokenError

pytestmark = pytest.mark.timeout(900)  # a busy machine may take its time; a schedule itself has an end

SEEDS = range(5_000_001, 5_000_013)
STEPS = 60


@pytest.mark.parametrize("first", SEEDS[::4])
def test_what_is_written_as_soon_as_a_file_is_there_undoes_nothing(first: int) -> None:
    for seed in range(first, first + 4):
        run(seed, steps=STEPS, kind=Comebacks)


def test_files_come_back_in_every_way() -> None:
    ways = {"lose_file", "heal", "appear", "lose_disk", "restore"}
    for seed in range(1, 1_000):
        if ways <= Comebacks.counts.keys():
            break
        run(seed, steps=STEPS, kind=Comebacks)
    assert ways <= Comebacks.counts.keys()


def test_a_schedule_fails_when_a_file_is_there_before_it_holds_all(monkeypatch: pytest.MonkeyPatch) -> None:
    async def at_once(*_: object, **__: object) -> None:
        pass

    monkeypatch.setattr(DatabaseBuilder, "_to_the_ends", at_once)
    with pytest.raises(BrokenError, match="a file that came back says"):
        run(1, kind=Comebacks)
