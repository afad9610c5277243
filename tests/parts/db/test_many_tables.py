"""A change of the schema costs what it costs, however many come with it, and however many tables are there."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import apsw
import pytest

from harmonylite.db.mirror import stream_schema
from harmonylite.db.mirror.state import set_state
from tests.parts.db.fix_replicas import Group, Member
from tests.parts.db.fix_schemas import same

MAKE = "CREATE TABLE t{0}(id INTEGER PRIMARY KEY, v)"
CHANGES = {
    "create": (MAKE, "INSERT INTO t{0} VALUES (1, 'x')"),
    "add a column": ("ALTER TABLE t{0} ADD COLUMN w", "UPDATE t{0} SET w = id"),
    "rename": ("ALTER TABLE t{0} RENAME TO u{0}",),
    "rename a column": ("ALTER TABLE t{0} RENAME COLUMN v TO w",),
    "index": ("CREATE UNIQUE INDEX i{0} ON t{0}(v)",),
    "drop": ("DROP TABLE t{0}",),
}
FEW = 60
"""Statements that come once, or not, whatever the number of tables."""
LOOKS = re.compile(r"CREATE |ALTER |DROP |COMMIT|RELEASE|PRAGMA table_list|.*(sqlite_schema|pragma_table_list)").match


class Work:
    """What SQLite did for members while it was counted: statements, and steps of those that neither change the schema
    nor look into it, for which SQLite reads all of it.
    """

    def __init__(self) -> None:
        self.statements = self.steps = 0

    @contextmanager
    def of(self, *members: Member) -> Iterator[None]:
        """Count."""
        for member in members:
            member.replica.connection.trace_v2(apsw.SQLITE_TRACE_PROFILE, self._count)
        yield
        for member in members:
            member.replica.connection.trace_v2(0, None)

    def _count(self, event: dict[str, Any]) -> None:
        self.statements += 1
        if not LOOKS(event["sql"]):
            self.steps += event["stmt_status"]["SQLITE_STMTSTATUS_VM_STEP"]


def _migrate(group: Group, member: Member, which: str, numbers: range, work: Work) -> None:
    """Let a member's application change some tables in one transaction, and count until all is at rest."""
    member.run("BEGIN")
    for number in numbers:
        for sql in CHANGES[which]:
            member.run(sql.format(number))
    member.run("COMMIT")
    with work.of(*group.members):
        group.settle()


def _made(group: Group, count: int) -> list[Member]:
    tables = [MAKE.format(number) for number in range(count)]
    return group.several(2, *tables, apply_schema="all")


@pytest.mark.parametrize("which", CHANGES)
def test_a_table_costs_the_same_however_many_come_with_it(make_group: Callable[[int], Group], which: str) -> None:
    done = []
    for count in (8, 16, 32):
        group, work = make_group(1), Work()
        members = _made(group, 0 if which == "create" else count)
        _migrate(group, members[0], which, range(count), work)
        same(group)
        done.append(work)
    few, some, many = done
    assert many.statements - some.statements <= 2.1 * (some.statements - few.statements) + FEW
    assert many.steps - some.steps <= 2.1 * (some.steps - few.steps)


@pytest.mark.parametrize("which", CHANGES)
def test_a_change_takes_as_many_statements_beside_many_tables_as_beside_few(
    make_group: Callable[[int], Group], which: str
) -> None:
    done = []
    for count in (3, 30):
        group, work = make_group(1), Work()
        members = _made(group, count)
        if which != "create":
            members[0].run(MAKE.format(count))
        group.settle()
        _migrate(group, members[0], which, range(count, count + 1), work)
        done.append(work.statements)
    assert done[1] <= done[0] + FEW


def test_what_names_mean_is_kept_until_the_rows_of_their_change_set_are_there(
    group: Group, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_schema, "MEANT_KEPT", 1)
    a, b = _made(group, 6)
    for number in range(6):
        a.run(f"INSERT INTO t{number} VALUES (1, {number})")
    group.settle()
    a.run("BEGIN")
    for number in range(6):
        a.run(f"ALTER TABLE t{number} RENAME TO aside{number}")
    for number in range(6):
        a.run(f"ALTER TABLE aside{number} RENAME TO t{(number + 1) % 6}")
        a.run(f"UPDATE t{(number + 1) % 6} SET v = v || ' moved'")
    a.run("COMMIT")
    a.replica.reinstall()
    a.send()
    b.receive()
    for number in range(6):
        assert b.run(f"SELECT v FROM t{number}") == [(f"{(number - 1) % 6} moved",)]
    same(group)
    known = "SELECT count(*) FROM mirror.__harmonylite__meant"
    a.run("CREATE TABLE later(id INTEGER PRIMARY KEY)")
    same(group)
    assert [m.replica.connection.execute(known).fetchall() for m in (a, b)] == [[(2,)], [(2,)]]


def test_where_a_name_last_changed_its_meaning_is_known_without_a_look_at_all_that_did(group: Group) -> None:
    a, b = _made(group, 1)
    for number in range(4):
        a.run(f"ALTER TABLE t0 RENAME COLUMN {'v' if number % 2 == 0 else 'w'} TO {'w' if number % 2 == 0 else 'v'}")
        group.settle()
    for member in (a, b):
        named = stream_schema.newest_end(member.replica.connection)
        set_state(member.replica.connection, "mirror", stream_schema.ENDS, None)  # as an earlier version left it
        assert stream_schema.newest_end(member.replica.connection) == named == {0: group.world.last(0)}
