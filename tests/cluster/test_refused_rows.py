"""A row that one node's table refuses pauses that node alone, visibly; it goes on without a restart."""

from __future__ import annotations

import pytest

from tests.cluster.fix_cluster import Site, start
from tests.cluster.processes import Node, until

LOOSE = "CREATE TABLE t(id INTEGER PRIMARY KEY, n INTEGER)"
STRICT = f"{LOOSE} STRICT"
INDEXED = f"{LOOSE}; CREATE INDEX i ON t(json_extract(n, '$.a'))"


def paused(site: Site, tables: str, said: str) -> tuple[Node, Node]:
    """Return two nodes, the second paused at a row that its table refuses; the first one wrote another row later."""
    nodes = site.node("one", tables=LOOSE), site.node("two", tables=tables)
    start(nodes)
    writer = site.application(nodes[0])
    writer.write("INSERT INTO t VALUES (1, 'many')")
    until(lambda: nodes[1].waits("SQLite refuses the row of table t with the key 1, written by node one"), "it says so")
    assert nodes[1].waits(said)
    assert nodes[1].waits("harmonylite skip 0 ")
    until(lambda: "SQLite refuses the row of table t" in nodes[1].last_words(), "and in the log")
    writer.write("INSERT INTO t VALUES (2, 2)")
    site.application(nodes[1]).write("INSERT INTO t VALUES (3, 3)")
    until(lambda: nodes[0].value("SELECT count(*) FROM t") == 3, "what the paused node writes is sent all the same")
    return nodes


@pytest.mark.parametrize("tables", [STRICT, INDEXED], ids=["STRICT", "an index on an expression"])
def test_a_row_that_is_left_out_lets_the_node_go_on(site: Site, tables: str) -> None:
    said = "cannot store TEXT value in INTEGER column t.n" if tables == STRICT else "malformed JSON"
    one, two = paused(site, tables, said)
    (place,) = [reason for reason in two.health()["waits"] if "SQLite refuses" in reason]
    seq = place.split("message ")[1].split()[0]
    code, answer = two.command("skip", "0", seq, "-yes")
    assert code == 0, answer
    until(lambda: two.rows("SELECT id FROM t ORDER BY id") == [(2,), (3,)], "the later rows are there")
    until(lambda: two.health()["ready"] and one.health()["ready"], "and nothing waits")


def test_a_table_that_is_changed_so_that_it_takes_the_row_lets_the_node_go_on(site: Site) -> None:
    one, two = paused(site, INDEXED, "malformed JSON")
    site.application(two).write("DROP INDEX i")
    until(lambda: two.rows("SELECT id, n FROM t ORDER BY id") == [(1, "many"), (2, 2), (3, 3)], "all rows are there")
    until(lambda: two.health()["ready"] and one.health()["ready"], "and nothing waits")
