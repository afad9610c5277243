"""Tables of any key are replicated row for row: composite, WITHOUT ROWID, TEXT, BLOB, NULL, collated, none at all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from harmonylite.model import RawText
from tests.parts.db.fix_replicas import Group, Member

TABLES: dict[str, tuple[str, list[tuple[Any, ...]]]] = {
    "integer": ("CREATE TABLE t(k INTEGER PRIMARY KEY, v)", [(1, "a"), (-(2**63), "b"), (2**63 - 1, None)]),
    "descending": ("CREATE TABLE t(k INTEGER PRIMARY KEY DESC, v)", [(1, "a"), (2, "b")]),
    "int, not the rowid": ("CREATE TABLE t(k INT PRIMARY KEY NOT NULL, v)", [(1, "a"), (2, "b")]),
    "text": ("CREATE TABLE t(k TEXT PRIMARY KEY NOT NULL, v)", [("", 1), ("a\0b", 2), ("é", 3), (RawText(b"\xff"), 4)]),
    "blob": ("CREATE TABLE t(k BLOB PRIMARY KEY NOT NULL, v)", [(b"", 1), (b"\0", 2), ("", 3), (1, 4), ("1", 5)]),
    "any": ("CREATE TABLE t(k PRIMARY KEY, v)", [(1, 1), ("1", 2), (b"1", 3), (2.5, 4), (None, 5), (None, 6)]),
    "numeric": ("CREATE TABLE t(k NUMERIC PRIMARY KEY NOT NULL, v)", [(1, 1), (2.5, 2), ("x", 3)]),
    "composite": ("CREATE TABLE t(k, l, v, PRIMARY KEY(l, k))", [(1, "a", 1), (1, "b", 2), (None, "a", 3)]),
    "WITHOUT ROWID": ("CREATE TABLE t(k TEXT, l INT, v, PRIMARY KEY(k, l)) WITHOUT ROWID", [("a", 1, 1), ("a", 2, 2)]),
    "NOCASE": ("CREATE TABLE t(k TEXT COLLATE NOCASE PRIMARY KEY NOT NULL, v)", [("a", 1), ("B", 2)]),
    "key only": ("CREATE TABLE t(k TEXT PRIMARY KEY NOT NULL) WITHOUT ROWID", [("a",), ("b",)]),
    "no key": ("CREATE TABLE t(a, b)", [(1, 1), (1, 1), (None, None)]),
    "a column called rowid": ('CREATE TABLE t("rowid" TEXT, v)', [("a", 1), ("a", 2)]),
    "STRICT": ("CREATE TABLE t(k TEXT PRIMARY KEY, v ANY) STRICT", [("a", 1), ("b", "1"), ("", b"")]),
    "AUTOINCREMENT": ("CREATE TABLE t(k INTEGER PRIMARY KEY AUTOINCREMENT, v)", [(1, "a"), (7, "b")]),
}


def insert(member: Member, row: tuple[Any, ...]) -> None:
    """Insert one row, text that isn't UTF-8 as its bytes."""
    places = ", ".join("CAST(? AS TEXT)" if isinstance(v, RawText) else "?" for v in row)
    member.run(f"INSERT INTO t VALUES ({places})", [v.data if isinstance(v, RawText) else v for v in row])


@pytest.mark.parametrize(("ddl", "rows"), TABLES.values(), ids=TABLES)
def test_rows_come_and_change_and_go_everywhere(group: Group, ddl: str, rows: list[tuple[Any, ...]]) -> None:
    a, b, _ = group.several(3, ddl)
    for row in rows:
        insert(a, row)
    assert len(group.equal("t")) == len(rows)
    last = [name for (name,) in b.run("SELECT name FROM pragma_table_info('t')")][-1]
    if len(rows[0]) > 1:
        b.run(
            f"UPDATE t SET {last} = 'changed' WHERE rowid = 1" if "WITHOUT" not in ddl else f"UPDATE t SET {last} = 0"
        )
        group.equal("t")
    b.run("DELETE FROM t WHERE " + ("rowid = 1" if "WITHOUT" not in ddl else "k = 'a'"))
    group.equal("t")
    a.run("DELETE FROM t")
    assert group.equal("t") == []


