"""What a read of the log costs, and what it says before the rows are read."""

from __future__ import annotations

import apsw

from tests.parts.db.fix_replicas import PAIRED, Group


def test_the_number_of_rows_is_said_before_they_are_read(group: Group) -> None:
    (a,) = group.several(1, PAIRED)
    numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300)"
    a.run(f"INSERT INTO t {numbers} SELECT i, 'x', i FROM n")
    said: list[tuple[int, int]] = []
    read = 0

    def trace(_: apsw.Cursor, sql: str, __: object) -> bool:
        nonlocal read
        read += "AS x CROSS JOIN" in sql
        return True

    a.replica.connection.exec_trace = trace
    out = a.replica.capture(1, message_bytes=900_000, reading=lambda rows: said.append((rows, read)))
    assert out is not None
    assert (said, out.rows) == ([(300, 0)], 300)
    assert read > 0, "rows are read by such statements"
    out.close()


def test_where_triggers_see_every_index_nothing_is_looked_for_that_they_missed(group: Group) -> None:
    (a,) = group.several(1, PAIRED)
    a.run("INSERT INTO t VALUES (1, 'x', 10)")
    statements: list[str] = []

    def trace(_: apsw.Cursor, sql: str, __: object) -> bool:
        statements.append(sql)
        return True

    a.replica.connection.exec_trace = trace
    assert a.replica.find_unlogged() == 0
    assert statements == []
    a.run("CREATE UNIQUE INDEX t_a ON t(lower(a))")
    a.replica.reinstall()
    statements.clear()
    assert a.replica.find_unlogged() == 0
    assert statements != []
