"""A list in a table: written where it changed, and read as it is meant."""

from __future__ import annotations

from random import Random

import apsw
import pytest

from harmonylite.db.sqlite.listing import write_list

COLUMNS = ("kind", "name")


def _written(connection: apsw.Connection, wanted: list[tuple[str, int | None]]) -> int:
    """Write a list; check what is read then, and return how many rows were written."""
    before = connection.total_changes()
    write_list(connection, "main.listed", COLUMNS, wanted)
    assert connection.execute("SELECT kind, name FROM listed").fetchall() == wanted
    return connection.total_changes() - before


@pytest.fixture
def connection() -> apsw.Connection:
    made = apsw.Connection(":memory:")
    made.execute("CREATE TABLE listed(kind, name)")
    return made


def test_any_list_becomes_any_other(connection: apsw.Connection) -> None:
    random = Random(7)
    for _ in range(300):
        _written(connection, [("t", random.choice([None, *range(9)])) for _ in range(random.randrange(9))])


def test_one_more_or_one_less_or_another_costs_its_own_rows(connection: apsw.Connection) -> None:
    rows: list[tuple[str, int | None]] = [("t", number) for number in range(50)]
    assert _written(connection, rows) == 50
    assert _written(connection, rows) == 0
    assert _written(connection, [*rows, ("t", 50)]) == 1
    assert _written(connection, rows) == 1
    assert _written(connection, [*rows[:20], ("changed", 20), *rows[21:]]) == 2
    assert _written(connection, rows) == 2
    assert _written(connection, [*rows[1:], rows[0]]) == 2
