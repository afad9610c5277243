"""Further unique indexes: rows that displace each other do so everywhere, and what gave way leaves a trace."""

from __future__ import annotations

import pytest

from harmonylite.errors import DatabaseBusyError
from tests.parts.db.fix_replicas import Group, Member

UNIQUE = ("CREATE TABLE t(id INTEGER PRIMARY KEY, u TEXT UNIQUE, v)",)
PARTIAL = (
    "CREATE TABLE t(id INTEGER PRIMARY KEY, u TEXT, gone INT DEFAULT 0)",
    "CREATE UNIQUE INDEX t_u ON t(u) WHERE gone = 0",
)
EXPRESSION = ("CREATE TABLE t(id INTEGER PRIMARY KEY, u TEXT, v)", "CREATE UNIQUE INDEX t_u ON t(lower(u))")
OTHER_COLLATION = (
    "CREATE TABLE t(id INTEGER PRIMARY KEY, u TEXT, v)",
    "CREATE UNIQUE INDEX t_u ON t(u COLLATE NOCASE)",
)
ALL = {"unique": UNIQUE, "partial": PARTIAL, "expression": EXPRESSION, "other collation": OTHER_COLLATION}


def holding(group: Group) -> list[Member]:
    """Return two members, of which b holds back a's row 1: its own row 2, which is pending, is in the way."""
    a, b = members = group.several(2, *UNIQUE)
    a.run("INSERT INTO t VALUES (1, 'taken', 'a')")
    b.run("INSERT INTO t VALUES (2, 'taken', 'b')")
    a.send()
    b.receive()
    assert b.replica.held_rows() == 1
    return members


@pytest.mark.parametrize("recursive", [0, 1])
@pytest.mark.parametrize("ddl", ALL.values(), ids=ALL)
def test_a_row_that_replace_displaces_goes_everywhere(group: Group, ddl: tuple[str, ...], recursive: int) -> None:
    a, b = group.several(2, *ddl)
    a.app.pragma("recursive_triggers", recursive)
    a.run("INSERT INTO t VALUES (1, 'u', 0), (2, 'w', 0)")
    group.settle()
    a.run("INSERT OR REPLACE INTO t VALUES (3, 'u', 0)")
    a.run("UPDATE OR REPLACE t SET u = 'w' WHERE id = 3")
    assert group.equal("t") == [(3, "w", 0)]
    assert b.run("SELECT id FROM t") == [(3,)]


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO t VALUES (3, 'w', 0)",
        "INSERT INTO t VALUES (3, 'w', 0) ON CONFLICT(id) DO NOTHING",
        "INSERT INTO t VALUES (3, 'x', 0) ON CONFLICT(id) DO NOTHING; UPDATE t SET u = 'w' WHERE id = 3",
        "WITH new(id) AS (VALUES (3)) INSERT INTO t SELECT id, 'w', 0 FROM new WHERE true ON CONFLICT(id) DO NOTHING",
    ],
)
def test_a_row_that_the_tables_own_clause_displaces_goes_everywhere(group: Group, statement: str) -> None:
    """findings/sqlite-do-nothing-deletes-a-row.sh: the statement's clause rules the constraint that it names only.

    The row that displaced it goes before anybody hears of it: nothing but the log knows then.
    """
    a, b = group.several(2, "CREATE TABLE t(id INTEGER PRIMARY KEY, u TEXT UNIQUE ON CONFLICT REPLACE, v)")
    a.run("INSERT INTO t VALUES (1, 'u', 0), (2, 'w', 0)")
    group.settle()
    for each in statement.split("; "):
        a.run(each)
    assert a.run("SELECT id FROM t") == [(1,), (3,)]
    a.run("DELETE FROM t WHERE id = 3")
    assert group.equal("t") == [(1, "u", 0)]
    assert b.run("SELECT id FROM t") == [(1,)]


@pytest.mark.parametrize("ddl", ALL.values(), ids=ALL)
def test_a_row_that_was_displaced_by_one_that_is_gone_again_goes_too(group: Group, ddl: tuple[str, ...]) -> None:
    a, _ = group.several(2, *ddl)
    a.run("INSERT INTO t VALUES (1, 'u', 0)")
    group.settle()
    a.run("INSERT OR REPLACE INTO t VALUES (2, 'u', 0)")
    a.run("DELETE FROM t WHERE id = 2")
    assert group.equal("t") == []


