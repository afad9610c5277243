"""Tables with as many columns as SQLite lets us compare, and databases with as many tables as somebody may have."""

from __future__ import annotations

from typing import Any

import apsw
import pytest

from harmonylite.changes.reassembler import Reassembler
from harmonylite.db import replica
from harmonylite.db.sqlite.connection import open_file, rows
from harmonylite.db.sqlite.introspection import WIDEST, TableRules
from harmonylite.errors import DatabaseBusyError
from tests.parts.db.fix_replicas import Group, Member


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


def scratch_tables(member: Member) -> set[str]:
    """Return the scratch tables that a node's connection has."""
    return {
        name for (name,) in rows(member.replica.connection, "SELECT name FROM temp.sqlite_schema WHERE type = 'table'")
    }


def test_only_tables_that_are_written_get_scratch_tables(group: Group) -> None:
    a, b = group.several(2, *(f"CREATE TABLE t{i}(id INTEGER PRIMARY KEY, v)" for i in range(50)))
    a.stop()
    a.start()
    assert not scratch_tables(a)
    a.run("INSERT INTO t1 VALUES (1, 1)")
    assert group.equal("t1") == [(1, 1)]
    for member in (a, b):
        number = member.replica.tables["t1"].id
        assert {name.rpartition("_")[2] for name in scratch_tables(member) if not name.endswith("_key")} == {
            str(number)
        }


def test_a_lock_or_a_migration_elsewhere_leaves_a_table_s_scratch_tables(group: Group) -> None:
    a, b = group.several(2, *(f"CREATE TABLE t{i}(id INTEGER PRIMARY KEY, v)" for i in range(3)))
    a.run("INSERT INTO t1 VALUES (1, 1)")
    a.run("INSERT INTO t2 VALUES (1, 1)")
    group.settle()
    numbers = {name: b.replica.tables[name].id for name in ("t1", "t2")}
    before = scratch_tables(b)
    of_t2 = {name for name in before if f"_{numbers['t2']}" in name}
    a.run("INSERT INTO t1 VALUES (2, 2)")
    a.send()
    b.app.execute("BEGIN IMMEDIATE")
    with pytest.raises(DatabaseBusyError):
        b.receive()
    b.app.execute("ROLLBACK")
    b.reassembler = Reassembler(b.replica.positions())
    assert of_t2 < before == scratch_tables(b)
    for member in (a, b):
        member.run("CREATE TABLE later(id INTEGER PRIMARY KEY, v)")
        member.run("ALTER TABLE t2 ADD COLUMN w")
    b.replica.reinstall()
    assert scratch_tables(b) == before - of_t2
    b.run("INSERT INTO t2 VALUES (2, 2, 2)")
    b.run("INSERT INTO later VALUES (1, 1)")
    assert group.equal("later", "t1", "t2") == [(1, 1, None), (2, 2, 2)]


def test_scratch_tables_that_were_made_in_what_is_undone_are_made_again(group: Group) -> None:
    a, b = group.several(2, "CREATE TABLE t(id INTEGER PRIMARY KEY, v UNIQUE)")
    a.run("INSERT INTO t VALUES (1, 'one'), (2, 'two')")
    a.send()
    b.app.execute("BEGIN IMMEDIATE")
    with pytest.raises(DatabaseBusyError):
        b.receive()
    b.app.execute("ROLLBACK")
    assert not scratch_tables(b)
    b.reassembler = Reassembler(b.replica.positions())
    assert group.equal("t") == [(1, "one"), (2, "two")]


def effort(member: Member) -> tuple[int, int]:
    """Open a node's files again; return how many statements that took, and how many thousand of SQLite's own steps."""
    statements, steps = [0], [0]

    def statement(_: apsw.Cursor, sql: str, bindings: Any) -> bool:
        statements[0] += 1
        return True

    def step() -> bool:
        steps[0] += 1
        return False

    def counted(*args: Any, **kwargs: Any) -> apsw.Connection:
        connection = open_file(*args, **kwargs)
        connection.exec_trace = statement
        connection.set_progress_handler(step, 1_000)
        return connection

    member.stop()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(replica, "open_file", counted)
        member.start()
    return statements[0], steps[0]


def test_a_start_costs_each_table_the_same_however_many_there_are(group: Group) -> None:
    (a,) = group.several(1, *(f"CREATE TABLE t{i}(id INTEGER PRIMARY KEY, a TEXT, b TEXT UNIQUE)" for i in range(40)))
    few = effort(a)
    with a.app:
        for i in range(40, 160):
            a.app.execute(f"CREATE TABLE t{i}(id INTEGER PRIMARY KEY, a TEXT, b TEXT UNIQUE)")
    a.replica.reinstall()
    many = effort(a)
    assert many[0] < 4 * few[0] <= 4 * 40 * 16
    assert many[1] < 6 * few[1] + 20, "each table that is made in temp cost a walk through all of them"
