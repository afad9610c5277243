"""Where a new history begins in streams that lost their tail, were made again, or are those of an earlier history."""

from __future__ import annotations

import pytest

from harmonylite.changes.epochs import PAST_KEPT, Left, Lineage, drift, further, held, newest, relation, start_in
from harmonylite.model import ChangeSetId, Position, StreamInfo

VOID = (ChangeSetId("n", "s", 1),)
LAST = (5, ChangeSetId("n", "s", 2))


def stream(created: str, first: int, last: int, *forks: tuple[str, int]) -> StreamInfo:
    return StreamInfo(0, first, last, created, forks=forks)


def after(*past: Left, created: str = "now", seq: int = 5) -> Lineage:
    """Return a standing whose earlier histories were left at ``past``, oldest first."""
    return Lineage("h", {0: Position(0, seq, created=created)}, {f"h{n}": left for n, left in enumerate(past)})


@pytest.mark.parametrize(
    ("position", "info", "common", "left", "start"),
    [
        (Position(0, 5, 4, "now", VOID, LAST), stream("now", 1, 9), 5, None, Position(0, 5, 4, "now", VOID, LAST)),
        (Position(0, 5, 4, "old", VOID, LAST), stream("now", 1, 9), 5, None, Position(0, 5, 4, "now", VOID, LAST)),
        (Position(0, 5, 2, "now", VOID, LAST), stream("now", 4, 9), 5, None, Position(0, 5, 4, "now", VOID, LAST)),
        (Position(0, 5, 4, "now", VOID, LAST), stream("now", 1, 3), 3, None, Position(0, 3, 4, "now")),
        (Position(0, 5, 4, "now", VOID, LAST), stream("now", 4, 9), 2, None, Position(0, 3, 4, "now")),
        (Position(0, 5, 4, "now", VOID, LAST), stream("now", 1, 9), 0, None, Position(0, 0, 1, "now")),
        (Position(0, 5, 6, "old", VOID, LAST), stream("now", 1, 0), None, None, Position(0, 0, 1, "now")),
        (Position(0, 5, 6, "old", VOID, LAST), stream("now", 7, 9), None, None, Position(0, 6, 7, "now")),
        (Position(0, 5, 6, "old", VOID, LAST), stream("now", 1, 9), None, 4, Position(0, 4, 1, "now")),
        (Position(0, 5, 6, "old", VOID, LAST), stream("now", 7, 9), None, 4, Position(0, 6, 7, "now")),
        (Position(0, 5, 6, "old", VOID, LAST), stream("now", 3, 9), None, 0, Position(0, 2, 3, "now")),
        (Position(0, 5, 6, "now", VOID, LAST), stream("now", 1, 9), 3, 4, Position(0, 3, 4, "now")),
    ],
    ids=[
        "all is there",
        "under another identity",
        "what was under way is forgotten",
        "a lost tail",
        "a lost tail before the oldest kept message",
        "nothing of it",
        "made again",
        "made again and purged",
        "an earlier history's",
        "an earlier history's, and purged",
        "an earlier history's, never folded",
        "what is in both counts more than an earlier history",
    ],
)
def test_a_beginning_goes_on_after_what_mirror_and_stream_have_in_common(
    position: Position, info: StreamInfo, common: int | None, left: int | None, start: Position
) -> None:
    assert start_in(position, info, common, left) == start


@pytest.mark.parametrize(
    ("past", "info", "left"),
    [
        ([], stream("a", 1, 9), None),
        ([{0: ("a", 5)}], stream("a", 1, 9), 5),
        ([{0: ("a", 5)}], stream("a", 1, 5), 5),
        ([{0: ("a", 5)}], stream("a", 1, 3), 3),
        ([{0: ("a", 5)}], stream("b", 1, 9), None),
        ([{0: ("", 5)}], stream("a", 1, 9), None),
        ([{1: ("a", 5)}], stream("a", 1, 9), None),
        ([{0: ("a", 5)}, {0: ("b", 7)}], stream("a", 1, 9), 5),
        ([{0: ("a", 5)}, {0: ("b", 7)}], stream("b", 1, 9), 7),
        ([{0: ("a", 5)}, {0: ("a", 8)}], stream("a", 1, 9), 8),
        ([{0: ("a", 8)}, {0: ("a", 2)}], stream("a", 1, 9), 2),
        ([{0: ("a", 5)}], stream("b", 1, 9, ("a", 5)), 5),
        ([{0: ("a", 5)}], stream("b", 1, 9, ("a", 4)), None),
        ([{0: ("a", 5)}], stream("b", 1, 4, ("a", 4)), 4),
    ],
)
def test_an_earlier_history_is_known_by_the_very_stream_that_it_was_left_in(
    past: list[Left], info: StreamInfo, left: int | None
) -> None:
    assert after(*past).left_in(info) == left


