"""A row that one node's table refuses pauses that node alone, visibly; it continues without a restart."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from tests.cluster.fix_cluster import Site, start
from tests.cluster.processes import Node, until

pytestmark = pytest.mark.timeout(300)

LOOSE = "CREATE TABLE t(id INTEGER PRIMARY KEY, n INTEGER)"
INDEXED = f"{LOOSE}; CREATE INDEX i ON t(json_extract(n, '$.a'))"
ANY_KEY = "CREATE TABLE t(id INT PRIMARY KEY, n INTEGER) WITHOUT ROWID"


@dataclass(frozen=True)
class Refused:
    """Tables of two nodes, the row with which the first one's differ, its key, and what the second one's say to it."""

    said: str
    tables: str
    loose: str = LOOSE
    row: str = "1, 'many'"
    key: str = "1"


REFUSED = {
    "STRICT": Refused("cannot store TEXT value in INTEGER column t.n", f"{LOOSE} STRICT"),
    "NOT NULL": Refused(
        "NOT NULL constraint failed: t.n", LOOSE.replace("n INTEGER)", "n INTEGER NOT NULL)"), row="1, NULL"
    ),
    "INTEGER PRIMARY KEY": Refused("datatype mismatch", LOOSE, loose=ANY_KEY, row="'one', 1", key="'one'"),
    "an index on an expression": Refused("malformed JSON", INDEXED),
}


def paused(site: Site, refused: Refused) -> tuple[Node, Node]:
    """Return two nodes, the second paused at a row that its table refuses; the first one wrote another row later."""
    by_hand = {"schema": {"apply": "none"}}  # else the index would travel, and the writer refuse the row, too
    loose, strict = refused.loose, refused.tables
    nodes = site.node("one", tables=loose, sections=by_hand), site.node("two", tables=strict, sections=by_hand)
    start(nodes)
    writer = site.application(nodes[0])
    writer.write(f"INSERT INTO t VALUES ({refused.row})")
    named = f"SQLite refuses the row of table t with the key {refused.key}, written by node one"
    (reason,) = until(lambda: [why for why in nodes[1].health()["waits"] if named in why], "it says so")
    assert refused.said in reason
    assert "harmonylite skip 0 " in reason
    nodes[1].logged("SQLite refuses the row of table t")
    writer.write("INSERT INTO t VALUES (2, 2)")
    site.application(nodes[1]).write("INSERT INTO t VALUES (3, 3)")
    until(lambda: nodes[0].value("SELECT count(*) FROM t") == 3, "what the paused node writes is sent all the same")
    return nodes


@pytest.mark.parametrize("refused", REFUSED.values(), ids=REFUSED)
def test_a_row_that_is_left_out_lets_the_node_go_on(site: Site, refused: Refused) -> None:
    one, two = paused(site, refused)
    (place,) = until(lambda: [why for why in two.health()["waits"] if "SQLite refuses" in why], "it says where")
    seq = place.split("message ")[1].split()[0]
    code, answer = two.command("skip", "0", seq, "-yes")
    assert code == 0, answer
    until(lambda: two.rows("SELECT id FROM t ORDER BY id") == [(2,), (3,)], "the later rows are there")
    until(lambda: two.health()["ready"] and one.health()["ready"], "and nothing waits")


def test_a_table_that_is_changed_so_that_it_takes_the_row_lets_the_node_go_on(site: Site) -> None:
    one, two = paused(site, REFUSED["an index on an expression"])
    site.application(two).write("DROP INDEX i")
    until(lambda: two.rows("SELECT id, n FROM t ORDER BY id") == [(1, "many"), (2, 2), (3, 3)], "all rows are there")
    until(lambda: two.health()["ready"] and one.health()["ready"], "and nothing waits")
