"""Tables with as many columns as SQLite lets us compare, and databases with as many tables as somebody may have."""

from __future__ import annotations

from typing import Any

import apsw
import pytest

from harmonylite.changes.reassembler import Reassembler
from harmonylite.db.sqlite.introspection import WIDEST, TableRules
from harmonylite.db.tracking.tracked_table import SCRATCH
from harmonylite.errors import DatabaseBusyError
from tests.parts.db.fix_replicas import Group


def columns(count: int) -> list[str]:
    """Return names of columns besides the key."""
    return [f"c{i}" for i in range(count - 1)]


def all_set(names: list[str], value: str) -> str:
    """Return the SET clause that gives every column one value."""
    return ", ".join(f"{name} = {value}" for name in names)


@pytest.mark.parametrize("by_row", [False, True])
@pytest.mark.parametrize("width", [2, 340, WIDEST])
def test_a_wide_table_is_merged_and_every_overruled_column_is_in_the_journal(
    group: Group, width: int, by_row: bool
) -> None:
    rules = TableRules(by_row=("t",) if by_row else ())
    names = columns(width)
    a, b = group.several(2, f"CREATE TABLE t(id INTEGER PRIMARY KEY, {', '.join(names)})", rules=rules)
    a.run("INSERT INTO t(id) VALUES (1), (2)")
    group.settle()
    a.run(f"UPDATE t SET {all_set(names, '1')}")
    b.run(f"UPDATE t SET {all_set(names, '2')}")
    assert a.send() == b.send() == 2
    assert group.equal("t") == [(1, *[2] * len(names)), (2, *[2] * len(names))]
    found = a.replica.conflicts(limit=10_000)
    assert {(c.key["id"], c.column, c.winning, c.overruled) for c in found} == {
        (key, name, 2, 1) for key in (1, 2) for name in names
    }


def test_a_wide_row_of_any_bytes_is_updated_while_it_is_pending_elsewhere(group: Group) -> None:
    names, raw = columns(WIDEST), "CAST(x'ff' AS TEXT)"
    a, b = group.several(2, f"CREATE TABLE t(id TEXT PRIMARY KEY NOT NULL, {', '.join(names)}, UNIQUE(c0))")
    a.run("INSERT INTO t(id, c0) VALUES ('x', 1)")
    group.settle()
    a.run(f"UPDATE t SET {all_set(names, raw)}")
    b.run("UPDATE t SET c1 = 'mine', c2 = 'mine'")
    a.send()
    b.receive()
    b.run("UPDATE t SET c2 = NULL")
    (row,) = group.equal("t")
    assert row[:1] + row[2:4] == ("x", "mine", None)


def test_a_table_that_is_too_wide_is_left_out_and_said(group: Group) -> None:
    a, _ = group.several(
        2,
        f"CREATE TABLE t(id INTEGER PRIMARY KEY, {', '.join(columns(WIDEST + 1))})",
        "CREATE TABLE other(id PRIMARY KEY)",
    )
    assert a.replica.warnings["t"] == (f"table t is not replicated: it has {WIDEST + 1} columns; {WIDEST} are the most")
    a.run("INSERT INTO other VALUES (1)")
    a.run("INSERT INTO t(id) VALUES (1)")
    assert group.equal("other") == [(1, None)]


def test_a_lock_or_a_migration_elsewhere_makes_no_table_s_scratch_tables_anew(group: Group) -> None:
    a, b = group.several(2, *(f"CREATE TABLE t{i}(id INTEGER PRIMARY KEY, v)" for i in range(50)))
    made: list[str] = []

    def watch(_: apsw.Cursor, sql: str, bindings: Any) -> bool:
        if sql.startswith("CREATE TABLE temp."):
            made.append(sql.partition("(")[0])
        return True

    b.replica.connection.exec_trace = watch
    a.run("INSERT INTO t1 VALUES (1, 1)")
    a.send()
    b.app.execute("BEGIN IMMEDIATE")
    with pytest.raises(DatabaseBusyError):
        b.receive()
    b.app.execute("ROLLBACK")
    b.reassembler = Reassembler(b.replica.positions())
    assert not made
    for member in (a, b):
        member.run("CREATE TABLE later(id INTEGER PRIMARY KEY, v)")
        member.run("ALTER TABLE t2 ADD COLUMN w")
    b.replica.reinstall()
    changed = {b.replica.tables[name].scratch(kind) for name in ("t2", "later") for kind in (*SCRATCH, "image")}
    assert {sql.removeprefix("CREATE TABLE ") for sql in made} == changed
    b.run("INSERT INTO t1 VALUES (2, 2)")
    b.run("INSERT INTO later VALUES (1, 1)")
    assert group.equal("later", "t1") == [(1, 1), (2, 2)]
