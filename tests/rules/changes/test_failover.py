"""Failovers: who can continue with one, where it begins, and that a mirror in it says so."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harmonylite.changes.epochs import Lineage, relation
from harmonylite.changes.failover import Failover, Start, beginning, mark_of
from harmonylite.model import Position

COPIED = {0: ("home", 10), 1: ("home-1", 20)}


def at(*seqs: int, parent: str = "home", resume: int | None = None) -> dict[int, Position]:
    names = [parent, f"{parent}-1"]
    return {s: Position(s, seq, resume if resume is not None else seq + 1, names[s]) for s, seq in enumerate(seqs)}


def order(upto: int, copied: int) -> Failover:
    return Failover(1, "m", {0: Start("home", upto, copied)}, 0.0)


@pytest.mark.parametrize(
    ("failover", "positions", "able"),
    [
        (order(10, 10), at(10), True),
        (order(10, 10), at(3), True),
        (order(10, 10), at(9, resume=4), True),
        (order(10, 10), at(11), False),
        (order(10, 10), at(10, parent="other"), False),
        (order(10, 10), {}, False),
        (order(12, 10), at(12), True),
        (order(12, 10), at(11), False),
        (order(12, 10), at(12, resume=11), False),
    ],
    ids=[
        "at its start",
        "behind, and the copy has the rest",
        "in a change set that is not whole",
        "beyond",
        "another",
        "in no order",
        "together beyond the copy",
        "what is between is nowhere",
        "half of it is nowhere",
    ],
)
def test_only_a_mirror_that_misses_nothing_goes_on_with_an_failover(
    failover: Failover, positions: dict[int, Position], able: bool
) -> None:
    assert failover.takes(positions) is able


@pytest.mark.parametrize(
    ("nodes", "ends", "able"),
    [
        ({"b1": at(10, 20), "b2": at(8, 20)}, (10, 20), "b1 b2"),
        ({"b1": at(12, 20), "b2": at(12, 20)}, (12, 20), "b1 b2"),
        ({"b1": at(12, 20), "b2": at(10, 20)}, (10, 20), "b2"),
        ({"b1": at(12, 20), "b2": at(12, 20), "b3": at(10, 19)}, (12, 20), "b1 b2"),
        ({"b1": at(12, 20), "b2": {}, "b3": at(9, 19), "b4": at(10, 7)}, (10, 20), "b3 b4"),
        ({"b1": at(12, 21), "b2": at(13, 21)}, (12, 21), "b1"),
        ({}, (10, 20), ""),
    ],
    ids=[
        "within the copy",
        "all read further from home",
        "one read further",
        "most read further",
        "one is in no order",
        "each read further by another",
        "nobody",
    ],
)
def test_an_failover_begins_where_most_can_go_on(
    nodes: dict[str, dict[int, Position]], ends: tuple[int, int], able: str
) -> None:
    starts, found = beginning(COPIED, nodes)
    assert tuple(start.upto for start in starts.values()) == ends
    assert " ".join(sorted(found)) == able
    assert [(start.parent, start.copied) for start in starts.values()] == list(COPIED.values())


@given(st.dictionaries(st.sampled_from(["b1", "b2", "b3"]), st.tuples(st.integers(0, 14), st.integers(15, 24))))
def test_it_never_begins_before_the_copys_end_and_names_exactly_those_who_can_go_on(
    nodes: dict[str, tuple[int, int]],
) -> None:
    lineage = {node: at(*seqs) for node, seqs in nodes.items()}
    starts, found = beginning(COPIED, lineage)
    failover = Failover(1, "m", starts, 0.0)
    assert all(start.upto >= start.copied for start in starts.values())
    assert found == {node for node, positions in lineage.items() if failover.takes(positions)}
    within = {node for node, (first, second) in nodes.items() if first <= 10 and second <= 20}
    assert len(found) >= len(within)


def test_a_mirror_in_an_failover_is_in_a_history_of_its_own() -> None:
    failover = order(10, 10)
    before = Lineage("", at(10))
    inside = before.next_epoch(failover.history, {0: Position(0, 10, 11, failover.order(0))})
    assert mark_of(inside) == "m"
    assert mark_of(before) == ""
    assert relation(inside, before) == "diverged", "its numbers are never compared with those of the primary order"
    assert failover.order(0) != Failover(1, "n", failover.starts, 0.0).order(0)
