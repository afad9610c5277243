"""Names are compared as SQLite compares them."""

from __future__ import annotations

import sqlite3

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harmonylite.db.sqlite.introspection import TableRules
from harmonylite.replication.majority import Group
from harmonylite.schema.names import HELPERS, advice, find, fits, folded
from harmonylite.schema.sql import quote

LETTERS = "aAzZ_ÄäßẞI\u0130i\u0131\u212a\u212b1"
"""Letters of ASCII, and some that other ways of folding hold equal to them."""


@given(st.text(LETTERS, min_size=1, max_size=3), st.text(LETTERS, min_size=1, max_size=3))
def test_two_names_are_one_exactly_where_sqlite_holds_them_for_one_table(one: str, other: str) -> None:
    with sqlite3.connect(":memory:") as connection:
        connection.execute(f"CREATE TABLE {quote(one)}(x)")
        try:
            connection.execute(f"CREATE TABLE {quote(other)}(x)")
            equal = False
        except sqlite3.OperationalError:
            equal = True
    connection.close()
    assert (folded(one) == folded(other)) is equal
    assert (find(other, [one]) is not None) is equal
    assert fits(other, [one]) is equal


@pytest.mark.parametrize(
    ("rules", "name", "wanted"),
    [
        (TableRules(include=("users",)), "Users", True),
        (TableRules(include=("ORDER_*",)), "order_lines", True),
        (TableRules(exclude=("Tmp_[AB]*",)), "tmp_backup", False),
        (TableRules(exclude=("ä",)), "Ä", True),
        *((TableRules(), each.replace("*", "x"), False) for each in HELPERS),
        (TableRules(include=("*", "_Litestream_seq")), "_litestream_seq", True),
        (TableRules(include=("_litestream_*",)), "_litestream_seq", True),
        (TableRules(include=("_litestream_*",)), "_litestream_lock", True),
        (TableRules(include=("_litestream_seq",)), "_litestream_lock", False),
        (TableRules(), "litestream_seq", True),
    ],
)
def test_rules_name_tables_in_any_case(rules: TableRules, name: str, wanted: bool) -> None:
    assert rules.wanted(name) is wanted


def test_whose_conflicts_are_settled_by_row_is_said_in_any_case() -> None:
    assert TableRules(by_row=("Orders",)).is_by_row("orders")


def test_the_nearest_name_is_advised() -> None:
    assert advice("Produkts", ["products", "orders"]) == "did you mean products?"
    assert advice("x", ["products", "orders"]) == "known are orders, products"
    assert advice("x", []) == "known are none"


def test_mirrors_whose_tables_differ_in_case_alone_are_equal() -> None:
    one = Group(("a",), {"Users": "1", "t": "2"})
    assert one.differs({"users": "1", "T": "2"}) == []
    assert one.differs({"users": "3"}) == ["t", "users"]
