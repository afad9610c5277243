"""A node that waits before another node's message, for a schema or for a person, sends what its application writes."""

from __future__ import annotations

from functools import partial

import pytest

from tests.cluster.fix_cluster import Site, start
from tests.cluster.processes import Node, until, until_equal
from tests.cluster.writing import Application

pytestmark = pytest.mark.timeout(300)

BY_HAND = {"schema": {"apply": "none"}}
LOOSE = "CREATE TABLE t(id INTEGER PRIMARY KEY, n INTEGER); CREATE TABLE mine(id INTEGER PRIMARY KEY, v, w)"
ROWS = 10


def _arrived(node: Node, row: int) -> bool:
    return bool(node.value("SELECT max(id) FROM mine") == row)


def _ten_rows_arrive(one: Node, writer: Application, waiting: Node, other: Application) -> None:
    """Have ``waiting`` write, and ``one`` overrule what it saw of that; nothing of it may come back."""
    for number in range(1, ROWS + 1):
        other.write(f"INSERT INTO mine VALUES ({number}, 'new', 'old')")
        until(partial(_arrived, one, number), f"row {number} of {ROWS} arrives")
    writer.write("UPDATE mine SET v = 'seen', w = 'seen' WHERE id IN (1, 2, 3)")
    other.write("UPDATE mine SET w = 'later' WHERE id = 2")
    other.write("DELETE FROM mine WHERE id = 3")
    until(
        lambda: one.rows("SELECT id, v, w FROM mine WHERE id < 4") == [(1, "seen", "seen"), (2, "seen", "later")], "ok"
    )
    other.write("UPDATE mine SET w = 'last' WHERE id = 10")
    until(lambda: one.value("SELECT w FROM mine WHERE id = 10") == "last", "it arrives")
    assert waiting.alive


def _all_is_equal(one: Node, waiting: Node) -> None:
    found = until_equal([one, waiting], "all is back")
    assert len(found["mine"]) == ROWS - 1
    assert one.rows("SELECT id, v, w FROM mine WHERE id < 3") == [(1, "seen", "seen"), (2, "seen", "later")]
    until(lambda: waiting.health()["ready"] and waiting.health()["pending_rows"] == 0, "nothing is pending")


def test_a_node_that_waits_for_a_table_sends_what_is_written(site: Site) -> None:
    one, two = (site.node(name, tables=LOOSE, sections=BY_HAND) for name in ("one", "two"))
    start([one, two])
    writer, other = site.application(one), site.application(two)
    writer.write("CREATE TABLE extra(id INTEGER PRIMARY KEY, v)")
    writer.write("INSERT INTO extra VALUES (1, 'x')")
    until(lambda: two.waits("extra"), "it says what it waits for")
    _ten_rows_arrive(one, writer, two, other)
    assert two.waits("extra")
    other.write("CREATE TABLE extra(id INTEGER PRIMARY KEY, v)")
    _all_is_equal(one, two)


def test_a_node_that_is_paused_at_a_message_sends_what_is_written(site: Site) -> None:
    one = site.node("one", tables=LOOSE, sections=BY_HAND)
    two = site.node("two", tables=LOOSE.replace("n INTEGER)", "n INTEGER) STRICT"), sections=BY_HAND)
    start([one, two])
    writer, other = site.application(one), site.application(two)
    writer.write("INSERT INTO t VALUES (1, 'many')")
    until(lambda: two.waits("SQLite refuses"), "it says why")
    _ten_rows_arrive(one, writer, two, other)
    (place,) = [why for why in two.health()["waits"] if "SQLite refuses" in why]
    code, answer = two.command("skip", "0", place.split("message ")[1].split()[0], "-yes")
    assert code == 0, answer
    writer.write("DELETE FROM t")
    _all_is_equal(one, two)
