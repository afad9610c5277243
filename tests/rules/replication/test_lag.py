"""The lag in seconds is the age of the oldest message that is not folded, whatever arrives and whatever clocks say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harmonylite.progress import ShardStatus
from harmonylite.replication.lag import Lag

Steps = list[tuple[str, float]]

STEPS = st.lists(
    st.tuples(st.sampled_from(["store", "read", "fold", "look", "date"]), st.floats(0.0, 100.0)), max_size=60
)
SKEWS = st.floats(-1e6, 1e6)


class World:
    """A stream, a node that reads and folds it, and the truth. The server's clock is ``skew`` ahead of the node's."""

    def __init__(self, skew: float) -> None:
        self.skew = skew
        self.now = 1000.0
        self.stored: list[float] = []
        self.read = 0
        self.state = ShardStatus(0)
        self.lag = Lag(self.state)

    def do(self, step: str) -> None:
        state = self.state
        if step == "store":
            self.stored.append(self.now)
        elif step == "read":
            self.read = state.last = len(self.stored)
            self.lag.moved(self.now, self.known())
        elif step == "fold" and state.position < self.read:
            state.position += 1
            self.lag.moved(self.now, self.known())
        elif step == "look":
            self.lag.observe(self.now + self.skew, self.now)
            state.last = len(self.stored)
            self.lag.moved(self.now)
            self.lag.moved(self.now, self.known())
        elif step == "date" and self.lag.undated:
            self.lag.moved(self.now, self.stored[self.lag.undated - 1] + self.skew)

    def known(self) -> float:
        """Return when the oldest message was stored, by the server's clock, where it was read."""
        oldest = self.state.position + 1
        return self.stored[oldest - 1] + self.skew if oldest <= self.read else 0.0

    @property
    def age(self) -> float:
        return self.now - self.state.behind_since if self.state.behind_since else 0.0

    @property
    def truth(self) -> float:
        """The age of the oldest message that is not folded, of those that the node can know of."""
        return self.now - self.stored[self.state.position] if self.state.lag else 0.0


@given(STEPS, SKEWS)
def test_whatever_happens_the_lag_is_the_oldest_messages_age(steps: Steps, skew: float) -> None:
    world = World(skew)
    world.lag.observe(world.now + skew, world.now)
    for step, passes in steps:
        before, position = world.age, world.state.position
        world.now += passes
        if world.state.lag and before:
            assert world.age == pytest.approx(before + passes), "it grows while nothing happens"
        world.do(step)
        if world.lag.undated:
            assert 0.0 <= world.age <= world.truth + 1e-3, "what nobody knows the age of is no older than it can be"
        else:
            assert world.age == pytest.approx(world.truth, abs=1e-3)
        if world.state.position == position and world.state.lag and before:
            assert world.age >= before + passes - 1e-3, f"{step} made it younger while it was stuck"


def test_messages_behind_a_stuck_one_change_nothing() -> None:
    """The lag stood still as soon as a second message waited, so no alert on it ever fired."""
    world = World(0.0)
    for step in ("look", "store", "read"):
        world.do(step)
    for second in range(1, 300):
        world.now += 1.0
        for step in ("store", "read", "look"):
            world.do(step)
        assert world.age == pytest.approx(second)


def test_a_message_from_before_the_start_has_its_whole_age() -> None:
    world = World(-3600.0)
    world.do("store")
    world.now += 500.0
    for step in ("look", "read"):
        world.do(step)
    assert world.age == pytest.approx(500.0)


def test_without_the_servers_clock_the_age_counts_from_when_it_was_seen() -> None:
    state = ShardStatus(0, last=4)
    lag = Lag(state)
    lag.observe(0.0, 1000.0)
    lag.moved(1000.0)
    assert lag.undated == 1
    assert state.behind_since == 1000.0


def test_a_server_whose_clock_is_set_back_makes_no_negative_age() -> None:
    state = ShardStatus(0, last=4)
    lag = Lag(state)
    lag.observe(50.0, 1000.0)
    lag.moved(1000.0, 90.0)
    assert state.behind_since <= 1000.0
