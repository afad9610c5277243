"""Which of several mirrors are right when they differ."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harmonylite.replication.majority import Digest, majority_of

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
