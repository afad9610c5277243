"""The simulation can fail: whichever rule is left out, a schedule soon breaks a property."""

from __future__ import annotations

import pytest

from tests.simulation.properties import BrokenError
from tests.simulation.rules import RULES
from tests.simulation.run import run

SEEDS = {}
"""A schedule that fails without the rule; where the simulation itself changes, any that does is as good."""


@pytest.mark.parametrize("what", RULES)
def test_a_schedule_fails_when(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    RULES[what](monkeypatch)
    with pytest.raises(BrokenError):
        run(SEEDS[what])


@pytest.mark.parametrize("what", RULES)
def test_the_same_schedule_passes_unless(what: str) -> None:
    run(SEEDS[what])
