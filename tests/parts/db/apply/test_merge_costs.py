"""A merge writes what the fold changed, and no index of a column that it did not change."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.parts.db.fix_replicas import Group, steps

MakeGroup = Callable[[int], Group]
TABLE = "CREATE TABLE t(id TEXT PRIMARY KEY NOT NULL, a TEXT, b INT, c INT)"
INDEX = "CREATE INDEX t_b ON t(b, c)"
ROWS = "INSERT INTO t WITH n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 50) SELECT i, 'a', i, i FROM n"


def cost_of(group: Group, sql: str, *ddl: str) -> int:
    """Return SQLite's steps at the receiver of a transaction that runs ``sql``."""
    a, b = group.several(2, TABLE, *ddl)
    a.run(ROWS)
    group.settle()
    a.run(sql)
    a.send()
    cost = steps(b, b.receive)
    group.equal("t")
    return cost


def test_an_index_on_a_column_that_did_not_change_costs_the_merge_of_an_update_nothing(make_group: MakeGroup) -> None:
    sql = "UPDATE t SET a = 'changed'"
    assert cost_of(make_group(1), sql, INDEX) == cost_of(make_group(1), sql)


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE t SET b = b + 1",
        "DELETE FROM t WHERE id > '2'; INSERT INTO t(id, a) VALUES ('3', 'again')",
        "UPDATE t SET a = 'x' WHERE id > '2'; DELETE FROM t WHERE id = '3'; UPDATE t SET c = 0 WHERE id = '4'",
        "UPDATE t SET id = 'other' WHERE id = '5'; UPDATE t SET b = 0 WHERE id = '6'",
        "INSERT OR REPLACE INTO t VALUES ('7', 'replaced', 1, 2), ('new', 'b', 3, 4)",
    ],
)
@pytest.mark.parametrize("together", [False, True], ids=["one by one", "in one batch"])
def test_whatever_a_transaction_does_to_rows_is_merged(make_group: MakeGroup, sql: str, together: bool) -> None:
    group = make_group(1)
    a, b = group.several(2, TABLE, INDEX)
    a.run(ROWS)
    group.settle()
    for statement in sql.split("; "):
        a.run(statement)
        a.send()
        a.receive()
        if not together:
            b.receive()
    group.equal("t")
