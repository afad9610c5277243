"""``user_version`` travels: what it is last, in the order, it is everywhere."""

from __future__ import annotations

import pytest

from tests.parts.db.fix_replicas import PAIRED, Group


@pytest.mark.parametrize("meanwhile", ["its own number is under way", "another node's number comes"])
@pytest.mark.parametrize("apply_schema", ["all", "additive", "none"])
def test_a_number_that_is_set_back_is_set_back_everywhere(group: Group, meanwhile: str, apply_schema: str) -> None:
    a, b = group.several(2, PAIRED, apply_schema=apply_schema)
    a.run("PRAGMA user_version = 1")
    if meanwhile.startswith("its own"):
        a.send()
    else:
        b.run("PRAGMA user_version = 6")
        b.send()
        a.receive()
    a.run("PRAGMA user_version = 0")
    group.settle()
    group.settle()  # a change set without a row moves nothing, as settling sees it
    b.replica.accept_schema()
    assert not b.replica.waiting_schema()
    if apply_schema != "none" or meanwhile.startswith("its own"):
        assert [a.run("PRAGMA user_version"), b.run("PRAGMA user_version")] == [[(0,)], [(0,)]]
