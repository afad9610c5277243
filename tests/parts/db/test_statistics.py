"""Statistics of ANALYZE that are out of date make SQLite slow: they are read again, or told."""

from __future__ import annotations

import pytest

from harmonylite.db.statistics import MANY
from tests.parts.db.fix_replicas import Group, Member

TABLE = "CREATE TABLE item(id TEXT PRIMARY KEY NOT NULL, v)"
LOOK_UP = "EXPLAIN QUERY PLAN SELECT d.v FROM temp.wanted AS x CROSS JOIN main.item AS d ON d.id = x.id"


@pytest.fixture
def member(group: Group) -> Member:
    """A member whose table was analyzed when it had one row, and has grown since."""
    (one, _) = group.several(2, TABLE, "INSERT INTO item VALUES ('0', 0)", "ANALYZE")
    one.replica.connection.execute("CREATE TEMP TABLE wanted(id)")
    renew(one)
    one.run(
        f"WITH RECURSIVE c(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM c WHERE i < {MANY})"
        " INSERT INTO item SELECT i, i FROM c"
    )
    return one


def renew(member: Member) -> dict[str, str]:
    """Look at the statistics; return what is told of them."""
    replica = member.replica
    replica.statistics.renew(replica.connection, replica.tables.values())
    return replica.warnings


def reads_it_whole(member: Member) -> bool:
    """Return whether SQLite looks a key up by reading all rows."""
    return "SCAN d" in [detail for *_, detail in member.replica.connection.execute(LOOK_UP)]


def test_statistics_of_a_table_that_was_hardly_there_are_told(member: Member) -> None:
    assert reads_it_whole(member)
    (said,) = renew(member).values()
    assert said.startswith("table item was analyzed when it had hardly a row")
    assert "run ANALYZE" in said


def test_new_statistics_are_taken_up_without_a_restart(member: Member) -> None:
    member.run("ANALYZE")
    assert reads_it_whole(member), "the connection keeps what it read with the schema"
    assert not renew(member)
    assert not reads_it_whole(member)
    member.run("UPDATE item SET v = 'new' WHERE id = '7'")
    assert member.send() == MANY


def test_a_small_table_and_a_file_that_was_never_analyzed_are_well(group: Group) -> None:
    one, two = group.several(2, TABLE)
    assert not renew(one)
    two.run("INSERT INTO item VALUES ('0', 0)")
    two.run("ANALYZE")
    assert not renew(two)


def test_statistics_that_somebody_wrote_by_hand_do_no_harm(member: Member) -> None:
    member.run("DELETE FROM sqlite_stat1")
    member.run(
        "INSERT INTO sqlite_stat1 VALUES ('item', NULL, NULL), ('item', NULL, 'x'), (NULL, NULL, ''), (x'ff', 1, 2)"
    )
    assert not renew(member)
