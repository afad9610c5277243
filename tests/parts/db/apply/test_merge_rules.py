"""Fold and merge do what a model of a few lines says, for any two writers, in any order, captured early or late."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harmonylite.db.sqlite.introspection import TableRules
from tests.parts.db.fix_replicas import Group, Member

Row = tuple[int, ...] | None
"""Columns x, y, z of the one row; None: there is no row."""
EVERY = frozenset(range(3))


@dataclass(frozen=True)
class Write:
    """What one application does to the row: ``changes`` by column, or a delete where it is empty."""

    changes: tuple[tuple[int, int], ...]

    def on(self, row: Row) -> Row:
        """Return the row afterwards; a write to a row that isn't there inserts it, with 0 in the other columns."""
        if not self.changes:
            return None
        new = dict(self.changes)
        return tuple(new.get(i, (row or (0, 0, 0))[i]) for i in range(3))

    def run(self, member: Member) -> None:
        """Let the application do it."""
        if not self.changes:
            member.run("DELETE FROM t")
            return
        member.run("INSERT OR IGNORE INTO t VALUES (1, 0, 0, 0)")
        for column, value in self.changes:
            member.run(f"UPDATE t SET {'xyz'[column]} = ?", (value,))


def folded(row: Row, before: Row, after: Row, *, by_row: bool = False) -> Row:
    """Return what a change set from ``before`` to ``after`` makes of ``row``: the rules of the fold."""
    if before == after:
        return row
    if after is None:
        return None
    if before is None or row is None:
        return after
    changed = EVERY if by_row else {i for i in EVERY if before[i] != after[i]}
    return tuple(after[i] if i in changed else row[i] for i in range(3))


VALUES = st.integers(0, 2)
CHANGES = st.dictionaries(st.integers(0, 2), VALUES, max_size=3).map(lambda new: tuple(sorted(new.items())))
WRITES = st.builds(Write, CHANGES)
ROWS = st.none() | st.tuples(VALUES, VALUES, VALUES)


@pytest.mark.parametrize("by_row", [False, True])
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(start=ROWS, one=WRITES, other=WRITES, late=st.booleans())
def test_what_two_writers_did_apart_is_folded_in_the_order_of_their_change_sets(
    make_group: Callable[[int], Group], by_row: bool, start: Row, one: Write, other: Write, late: bool
) -> None:
    group = make_group(1)
    rules = TableRules(by_row=("t",) if by_row else ())
    a, b = group.several(2, "CREATE TABLE t(id INTEGER PRIMARY KEY, x, y, z)", rules=rules)
    if start is not None:
        a.run("INSERT INTO t VALUES (1, ?, ?, ?)", start)
    group.settle()
    one.run(a)
    other.run(b)
    a.send()
    if late:
        b.receive()  # merged before it is captured: b's own columns stay, and it publishes no more than those
    b.send()
    after = folded(start, start, one.on(start), by_row=by_row)
    wanted = folded(after, start, other.on(start), by_row=by_row)
    if late and other.on(start) == after:
        wanted = after
    assert group.equal("t") == ([] if wanted is None else [(1, *wanted)])
    group.close()


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(start=ROWS, writes=st.lists(st.tuples(st.sampled_from("ab"), WRITES, st.booleans()), max_size=6))
def test_a_node_that_writes_alone_reads_what_it_wrote_whatever_comes_back(
    make_group: Callable[[int], Group], start: Row, writes: list[tuple[str, Write, bool]]
) -> None:
    group = make_group(1)
    a, b = group.several(
        2, "CREATE TABLE t(id INTEGER PRIMARY KEY, x, y, z)", "CREATE TABLE other(id INTEGER PRIMARY KEY)"
    )
    if start is not None:
        a.run("INSERT INTO t VALUES (1, ?, ?, ?)", start)
    group.settle()
    row = start
    for number, (step, write, send) in enumerate(writes):
        write.run(a)
        row = write.on(row)
        b.run("INSERT INTO other VALUES (?)", (number,))
        if step == "a" and a.flight is None:
            a.send()
        if step == "b" and b.flight is None:
            b.send()
        if send:
            a.receive()
        assert a.run("SELECT x, y, z FROM t") == ([] if row is None else [row])
    assert group.equal("t") == ([] if row is None else [(1, *row)])
    group.close()
