"""A commit costs what the tables that it touches cost, not what all tables of the database do."""

from __future__ import annotations

from collections.abc import Callable

from tests.parts.db.fix_replicas import Group, steps

MakeGroup = Callable[[int], Group]
WRITES = (
    "INSERT INTO t(id, a) VALUES ({0}, 'new')",
    "UPDATE t SET a = 'changed' WHERE id = {0} - 1",
    "DELETE FROM t WHERE id = {0} - 2",
)


def costs(group: Group, idle: int) -> list[tuple[int, int, int]]:
    """Return the steps of some commits beside ``idle`` tables: of their capture, their return, and their merge."""
    tables = [f"CREATE TABLE idle{n}(id INTEGER PRIMARY KEY, a TEXT UNIQUE)" for n in range(idle)]
    a, b = group.several(2, "CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT)", *tables)
    found = []
    for number in range(1, 9):
        for sql in WRITES:
            a.run(sql.format(number))
            here = steps(a, a.send)
            found.append((here, steps(a, a.receive), steps(b, b.receive)))
    return found[-2 * len(WRITES) :]


def test_idle_tables_cost_a_capture_a_look_at_their_newest_row_and_the_rest_nothing(make_group: MakeGroup) -> None:
    few, many = costs(make_group(1), 2), costs(make_group(1), 42)
    for (capture, back, merge), (capture_beside, back_beside, merge_beside) in zip(few, many, strict=True):
        assert (back, merge) == (back_beside, merge_beside)
        assert 0 <= capture_beside - capture <= 40 * 10