@pytest.mark.parametrize(
    ("past", "created", "back"),
    [
        ([], "a", False),
        ([{0: ("a", 5)}], "a", False),
        ([{0: ("a", 5)}], "b", False),
        ([{0: ("a", 5)}, {0: ("b", 7)}], "a", True),
        ([{0: ("a", 5)}, {0: ("b", 7)}], "b", False),
        ([{0: ("a", 5)}, {0: ("b", 7)}], "c", False),
        ([{0: ("a", 5)}, {0: ("b", 7)}, {0: ("a", 9)}], "b", True),
        ([{0: ("", 5)}, {0: ("b", 7)}], "", False),
        ([{0: ("a", 5)}, {1: ("b", 7)}], "a", True),
    ],
)
def test_a_history_is_back_in_a_stream_that_it_had_left_for_another_one(
    past: list[Left], created: str, back: bool
) -> None:
    assert after(*past, created=created).is_back(0) is back


def test_a_new_history_remembers_where_the_one_before_was_left_the_first_one_and_the_newest() -> None:
    lineage = after({0: ("a", 5)}, created="b", seq=7)
    begun = lineage.next_epoch("next", {0: Position(0, 0, 1, "c")})
    assert begun == Lineage("next", {0: Position(0, 0, 1, "c")}, {"h0": {0: ("a", 5)}, "h": {0: ("b", 7)}})
    for n in range(PAST_KEPT + 5):
        begun = begun.next_epoch(f"n{n}", begun.positions)
    newest = [f"n{n}" for n in range(5, PAST_KEPT + 4)]
    assert list(begun.past) == ["h0", *newest], "the newest are kept, in their order, after the cluster's first"


@pytest.mark.parametrize(
    ("created", "seq", "left", "more"),
    [
        ("a", 5, {0: ("a", 5)}, frozenset()),
        ("a", 6, {0: ("a", 5)}, frozenset({0})),
        ("a", 4, {0: ("a", 5)}, frozenset()),
        ("a", 5, {0: ("b", 5)}, None),
        ("", 6, {0: ("b", 5)}, frozenset({0})),
        ("a", 6, {0: ("", 5)}, frozenset({0})),
        ("a", 1, {1: ("a", 5)}, frozenset({0})),
        ("a", 0, {1: ("a", 5)}, frozenset()),
    ],
)
def test_who_holds_more_is_told_shard_by_shard_in_the_same_stream_only(
    created: str, seq: int, left: Left, more: frozenset[int] | None
) -> None:
    mine = Lineage("mine", {0: Position(0, seq, created=created)})
    other = Lineage("other", {}, {"mine": left})
    assert further(mine, other) == more
    assert relation(mine, other) == ("diverged" if more is None else "ahead" if more else "behind")


def test_the_node_with_the_longest_past_begins_whatever_its_positions_are_and_the_last_by_name_of_equals() -> None:
    short, long = after(seq=100), after({0: ("a", 5)}, seq=1)
    assert newest([("z", short), ("a", long)]) == "a"
    assert newest([("a", short), ("b", after(seq=99))]) == "a"
    assert newest([("a", short), ("b", short), ("c", after(seq=99))]) == "b"


def test_a_node_holds_the_further_position_of_each_shard_also_where_its_database_has_none() -> None:
    database = Lineage("h", {0: Position(0, 7, 8, "a")})
    mirror = Lineage("h", {0: Position(0, 5, 6, "a"), 1: Position(1, 3, 4, "a")}, {"before": {0: ("z", 1)}})
    both = held(database, mirror)
    assert both.positions == {0: Position(0, 7, 8, "a"), 1: Position(1, 3, 4, "a")}
    assert (both.history, both.past) == (mirror.history, mirror.past)


def test_a_database_is_restored_when_it_is_behind_on_any_shard_that_it_knows() -> None:
    mirror = Lineage("h", {0: Position(0, 5), 1: Position(1, 3)})
    assert drift(Lineage("h", {0: Position(0, 9), 1: Position(1, 2)}), mirror) == "behind"
    assert drift(Lineage("h", {0: Position(0, 5)}), mirror) == "same", "it never merged the other shard"
