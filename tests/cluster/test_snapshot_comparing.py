"""Anti-entropy: what differs between nodes, or between database and mirror, is found, told and repaired by itself."""

from __future__ import annotations

import apsw
import pytest

from tests.cluster.fix_cluster import Site, start
from tests.cluster.processes import Node, agree, until, until_equal

pytestmark = pytest.mark.timeout(300)


def alter(node: Node, sql: str) -> None:
    """Change rows of a stopped node's mirror, as a failing disk or memory would."""
    connection = apsw.Connection(str(node.folder / "mirror" / "app.db" / "mirror.db"))
    connection.execute(sql)
    connection.close()


def alter_unseen(node: Node, sql: str) -> None:
    """Change rows of a stopped node's database without a word in its log."""
    connection = apsw.Connection(str(node.db))
    connection.config(apsw.SQLITE_DBCONFIG_ENABLE_TRIGGER, 0)
    connection.execute(sql)
    connection.close()


def test_a_mirror_that_deviates_is_repaired_from_the_majority_and_unseen_changes_are_taken_back(site: Site) -> None:
    often = {"verify": {"interval": "3s"}, "snapshot": {"lease_ttl": "2s"}}
    nodes = [site.node(name, sections=often) for name in ("a", "b", "c")]
    start(nodes)
    site.application(nodes[0]).write(
        "INSERT INTO events VALUES ('1', 'a', 1, 'right')", "INSERT INTO events VALUES ('2', 'a', 2, 'right')"
    )
    until_equal(nodes)
    bad = nodes[2]
    assert bad.stop() == 0
    alter(bad, "UPDATE events SET note = 'wrong' WHERE id = '1'")
    alter_unseen(bad, "UPDATE events SET note = 'wrong' WHERE id = '1'")
    alter_unseen(bad, "UPDATE events SET note = 'unseen' WHERE id = '2'")
    site.application(bad).write("INSERT INTO events VALUES ('3', 'c', 3, 'unsent')")
    start([bad])
    right = [("1", "right"), ("2", "right"), ("3", "unsent")]
    select = "SELECT id, note FROM events ORDER BY id"
    until(lambda: all(node.rows(select) == right for node in nodes), "all nodes hold the right rows")
    bad.logged("found 1 wrong rows of table events in this node's mirror, for example [('1', None)]")
    bad.logged("repaired the mirror from snapshot")

    def journal() -> str:
        code, text = bad.command("conflicts", "-json")
        assert code == 0, text
        return text

    until(lambda: '"wrong"' in journal() and '"unseen"' in journal(), "what gave way is in the journal")
    told = "mirrors differ in events"
    until(lambda: any(told in node.log.read_text() for node in nodes), "who compared the mirrors logs it")
    until(lambda: any(node.status("verify_differences") for node in nodes), "and counts it")
    until(lambda: all(node.get("/readyz")[0] == 200 for node in nodes), "all are well again")
    agree(nodes)
