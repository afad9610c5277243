"""Comparing a database with its mirror: rows that are on their way are no difference, whatever changed in them."""

from __future__ import annotations

import pytest

from tests.parts.db.fix_replicas import Group

WRITES = {
    "one column": "UPDATE t SET a = 'n' WHERE id = 1",
    "two columns": "UPDATE t SET a = 'n', b = 7 WHERE id = 1",
    "every row": "UPDATE t SET a = 'n' || id, b = b + 1",
    "a new row": "INSERT INTO t VALUES (9, 'n', 7)",
    "a row that goes": "DELETE FROM t WHERE id = 2",
    "a new key": "UPDATE t SET id = 9 WHERE id = 3",
}


@pytest.mark.parametrize("sql", WRITES.values(), ids=WRITES)
@pytest.mark.parametrize("flying", [False, True], ids=["pending", "in flight"])
def test_what_the_application_has_just_written_is_no_difference(group: Group, sql: str, flying: bool) -> None:
    writer, _ = group.pair()
    writer.run(sql)
    if flying:
        assert writer.send()
        writer.run("UPDATE t SET a = 'm', b = b + 1")
    assert all(found.equal for found in writer.replica.compare()), writer.replica.compare()
    assert writer.replica.reconcile(first=False) == 0, "nothing of it gives way"
    assert group.equal("t")


@pytest.mark.parametrize("what", ["one column", "two columns", "every row", "a row that goes"])
def test_what_nobody_logged_is_a_difference_and_the_mirror_wins(group: Group, what: str) -> None:
    node, _ = group.pair()
    right = node.rows("t")
    node.replica.connection.execute(WRITES[what])  # the node's own connection fires no trigger
    assert not all(found.equal for found in node.replica.compare())
    node.replica.reconcile(first=False)
    assert all(found.equal for found in node.replica.compare())
    assert group.equal("t") == right
