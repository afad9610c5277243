"""A value that was overruled can be put back, as a write like any other, and only while nobody wrote over it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from harmonylite.db.page_reads import count_rows, held_by_table, search_journal
from harmonylite.db.put_back import put_back
from harmonylite.db.sqlite.real_digits import digits_of
from harmonylite.errors import ChangedSinceError
from harmonylite.model import Conflict, RawText
from tests.parts.db.fix_replicas import Group, Member

T = "CREATE TABLE t(id INTEGER PRIMARY KEY, v, w)"
COMPOUND = 'CREATE TABLE "a ""table"(a TEXT, b, "the value", PRIMARY KEY (a, b))'
NO_KEY = "CREATE TABLE n(v)"
VALUES = [24.0, -0.0, float("inf"), 2**63 - 1, "it's", "", b"\x00\xff", None]


def fought(group: Group, ddl: str, insert: str, update: str, values: tuple[Any, Any]) -> list[Member]:
    """Return two members of which each changed one row, while neither had seen the other's change."""
    a, b = group.several(2, ddl)
    a.run(insert)
    group.settle()
    for member, value in zip((a, b), values, strict=True):
        member.run(update, (value,))
    a.send()
    b.send()
    group.settle()
    return [a, b]


def overruled(member: Member) -> Conflict:
    """Return the only conflict."""
    (conflict,) = member.replica.conflicts()
    return conflict


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_a_value_that_is_put_back_is_the_same_bit_for_bit_on_every_node(group: Group, value: Any) -> None:
    a, b = fought(group, T, "INSERT INTO t VALUES (1, 'first', 0)", "UPDATE t SET v = ? WHERE id = 1", (value, "last"))
    put_back(b.options, overruled(b), digits_of(b.replica.connection))
    b.send()
    group.settle()
    (row,) = group.equal("t")
    assert repr(row[1]) == repr(value)
    assert a.replica.conflicts() == b.replica.conflicts(), "putting back is no conflict"
    assert len(a.replica.conflicts()) == 1


def test_text_that_is_not_utf8_is_put_back(group: Group) -> None:
    a, b = group.several(2, T)
    a.run("INSERT INTO t VALUES (1, 'first', 0)")
    group.settle()
    a.run("UPDATE t SET v = CAST(x'ff41' AS TEXT)")
    b.run("UPDATE t SET v = 'last'")
    a.send()
    b.send()
    group.settle()
    assert overruled(a).overruled == RawText(b"\xffA")
    put_back(a.options, overruled(a), digits_of(a.replica.connection))
    a.send()
    group.settle()
    assert b.run("SELECT typeof(v), hex(v) FROM t") == [("text", "FF41")]


@pytest.mark.parametrize(
    ("ddl", "insert", "update"),
    [
        (
            COMPOUND,
            'INSERT INTO "a ""table" VALUES (\'x\', 2, 0)',
            'UPDATE "a ""table" SET "the value" = ? WHERE b = 2',
        ),
        (NO_KEY, "INSERT INTO n VALUES (0)", "UPDATE n SET v = ?"),
        ("CREATE TABLE t(a, b, v, PRIMARY KEY (a, b))", "INSERT INTO t VALUES (1, 2, 0)", "UPDATE t SET v = ?"),
    ],
)
def test_rows_are_found_by_any_kind_of_key(group: Group, ddl: str, insert: str, update: str) -> None:
    _, b = fought(group, ddl, insert, update, (10, 20))
    conflict = overruled(b)
    put_back(b.options, conflict, digits_of(b.replica.connection))
    b.send()
    group.settle()
    assert group.equal(conflict.table)[0][-1] == 10


def test_what_somebody_wrote_since_stays(group: Group) -> None:
    _, b = fought(group, T, "INSERT INTO t VALUES (1, 'first', 0)", "UPDATE t SET v = ?", ("lost", "last"))
    b.run("UPDATE t SET v = 'newer'")
    with pytest.raises(ChangedSinceError, match=r"t id=1: column v does not hold last any more; it was written again"):
        put_back(b.options, overruled(b), digits_of(b.replica.connection))
    b.run("DELETE FROM t")
    with pytest.raises(ChangedSinceError):
        put_back(b.options, overruled(b), digits_of(b.replica.connection))
    assert b.rows("t") == []


@pytest.mark.parametrize("kind", ["delete", "unique"])
def test_a_row_that_is_gone_has_no_column_to_set(group: Group, kind: str) -> None:
    _, b = fought(group, T, "INSERT INTO t VALUES (1, 'first', 0)", "UPDATE t SET v = ?", ("lost", "last"))
    with pytest.raises(ChangedSinceError, match=kind):
        put_back(b.options, replace(overruled(b), kind=kind), digits_of(b.replica.connection))


def test_the_journal_is_searched_in_tables_keys_columns_values_and_nodes(group: Group) -> None:
    a, b = group.several(2, "CREATE TABLE People(id TEXT PRIMARY KEY, name TEXT, city TEXT)")
    a.run("INSERT INTO People VALUES ('p-1', 'Ann', 'Graz'), ('p-2', 'Bob', 'Linz')")
    group.settle()
    a.run("UPDATE People SET name = name || ' A', city = city || ' A'")
    b.run("UPDATE People SET name = name || ' B', city = city || ' B'")
    a.send()
    b.send()
    group.settle()

    def found(words: str, **more: Any) -> set[tuple[Any, str]]:
        listed = search_journal(b.options, **({"table": None, "words": words, "limit": 10} | more))
        return {(conflict.key["id"], conflict.column) for conflict in listed}

    everything = {("p-1", "name"), ("p-1", "city"), ("p-2", "name"), ("p-2", "city")}
    assert found("") == found("people") == found("", table="PEOPLE") == found("update") == everything
    assert found("p-2") == found("id=p-2") == {("p-2", "name"), ("p-2", "city")}
    assert found("bob a") == {("p-2", "name")}
    assert found("CITY p-1") == {("p-1", "city")}
    assert found("nothing like that") == found("", table="strange") == set()
    assert len(found("", limit=1)) == 1


def test_rows_are_counted_and_a_table_that_is_none_is_told_as_unknown(group: Group) -> None:
    a = group.member(T)
    a.run("INSERT INTO t(v) VALUES (1), (2), (3)")
    assert count_rows(a.options, ["t", "gone"]) == {"t": (3, True), "gone": (None, False)}
    assert held_by_table(a.replica.connection, a.replica.tables.values()) == {}