@pytest.mark.parametrize("ddl", ALL.values(), ids=ALL)
def test_the_same_unique_value_on_two_nodes_stays_with_the_last_in_the_order(
    group: Group, ddl: tuple[str, ...]
) -> None:
    a, b = group.several(2, *ddl)
    a.run("INSERT INTO t VALUES (1, 'taken', 0)")
    b.run("INSERT INTO t VALUES (2, 'taken', 0)")
    a.send()
    b.receive()
    assert b.run("SELECT id FROM t") == [(2,)]
    assert b.replica.held_rows() == 1
    assert group.equal("t") == [(2, "taken", 0)]
    for member in (a, b):
        assert member.replica.held_rows() == 0
        assert {(c.kind, c.key["id"], c.column, c.overruled) for c in member.replica.conflicts()} >= {
            ("unique", 1, "u", "taken")
        }


def test_a_held_row_comes_back_when_what_was_in_its_way_goes(group: Group) -> None:
    _, b = holding(group)
    b.run("UPDATE t SET u = 'free' WHERE id = 2")
    assert group.equal("t") == [(1, "taken", "a"), (2, "free", "b")]


def test_held_rows_are_remembered_by_a_restart(group: Group) -> None:
    _, b = holding(group)
    b.stop()
    b.start()
    assert b.replica.held_rows() == 1
    b.run("DELETE FROM t WHERE id = 2")
    assert group.equal("t") == [(1, "taken", "a")]


def test_two_rows_that_exchange_a_unique_value_do_so_everywhere(group: Group) -> None:
    a, b = group.several(2, *UNIQUE)
    a.run("INSERT INTO t VALUES (1, 'x', 1), (2, 'y', 2), (3, 'z', 3)")
    group.settle()
    a.run("UPDATE t SET u = u || '-'")
    a.run("UPDATE t SET u = CASE id WHEN 1 THEN 'y' WHEN 2 THEN 'z' ELSE 'x' END")
    b.run("UPDATE t SET v = v * 10")
    assert group.equal("t") == [(1, "y", 10), (2, "z", 20), (3, "x", 30)]


def test_a_pending_row_keeps_its_unique_value_against_another_pending_one(group: Group) -> None:
    a, b = group.several(2, *UNIQUE)
    a.run("INSERT INTO t VALUES (1, 'one', 0), (2, 'two', 0)")
    group.settle()
    a.run("UPDATE t SET u = 'new', v = 1 WHERE id = 1")
    a.send()
    b.run("UPDATE t SET v = 2 WHERE id = 1")
    b.run("UPDATE t SET u = 'new' WHERE id = 2")
    b.receive()
    assert b.run("SELECT u FROM t WHERE id = 2") == [("new",)]
    rows = group.equal("t")
    assert len({row[1] for row in rows}) == len(rows)


def test_a_row_in_flight_that_keeps_its_unique_value_against_the_mirrors_is_published_once_more(group: Group) -> None:
    a, b = group.several(2, *UNIQUE)
    a.run("INSERT INTO t VALUES (1, 'one', 0), (2, 'two', 0)")
    group.settle()
    a.run("UPDATE t SET u = 'new' WHERE id = 1")
    a.send()
    b.run("UPDATE t SET v = 2 WHERE id = 1")
    b.send()
    b.run("UPDATE t SET u = 'new' WHERE id = 2")
    b.receive()
    assert b.run("SELECT * FROM t") == [(1, "one", 2), (2, "new", 0)]
    rows = group.equal("t")
    assert rows == [(1, "one", 2), (2, "new", 0)]


@pytest.mark.parametrize("where", ["here", "there"])
def test_a_held_row_is_kept_through_a_migration_that_rebuilds_its_table(group: Group, where: str) -> None:
    a, b = holding(group)
    (b if where == "here" else a).app.execute(
        "BEGIN; CREATE TABLE n(id INTEGER PRIMARY KEY, u TEXT UNIQUE, v); INSERT INTO n SELECT * FROM t; DROP TABLE t;"
        " ALTER TABLE n RENAME TO t; COMMIT"
    ).fetchall()
    b.run("UPDATE t SET u = 'other' WHERE id = 2")
    assert group.equal("t") == [(1, "taken", "a"), (2, "other", "b")]
    assert b.replica.held_rows() == 0


def test_nothing_is_held_of_a_table_that_is_gone(group: Group) -> None:
    _, b = holding(group)
    b.run("DROP TABLE t")
    b.replica.reinstall()
    assert b.replica.held_rows() == 0


def test_a_try_to_put_a_held_row_in_place_that_meets_a_lock_is_made_again(group: Group) -> None:
    _, b = holding(group)
    b.run("DELETE FROM t WHERE id = 2")
    b.replica.connection.set_busy_timeout(0)
    b.run("BEGIN IMMEDIATE")
    with pytest.raises(DatabaseBusyError):
        b.capture()
    b.run("COMMIT")
    still = [b.replica.holding]
    assert b.capture() == 0
    assert b.replica.held_rows() == 0
    still.append(b.replica.holding)
    assert still == [True, False], "the sender looks again though nothing is pending, until nothing is held"
    assert b.rows("t") == [(1, "taken", "a")]
