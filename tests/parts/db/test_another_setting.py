"""A node gets another `[schema] apply` at a restart: nothing that was migrated by hand comes back, nothing is lost."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import pytest

from harmonylite.changes.reassembler import Reassembler
from harmonylite.errors import SchemaWaitError
from tests.parts.db.fix_replicas import Group, Member
from tests.parts.db.fix_schemas import BY_HAND, INDEXED, rebuild, same, schema

Mode = Literal["all", "additive", "none"]


def restart(member: Member, mode: Mode) -> None:
    """Let a node have another setting from now on."""
    member.stop()
    member.options = replace(member.options, apply_schema=mode)
    member.start()


def pair(group: Group, *modes: Mode) -> list[Member]:
    """Return two members with rows."""
    made = [group.member(*INDEXED, apply_schema=mode) for mode in modes]
    made[0].run("INSERT INTO t VALUES (1, 'x', 10), (2, 'y', 20), (3, 'z', 30)")
    made[0].run("INSERT INTO k VALUES ('a', 1, 'p')")
    at_rest(group)
    return made


def at_rest(group: Group) -> bool:
    """Settle, also what is a change of the schema alone; return whether a node waits for its own migration."""
    last, waits = -1, False
    while last < (last := group.world.last(0)):
        waits = False
        try:
            group.settle()
        except SchemaWaitError:
            waits = True
            for member in group.members:
                member.drop()
                member.reassembler = Reassembler(member.replica.positions())
    return waits


def write(group: Group) -> None:
    """Write a row of each node, where it can."""
    for number, member in enumerate(group.members, start=100):
        for (table,) in member.run("SELECT name FROM sqlite_schema WHERE name IN ('t', 'u')"):
            columns = [name for (name,) in member.run(f"SELECT name FROM pragma_table_info('{table}')")]
            member.run(f"INSERT INTO {table} VALUES ({', '.join([str(number)] * len(columns))})")
        member.run("INSERT INTO k(id, n) VALUES (?, ?)", (member.options.node * 2, number))


@pytest.mark.parametrize("order", ["a first", "b first"])
@pytest.mark.parametrize("before", ["none", "additive"])
@pytest.mark.parametrize("what", BY_HAND)
@pytest.mark.parametrize("where", ["on each node", "on one node"])
def test_what_was_migrated_by_hand_stays_once_all_changes_travel(
    group: Group, before: Mode, what: str, where: str, order: str
) -> None:
    a, b = pair(group, before, before)
    for member in (a, b) if where == "on each node" else (a,):
        for sql in BY_HAND[what]:
            member.run(sql)
    at_rest(group)
    wanted, kept = schema(a), a.run("SELECT * FROM t ORDER BY id") if ("table", "t") in schema(a) else []
    for member in (a, b) if order == "a first" else (b, a):
        restart(member, "all")
        waits = at_rest(group)
    if waits:  # for what no section says that comes before the rows
        for sql in BY_HAND[what]:
            b.run(sql)
    at_rest(group)
    assert schema(a) == wanted
    write(group)
    same(group)
    assert (a.run("SELECT * FROM t WHERE id < 100 ORDER BY id") if ("table", "t") in schema(a) else []) == kept
    assert schema(a) == wanted


@pytest.mark.parametrize("what", BY_HAND)
def test_what_waits_comes_once_all_changes_travel(group: Group, what: str) -> None:
    a, b = pair(group, "all", "additive")
    for sql in BY_HAND[what]:
        a.run(sql)
    at_rest(group)
    wanted = schema(a)
    b.run("INSERT INTO k VALUES ('b', 2, 'of the old schema')")
    restart(b, "all")
    at_rest(group)
    assert schema(a) == wanted
    write(group)
    same(group)
    assert schema(a) == wanted
    assert a.run("SELECT n FROM k WHERE id = 'b'") == [(2,)]


@pytest.mark.parametrize("after", ["none", "additive"])
@pytest.mark.parametrize("what", BY_HAND)
def test_nothing_comes_back_once_less_travels_and_then_all_again(group: Group, what: str, after: Mode) -> None:
    a, b = pair(group, "all", "all")
    for sql in BY_HAND[what]:
        a.run(sql)
    at_rest(group)
    wanted = schema(a)
    for mode in (after, "all"):
        for member in (a, b):
            restart(member, mode)
        a.run("UPDATE k SET m = ? WHERE id = 'a'", (mode,))
        at_rest(group)
        assert schema(a) == schema(b) == wanted
    same(group)


@pytest.mark.parametrize("what", ["rename a column", "drop a column", "rename a table", "an old name again"])
def test_what_was_migrated_by_hand_between_two_times_of_all_stays(group: Group, what: str) -> None:
    a, b = pair(group, "all", "all")
    for member in (a, b):
        restart(member, "additive")
    for member in (a, b):
        for sql in BY_HAND[what]:
            member.run(sql)
    at_rest(group)
    wanted = schema(a)
    for member in (a, b):
        restart(member, "all")
    at_rest(group)
    write(group)
    same(group)
    assert schema(a) == wanted


def test_a_default_that_only_a_node_needed_goes_once_all_changes_travel(group: Group) -> None:
    a, b = pair(group, "additive", "additive")
    declared = "id INTEGER PRIMARY KEY, a TEXT, b INT, c TEXT NOT NULL"
    for sql in rebuild("t", declared, "id, a, b, 'c' || id", "CREATE UNIQUE INDEX t_b ON t(b)"):
        a.run(sql)
    at_rest(group)
    wanted = schema(a)
    assert schema(b) != wanted, "SQLite adds no such column without a default"
    for member in (b, a):
        restart(member, "all")
        at_rest(group)
    same(group)
    assert schema(a) == wanted


def test_an_index_that_rows_violate_still_waits_once_all_changes_travel(group: Group) -> None:
    a, b = pair(group, "additive", "additive")
    b.run("INSERT INTO k VALUES ('b', 1, 'the same number')")
    a.run("CREATE UNIQUE INDEX k_n ON k(n)")
    a.send()
    b.receive()
    assert [each.object for each in b.replica.waiting_schema()] == ["index k_n"]
    for member in (b, a):
        restart(member, "all")
    b.receive()
    assert [each.object for each in b.replica.waiting_schema()] == ["index k_n"]
    assert ("index", "k_n") in schema(a)
    b.run("DELETE FROM k WHERE id = 'b'")
    b.replica.reinstall()
    assert b.replica.accept_schema() in ([], ["index k_n"])
    at_rest(group)
    same(group)
    assert ("index", "k_n") in schema(b)


@pytest.mark.parametrize("restarted", ["none", "all"])
def test_a_table_that_waits_is_the_one_that_a_migration_makes_step_by_step(group: Group, restarted: Mode) -> None:
    a, b = pair(group, "all", "none")
    a.run("CREATE TABLE own(id INTEGER PRIMARY KEY, v, w DEFAULT 'x'); INSERT INTO own VALUES (1, 'of a', 'y')")
    at_rest(group)
    b.run("CREATE TABLE own(id INTEGER PRIMARY KEY, v)")
    at_rest(group)
    restart(b, restarted)
    at_rest(group)
    if restarted == "none":
        b.run("ALTER TABLE own ADD COLUMN w DEFAULT 'x'")
    at_rest(group)
    b.run("INSERT INTO own(id, v) VALUES (2, 'of b')")
    at_rest(group)
    restart(b, "all")
    at_rest(group)
    same(group)
    assert [name for kind, name in schema(a) if kind == "table" and "own" in name] == ["own"]
    assert a.run("SELECT id, v, w FROM own ORDER BY id") == [(1, "of a", "y"), (2, "of b", "x")]
