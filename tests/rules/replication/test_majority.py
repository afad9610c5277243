"""Which of several mirrors are right when they differ."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harmonylite.replication.majority import Digest, majority_of, schema_differences

Answers = dict[str, tuple[str, int]]


def digests(found: Answers) -> dict[str, Digest]:
    return {node: Digest(node, {"t": rows, "u": "same"}, {0: 9}, lacks=lacks) for node, (rows, lacks) in found.items()}


@pytest.mark.parametrize(
    ("found", "right"),
    [
        ({"a": ("x", 0)}, "a"),
        ({"a": ("x", 0), "b": ("x", 0)}, "ab"),
        ({"a": ("x", 0), "b": ("y", 0)}, ""),
        ({"a": ("x", 0), "b": ("y", 0), "c": ("y", 0)}, "bc"),
        ({"a": ("x", 0), "b": ("y", 0), "c": ("z", 0)}, ""),
        ({"a": ("x", 0), "b": ("x", 0), "c": ("y", 0), "d": ("y", 0)}, ""),
        # who left a message out has no say against those that did not, however many they are
        ({"a": ("x", 1), "b": ("y", 0)}, "b"),
        ({"a": ("x", 1), "b": ("x", 1), "c": ("y", 0)}, "c"),
        ({"a": ("x", 1), "b": ("y", 0), "c": ("z", 0)}, ""),
        ({"a": ("y", 1), "b": ("y", 0), "c": ("z", 0), "d": ("y", 0)}, "abd"),
        ({"a": ("x", 1), "b": ("x", 2)}, "ab"),
        ({"a": ("x", 1), "b": ("y", 2)}, ""),
    ],
)
def test_the_majority_of_those_that_have_a_say_is_right(found: Answers, right: str) -> None:
    answer = majority_of(digests(found))
    assert "".join(answer.right.nodes if answer.right is not None else ()) == right


@given(st.dictionaries(st.sampled_from("abcdefg"), st.tuples(st.sampled_from("xyz"), st.integers(0, 2)), min_size=1))
def test_every_node_is_on_one_side_and_the_right_one_is_more_than_half_of_those_with_a_say(found: Answers) -> None:
    answer = majority_of(digests(found))
    assert sorted(node for side in answer.all for node in side.nodes) == sorted(found)
    for side in answer.all:
        assert len({found[node][0] for node in side.nodes}) == 1
        assert all(side.differs({"t": found[n][0], "u": "same"}) == ["t"] for n in found if n not in side.nodes)
    if answer.right is not None:
        say = [node for node, (_, lacks) in found.items() if not lacks] or list(found)
        assert 2 * sum(node in answer.right.nodes for node in say) > len(say)


SCHEMAS = {
    "one": {"table t": "1", "index i": "1", "user_version": "0"},
    "another index": {"table t": "1", "index i": "2", "user_version": "0"},
    "no index": {"table t": "1", "user_version": "0"},
    "another number, and a view": {"table t": "1", "index i": "1", "user_version": "7", "view v": "1"},
    "not said": {},
}


@pytest.mark.parametrize(
    ("found", "differ"),
    [
        ({}, {}),
        ({"a": "one"}, {}),
        ({"a": "one", "b": "one", "c": "not said"}, {}),
        ({"a": "not said", "b": "not said"}, {}),
        ({"a": "one", "b": "one", "c": "another index"}, {"c": "a, b in index i"}),
        ({"a": "no index", "b": "one", "c": "one"}, {"a": "b, c in index i"}),
        ({"a": "one", "b": "no index"}, {"b": "a in index i"}),
        ({"a": "one", "b": "another number, and a view"}, {"b": "a in user_version, view v"}),
        (
            {"a": "one", "b": "no index", "c": "one", "d": "another index"},
            {"b": "a, c in index i", "d": "a, c in index i"},
        ),
    ],
)
def test_a_node_with_another_schema_is_named_with_what_differs(found: dict[str, str], differ: dict[str, str]) -> None:
    answers = {node: Digest(node, {}, {0: 9}, schema=SCHEMAS[what]) for node, what in found.items()}
    said = schema_differences(answers)
    assert said == {node: f"its schema differs from that of {what}" for node, what in differ.items()}
    assert len(majority_of(answers).all) <= 1, "a mirror is not repaired for its schema"
