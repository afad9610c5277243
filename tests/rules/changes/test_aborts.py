"""A node gives up on what stays unfinished: not before its time, not while it is behind, and once."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest

from harmonylite.changes.aborts import MOST_AT_ONCE, SPREAD, STALL, AbortRules, Place, Unfinished
from harmonylite.model import ChangeSetId

LEFT = (ChangeSetId("a", "s", 1), 0)
HOW = Unfinished(1, STALL)


@dataclass
class Look:
    """One node's looks at a stream of one shard, a second apart. ``read``, ``end``: how far it is read, and goes."""

    stalls: AbortRules = field(default_factory=lambda: AbortRules(random.Random(1)))
    read: int = 10
    end: int = 10
    now: float = 100.0

    def due(self, stuck: dict[Place, Unfinished]) -> list[Place]:
        """Look once."""
        self.now += 1.0
        return self.stalls.due(stuck, {0: self.read}, {0: self.end}, self.now)

    def seconds_until(self, stuck: dict[Place, Unfinished], most: int = 100) -> int:
        """Return after how many looks something is due; 0: never."""
        return next((i for i in range(1, most) if self.due(stuck)), 0)


@pytest.mark.parametrize("seed", range(20))
def test_it_is_due_after_its_time_and_a_little_more_that_differs_from_node_to_node(seed: int) -> None:
    after = Look(AbortRules(random.Random(seed))).seconds_until({LEFT: HOW})
    assert STALL + 1 < after <= STALL + SPREAD + 2


def test_not_all_nodes_are_through_at_once() -> None:
    after = [Look(AbortRules(random.Random(seed))).seconds_until({LEFT: HOW}) for seed in range(20)]
    assert len(set(after)) > 3


def test_a_message_more_starts_the_time_again() -> None:
    look = Look()
    assert not any(look.due({LEFT: Unfinished(count, STALL)}) for count in range(50))


def test_for_how_long_something_is_stuck_counts_while_its_shard_is_read_to_its_end() -> None:
    look = Look()
    for _ in range(4):
        look.due({LEFT: HOW})
    assert look.stalls.seconds(LEFT, look.now) == 3.0
    look.end = 11
    look.due({LEFT: HOW})
    look.due({LEFT: HOW})
    assert look.stalls.seconds(LEFT, look.now) == 0.0
    look.due({})
    assert look.stalls.seconds(LEFT, look.now) == 0.0


def test_many_that_are_stuck_together_are_due_together() -> None:
    look = Look()
    many = {(ChangeSetId("a", "s", n), 0): HOW for n in range(MOST_AT_ONCE)}
    for _ in range(int(STALL + SPREAD) + 2):
        due = look.due(many)
    assert due == list(many)


def test_a_node_that_is_behind_gives_up_on_nothing() -> None:
    look = Look(end=11)
    assert look.seconds_until({LEFT: HOW}) == 0
    look.read = 11
    assert look.seconds_until({LEFT: HOW}) > STALL


def test_a_node_that_reads_along_under_load_gives_up_though_the_end_is_always_ahead() -> None:
    look = Look()
    found = 0
    for _ in range(30):
        look.read, look.end = look.end, look.end + 5
        found += len(look.due({LEFT: HOW}))
    assert found


def test_no_second_abort_message_goes_out_before_the_first_was_read() -> None:
    look = Look()
    assert look.seconds_until({LEFT: HOW})
    look.stalls.given_up(LEFT, 50, look.now)
    assert look.seconds_until({LEFT: HOW}) == 0
    look.read = look.end = 50
    assert look.seconds_until({LEFT: HOW}) > STALL, "it had no effect: again, after a while"


def test_what_the_node_itself_left_behind_is_due_at_once_and_once() -> None:
    look = Look()
    own = {LEFT: Unfinished(1, 0.0)}
    assert look.due(own) == [LEFT]
    look.stalls.given_up(LEFT, 50, look.now)
    assert look.seconds_until(own) == 0


def test_an_abort_that_could_not_be_published_is_tried_in_the_next_round() -> None:
    look = Look()
    assert look.seconds_until({LEFT: HOW})
    assert look.due({LEFT: HOW}) == [LEFT]


def test_many_are_given_up_on_a_few_at_a_time() -> None:
    look = Look()
    many: dict[Place, Unfinished] = {(ChangeSetId(f"writer-{n}", "s", 1), 0): HOW for n in range(250)}
    told: dict[Place, int] = {}
    for _ in range(200):
        due = look.due(many)
        assert len(due) <= MOST_AT_ONCE
        for place in due:
            told[place] = told.get(place, 0) + 1
            look.end = look.read = look.read + 1
            look.stalls.given_up(place, look.read, look.now)
            del many[place]
    assert list(told.values()) == [1] * 250
