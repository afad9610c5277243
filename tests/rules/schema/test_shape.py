"""What follows from a table's columns: affinities, what can differ, where rows live."""

from __future__ import annotations

import pytest

from harmonylite.schema.shape import Column, TableShape, affinity_of

KEY = Column("id", "INTEGER", key=0)


@pytest.mark.parametrize(
    ("declared", "affinity"),
    [
        ("INT", "INTEGER"),
        ("BIGINT UNSIGNED", "INTEGER"),
        ("POINT", "INTEGER"),
        ("floating point", "INTEGER"),
        ("VARCHAR(10)", "TEXT"),
        ("CLOB", "TEXT"),
        ("text", "TEXT"),
        ("CHARINT", "INTEGER"),
        ("BLOB", "BLOB"),
        ("", "BLOB"),
        ("ANYBLOB", "BLOB"),
        ("REAL", "REAL"),
        ("DOUBLE PRECISION", "REAL"),
        ("FLOAT", "REAL"),
        ("NUMERIC", "NUMERIC"),
        ("BOOLEAN", "NUMERIC"),
        ("DATETIME", "NUMERIC"),
        ("STRING", "NUMERIC"),
        ("ANY", "NUMERIC"),
        ("DECIMAL(10,5)", "NUMERIC"),
        ("JSON", "NUMERIC"),
    ],
)
def test_a_declared_type_has_the_affinity_that_sqlite_gives_it(declared: str, affinity: str) -> None:
    assert affinity_of(declared) == affinity


@pytest.mark.parametrize(
    ("column", "fixed"),
    [
        (Column("k", "INTEGER", key=0), True),
        (Column("k", "TEXT", key=0), True),
        (Column("k", "TEXT", "NOCASE", key=0), False),
        (Column("k", "TEXT", "RTRIM", key=0), False),
        (Column("k", "BLOB", key=0), False),
        (Column("k", "NUMERIC", key=0), False),
        (Column("rowid", "INTEGER", key=0, pseudo="rowid"), True),
    ],
)
def test_a_key_column_is_compared_where_equal_keys_can_differ_in_bits(column: Column, fixed: bool) -> None:
    shape = TableShape("t", (column, Column("v")), "rowid")
    assert shape.compared == ((1,) if fixed else (0, 1))


@pytest.mark.parametrize(
    ("shape", "pinned"),
    [
        (TableShape("t", (KEY, Column("v")), "rowid"), False),
        (TableShape("t", (KEY, Column("v")), "rowid", unique=(("v",),)), True),
        (TableShape("t", (KEY, Column("v")), "rowid", blind=True), True),
        (TableShape("t", (Column("k", "TEXT", "NOCASE", key=0),), "rowid"), True),
    ],
)
def test_rows_that_can_stand_in_each_others_way_live_on_one_shard(shape: TableShape, pinned: bool) -> None:
    assert shape.pinned is pinned


def test_an_index_that_triggers_can_not_see_may_take_part_in_every_column() -> None:
    shape = TableShape("t", (KEY, Column("u"), Column("v")), "rowid", unique=(("u",),))
    assert shape.unique_columns == {"u"}
    assert TableShape("t", shape.columns, "rowid", blind=True).unique_columns == {"id", "u", "v"}


def test_the_key_comes_first_in_its_own_order() -> None:
    columns = (Column("b", key=0), Column("a", key=1), Column("v"))
    shape = TableShape("t", columns, "rowid")
    assert [column.name for column in shape.keys] == ["b", "a"]
    assert shape.read_key("x") == 'x."b", x."a"'
    assert shape.write(["v", "a"]) == '"v", "a"'