@pytest.mark.parametrize("shards", [1, 3])
def test_an_update_of_a_key_leaves_no_old_row_behind(make_group: Callable[[int], Group], shards: int) -> None:
    group = make_group(shards)
    a, b = group.several(
        2, "CREATE TABLE t(k TEXT PRIMARY KEY NOT NULL, v)", "CREATE TABLE u(k INTEGER PRIMARY KEY, v)"
    )
    a.run("INSERT INTO t VALUES ('old', 1), ('other', 2)")
    a.run("INSERT INTO u VALUES (1, 'x'), (2, 'y')")
    group.settle()
    a.run("UPDATE t SET k = 'new' WHERE k = 'old'")
    b.run("UPDATE u SET k = k + 10")
    assert group.equal("t") == [("new", 1), ("other", 2)]
    assert group.equal("u") == [(11, "x"), (12, "y")]


def test_a_key_that_changes_its_case_alone_changes_everywhere(group: Group) -> None:
    a, _ = group.several(2, TABLES["NOCASE"][0])
    a.run("INSERT INTO t VALUES ('key', 1)")
    group.settle()
    a.run("UPDATE t SET k = 'KEY'")
    assert group.equal("t") == [("KEY", 1)]


def test_two_keys_that_exchange_their_rows_end_exchanged(group: Group) -> None:
    a, _ = group.several(2, TABLES["integer"][0])
    a.run("INSERT INTO t VALUES (1, 'one'), (2, 'two')")
    group.settle()
    a.run("UPDATE t SET k = -k")
    a.run("UPDATE t SET k = 3 + k")
    assert group.equal("t") == [(1, "two"), (2, "one")]


def test_the_same_autoincrement_id_on_two_nodes_leaves_a_trace_of_the_row_that_gave_way(group: Group) -> None:
    a, b = group.several(2, TABLES["AUTOINCREMENT"][0])
    a.run("INSERT INTO t(v) VALUES ('from a')")
    b.run("INSERT INTO t(v) VALUES ('from b')")
    assert a.run("SELECT k FROM t") == b.run("SELECT k FROM t") == [(1,)]
    ((_, lineage),) = group.equal("t")
    for member in (a, b):
        (conflict,) = member.replica.conflicts()
        assert {lineage, conflict.overruled} == {"from a", "from b"}


def test_rows_whose_key_holds_null_are_told_apart(group: Group) -> None:
    a, b = group.several(2, TABLES["any"][0])
    a.run("INSERT INTO t VALUES (NULL, 'one'), (NULL, 'two'), ('k', 'three')")
    group.settle()
    b.run("UPDATE t SET v = 'changed' WHERE v = 'two'")
    a.run("DELETE FROM t WHERE v = 'one'")
    assert sorted(row[-1] for row in group.equal("t")) == ["changed", "three"]


def test_a_table_without_a_key_is_replicated_with_a_warning(group: Group) -> None:
    a, _ = group.several(2, TABLES["no key"][0])
    assert "nodes that insert count the same rowids" in a.replica.warnings["t"]
    a.run("INSERT INTO t VALUES (1, 1), (1, 1), (2, 2)")
    a.run("DELETE FROM t WHERE rowid = 1")
    assert group.equal("t") == [(2, 1, 1), (3, 2, 2)]


def test_two_nodes_that_insert_into_a_table_without_a_key_put_half_of_the_rows_into_the_journal(group: Group) -> None:
    a, b = group.several(2, TABLES["no key"][0])
    for n in range(20):
        a.run("INSERT INTO t VALUES (?, 'a')", (n,))
        b.run("INSERT INTO t VALUES (?, 'b')", (n,))
    assert len(group.equal("t")) == 20
    assert len({repr(conflict.key) for conflict in a.replica.conflicts()}) == 20  # as the warning says: 20 of 40


def test_vacuum_of_a_table_without_a_key_loses_no_row_and_doubles_none(group: Group) -> None:
    a, b = group.several(2, TABLES["no key"][0])
    a.run("INSERT INTO t VALUES (1, 'a'), (2, 'b'), (3, 'c')")
    a.run("DELETE FROM t WHERE a = 1")
    group.settle()
    a.run("UPDATE t SET b = b || '!'")
    a.run("VACUUM")
    b.run("INSERT INTO t VALUES (4, 'd')")
    assert [row[1:] for row in group.equal("t")] == [(2, "b!"), (3, "c!"), (4, "d")]
    assert [row[0] for row in a.run("SELECT rowid FROM t ORDER BY 1")] == [1, 2, 4]
