"""An application that makes and drops tables while the node looks: one look sees one schema, and none ends the node."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import apsw
import pytest

from harmonylite.db import install
from harmonylite.db.mirror import table_shapes
from harmonylite.db.sqlite import introspection, side_effect_triggers
from tests.parts.db.fix_replicas import Group, Member

Q = "CREATE TABLE q(x INTEGER PRIMARY KEY, y TEXT UNIQUE)"
STATEMENTS = {
    "drops": ("DROP TABLE q",),
    "drops and makes again": ("DROP TABLE q", Q, "INSERT INTO q VALUES (2, 'new')"),
    "renames": ("ALTER TABLE q RENAME TO r",),
    "renames over": ("DROP TABLE t", "ALTER TABLE q RENAME TO t"),
    "drops a column": ("CREATE TABLE w(a, b)", "ALTER TABLE w DROP COLUMN b"),
    "makes": ("CREATE TABLE w(a TEXT PRIMARY KEY, b)", "INSERT INTO w VALUES ('w', 1)"),
}
PLACES: dict[str, tuple[Any, str]] = {
    "before the tables are listed": (install, "read_inventory"),
    "between the list and the shapes": (introspection, "read_shape"),
    "before a table's indexes are read": (introspection, "_unique"),
    "before the mirror's tables change": (table_shapes, "conform"),
    "before the triggers are listed": (install, "_ours"),
    "between the two transactions": (install, "_private_tables"),
    "before the application's triggers are looked at": (side_effect_triggers, "_compile"),
}


@pytest.mark.parametrize("statements", STATEMENTS)
@pytest.mark.parametrize("place", PLACES)
def test_tables_that_come_and_go_while_the_node_looks_end_nothing(
    group: Group, monkeypatch: pytest.MonkeyPatch, place: str, statements: str
) -> None:
    (a,) = group.several(1, "CREATE TABLE t(x INTEGER PRIMARY KEY, y TEXT)")
    a.run(Q)
    a.run("CREATE TRIGGER t_q AFTER INSERT ON t BEGIN SELECT 1; END")
    a.run("INSERT INTO q VALUES (1, 'old')")
    left = list(STATEMENTS[statements])
    module, name = PLACES[place]
    monkeypatch.setattr(module, name, _interrupted(a, getattr(module, name), left))
    group.settle()
    monkeypatch.undo()
    for sql in left:
        a.run(sql)
    group.settle()
    for table in a.replica.tables:
        assert a.rows(table) == a.rows(table, "mirror")
    assert set(a.replica.tables) == {
        row[0]
        for row in a.run("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT GLOB '__harmonylite__*'")
    }


def _interrupted(member: Member, call: Callable[..., Any], left: list[str]) -> Callable[..., Any]:
    """Return ``call`` with the application's next statement right before it, where nobody holds the write lock."""
    member.app.set_busy_timeout(0)

    def interrupted(*args: Any, **kwargs: Any) -> Any:
        if left:
            with suppress(apsw.BusyError):  # the node's transaction may have the lock just now
                member.run(left[0])
                left.pop(0)
        return call(*args, **kwargs)

    return interrupted


def test_a_table_that_is_made_and_dropped_again_and_again_ends_nothing(group: Group) -> None:
    (a,) = group.several(1, "CREATE TABLE t(x INTEGER PRIMARY KEY, y TEXT)")
    for turn in range(30):
        a.run(Q)
        a.run("INSERT INTO q VALUES (1, 'x')")
        if turn % 3:
            a.replica.reinstall()
        a.run(f"INSERT INTO t VALUES ({turn}, 'stays')")
        if turn % 2:
            a.send()
            a.receive()
        a.run("DROP TABLE q")
        if turn % 4 == 0:
            a.replica.reinstall()
    assert len(group.equal("t")) == 30
