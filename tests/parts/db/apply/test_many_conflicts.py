"""Change sets that overrule each other in every row cost what their rows cost, once."""

from __future__ import annotations

from typing import Any

import pytest

from harmonylite.db.capture import merge_base
from harmonylite.db.mirror import conflict_journal
from tests.parts.db.fix_replicas import Group, Member

ROWS = 3_000


def filled(group: Group) -> tuple[Member, Member]:
    """Return two members with many rows."""
    a, b = group.several(2, "CREATE TABLE t(id INTEGER PRIMARY KEY, a, b)")
    a.run(
        "WITH RECURSIVE c(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM c WHERE i < ?)"
        " INSERT INTO t SELECT i, 0, 0 FROM c",
        (ROWS,),
    )
    group.settle()
    return a, b


def counted(patch: pytest.MonkeyPatch, module: Any, name: str) -> list[int]:
    """Return a list that grows with each call of a function."""
    calls: list[int] = []
    function = getattr(module, name)

    def counting(*args: Any, **options: Any) -> Any:
        calls.append(1)
        return function(*args, **options)

    patch.setattr(module, name, counting)
    return calls


def test_the_writers_of_overruled_rows_are_found_in_one_pass(group: Group, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = filled(group)
    for number in range(1, 31):
        a.run("UPDATE t SET a = 'seen' WHERE id = ?", (number,))
        a.send()
        a.receive()
    b.receive()
    a.run("UPDATE t SET b = 1")
    b.run("UPDATE t SET b = 2")
    assert a.send() == b.send() == ROWS
    a.receive()
    decoded = counted(monkeypatch, conflict_journal, "decode_block")
    b.receive()
    assert len(decoded) <= 100
    found = b.replica.conflicts(limit=ROWS + 1)
    assert {(c.key["id"], c.winning, c.overruled) for c in found} == {(i, 2, 1) for i in range(1, ROWS + 1)}
    assert {c.loser for c in found} == {"a"}


def test_what_writers_saw_of_many_rows_is_brought_up_to_date_row_by_row(
    group: Group, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = filled(group)
    b.run("UPDATE t SET b = 2")
    assert b.capture() == ROWS
    a.run("UPDATE t SET b = 1")
    a.send()
    b.receive()
    b.publish()
    b.run("UPDATE t SET b = 3")
    decoded = counted(monkeypatch, merge_base, "decode_value")
    b.receive()
    assert 0 < len(decoded) <= 3 * ROWS
    assert group.equal("t")[0] == (1, 0, 3)
    found = b.replica.conflicts(limit=2 * ROWS)
    assert {(c.key["id"], c.winning, c.overruled) for c in found} == {(i, 2, 1) for i in range(1, ROWS + 1)}
