"""Two nodes change one schema at the same time: both have the same then, and neither stops."""

from __future__ import annotations

import pytest

from tests.parts.db.fix_replicas import Group
from tests.parts.db.fix_schemas import pair, rebuild, same


@pytest.mark.parametrize("first", ["a", "b"])
def test_an_index_follows_its_table_under_a_name_that_another_node_gives_it(group: Group, first: str) -> None:
    a, b = pair(group)
    a.run("ALTER TABLE t RENAME TO u")
    b.run("CREATE UNIQUE INDEX i ON t(a)")
    for member in (a, b) if first == "a" else (b, a):
        member.send()
    group.settle()
    for member in (a, b):
        assert member.run("SELECT tbl_name FROM sqlite_schema WHERE name = 'i'") == [("u",)]
        assert member.run("SELECT a FROM u ORDER BY id") == [("x",), ("y",), ("z",)]
    same(group)


@pytest.mark.parametrize("end", ["STRICT", "WITHOUT ROWID, STRICT"])
def test_a_table_that_is_made_strict_with_converted_values_stops_nobody(group: Group, end: str) -> None:
    a, b = group.several(2, "CREATE TABLE t(id INT PRIMARY KEY NOT NULL, a, b, c)", apply_schema="all")
    a.run("INSERT INTO t VALUES (1, 'x', 'ten', '1'), (2, 'y', 20, 2)")
    group.settle()
    columns = "id INT PRIMARY KEY NOT NULL, a TEXT, b INTEGER, c ANY"
    for sql in rebuild("t", columns, "id, a, CASE b WHEN 'ten' THEN 10 ELSE b END, c"):
        a.run(f"{sql} {end}" if sql.startswith("CREATE") else sql)
    assert a.send() > 0
    b.run("INSERT INTO t VALUES (3, 'z', 30, '3')")
    same(group)
    assert b.run("SELECT * FROM t") == [(1, "x", 10, "1"), (2, "y", 20, 2), (3, "z", 30, "3")]
    listed = "SELECT strict FROM pragma_table_list('t') WHERE schema IN ('main', 'mirror')"
    for member in (a, b):
        assert member.replica.connection.execute(listed).fetchall() == [(1,), (1,)]
