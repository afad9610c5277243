"""Nodes that come late, come back late, or take part in one direction only."""

from __future__ import annotations

from typing import Any

import pytest

from harmonylite.errors import NotFoundError
from tests.cluster.fix_cluster import Site, start
from tests.cluster.processes import Node, agree, until, until_equal

pytestmark = pytest.mark.timeout(200)

LIBRARY = """
CREATE TABLE books(id INTEGER PRIMARY KEY, title TEXT NOT NULL, author TEXT, copies INTEGER DEFAULT 1);
CREATE INDEX books_by_author ON books(author);
CREATE VIRTUAL TABLE found USING fts5(title, content='books', content_rowid='id');
CREATE TRIGGER books_in AFTER INSERT ON books BEGIN INSERT INTO found(rowid, title) VALUES (new.id, new.title); END;
CREATE TRIGGER books_out AFTER DELETE ON books
  BEGIN INSERT INTO found(found, rowid, title) VALUES ('delete', old.id, old.title); END;
CREATE TRIGGER books_changed AFTER UPDATE ON books BEGIN
  INSERT INTO found(found, rowid, title) VALUES ('delete', old.id, old.title);
  INSERT INTO found(rowid, title) VALUES (new.id, new.title);
END;
CREATE TABLE audit(n INTEGER PRIMARY KEY, what TEXT);
CREATE TRIGGER audited AFTER INSERT ON books BEGIN INSERT INTO audit(what) VALUES ('new ' || new.title); END;
CREATE VIEW rare AS SELECT title FROM books WHERE copies = 1;
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000)
  INSERT INTO books SELECT i, 'book number ' || i, 'author ' || (i % 20), i % 3 FROM n;
"""


def found(node: Node, word: str) -> list[tuple[Any, ...]]:
    return node.rows("SELECT rowid FROM found WHERE found MATCH ? ORDER BY rowid", [word])


def test_a_late_node_without_a_file_gets_everything_search_index_view_and_triggers_too(site: Site) -> None:
    first = site.node("first", tables=LIBRARY)
    start([first])
    site.application(first).write(
        "UPDATE books SET title = 'the odyssey' WHERE id = 7", "DELETE FROM books WHERE id BETWEEN 100 AND 120"
    )
    late = site.node("late", tables=None)
    start([late])
    content = until_equal([first, late])
    assert len(content["books"]) == 3000 - 21
    assert found(late, "odyssey") == [(7,)]
    assert found(late, "111") == []
    assert len(late.rows("SELECT * FROM rare")) == len(first.rows("SELECT * FROM rare")) > 0
    assert late.value("SELECT count(*) FROM sqlite_schema WHERE name = 'books_by_author'") == 1
    assert len(content["audit"]) == 3000, "triggers don't run again for rows that come from others"
    site.application(late).write("INSERT INTO books VALUES (9001, 'the iliad', 'homer', 1)")
    content = until_equal([first, late])
    assert len(content["audit"]) == 3001, "they do run where the application writes, and once"
    assert found(first, "iliad") == found(late, "iliad") == [(9001,)]
    agree([late])


def test_a_late_node_with_data_of_its_own_is_merged(site: Site) -> None:
    first, late = site.node("first"), site.node("late")
    site.application(first).write("INSERT INTO events VALUES ('both', 'first', 1, 'of the cluster')")
    site.application(first).write("INSERT INTO events VALUES ('mine', 'first', 2, NULL)")
    site.application(late).write("INSERT INTO events VALUES ('both', 'late', 1, 'of the late one')")
    site.application(late).write("INSERT INTO events VALUES ('yours', 'late', 2, NULL)")
    start([first])
    start([late])
    content = until_equal([first, late])
    assert sorted(name for name, *_ in content["events"]) == ["both", "mine", "yours"]
    assert late.value("SELECT note FROM events WHERE id = 'both'") == "of the cluster"
    code, text = late.command("conflicts", "-json")
    assert code == 0
    assert "of the late one" in text, "what gave way is in the journal"
    code, text = late.command("conflicts", "-table", "evnts")
    assert code == NotFoundError.exit_code
    assert "there is no replicated table evnts" in text
    assert late.command("conflicts", "-table", "accounts") == (0, "no conflicts")
    agree([first, late])


def test_a_node_away_for_longer_than_the_stream_keeps_adopts_a_snapshot_and_keeps_its_pending_rows(
    site: Site,
) -> None:
    small = {"replication_log": {"max_entries": 30}}
    nodes = [site.node("a", sections=small), site.node("b", sections=small)]
    start(nodes)
    a, b = nodes
    writer = site.application(a)
    writer.write("INSERT INTO events VALUES ('base', 'a', 0, 'base')", "INSERT INTO events VALUES ('gone', 'a', 0, '')")
    until_equal(nodes)
    b.kill()
    offline = site.application(b)
    offline.write("INSERT INTO events VALUES ('offline', 'b', 1, NULL)")
    offline.write("UPDATE events SET n = 17 WHERE id = 'base'", "UPDATE fought SET value = 'b' WHERE id = 1")
    writer.write("UPDATE events SET note = 'changed' WHERE id = 'base'", "DELETE FROM events WHERE id = 'gone'")
    published = a.status("published_messages")
    for n in range(120):
        writer.write(("INSERT INTO events VALUES (?, 'a', ?, NULL)", [f"a{n}", n]))
        until(lambda: a.status("published_messages") > published + n, "one change set each")  # noqa: B023
    b.start()
    b.ready()
    content = until_equal(nodes)
    assert len(content["events"]) == 122
    assert b.rows("SELECT n, note FROM events WHERE id = 'base'") == [(17, "changed")]
    assert a.value("SELECT value FROM fought WHERE id = 1") == "b"
    assert "resynced from snapshot" in b.log.read_text()
    agree(nodes)


def test_a_fresh_node_gets_all_rows_although_the_stream_forgot_most(site: Site) -> None:
    small = {"replication_log": {"max_entries": 20}}
    first = site.node("first", sections=small)
    start([first])
    writer = site.application(first)
    for n in range(60):
        published = first.status("published_messages")
        writer.write(("INSERT INTO events VALUES (?, 'a', ?, NULL)", [f"a{n}", n]))
        until(lambda: first.status("published_messages") > published, "one change set each")  # noqa: B023
    late = site.node("late", sections=small, tables=None)
    start([late])
    assert len(until_equal([first, late])["events"]) == 60
    agree([first, late])


def test_a_node_that_was_left_without_its_mirror_gets_a_new_one_and_loses_nothing(site: Site) -> None:
    nodes = [site.node("a"), site.node("b")]
    start(nodes)
    site.application(nodes[0]).write("INSERT INTO events VALUES ('1', 'a', 1, NULL)")
    until_equal(nodes)
    nodes[1].kill()
    site.application(nodes[1]).write("INSERT INTO events VALUES ('2', 'b', 2, NULL)")
    for path in (nodes[1].folder / "mirror" / "app.db").glob("mirror.db*"):
        path.unlink()
    site.application(nodes[0]).write("INSERT INTO events VALUES ('3', 'a', 3, NULL)")
    start([nodes[1]])
    assert len(until_equal(nodes)["events"]) == 3
    agree(nodes)


def test_a_deleted_database_comes_back_whole(site: Site) -> None:
    nodes = [site.node("a"), site.node("b")]
    start(nodes)
    site.application(nodes[0]).write("INSERT INTO events VALUES ('1', 'a', 1, NULL)")
    until_equal(nodes)
    assert nodes[1].stop() == 0
    for path in nodes[1].folder.glob("app.db*"):
        path.unlink()
    site.application(nodes[0]).write("INSERT INTO events VALUES ('2', 'a', 2, NULL)")
    start([nodes[1]])
    assert len(until_equal(nodes)["events"]) == 2
    agree(nodes)


def test_a_read_replica_keeps_its_own_rows_and_a_source_takes_none(site: Site) -> None:
    replica = site.node("replica", sections={"": {"publish": False}})
    source = site.node("source", sections={"": {"replicate": False}})
    both = site.node("both")
    nodes = [both, replica, source]
    start([both])
    start([replica, source])
    for node in nodes:
        site.application(node).write(("INSERT INTO events VALUES (?, ?, 1, NULL)", [f"of {node.name}", node.name]))

    def names(node: Node) -> list[str]:
        return [name for (name,) in node.rows("SELECT writer FROM events ORDER BY writer")]

    until(lambda: names(both) == ["both", "source"], "a source publishes, a read replica does not")
    until(lambda: names(replica) == ["both", "replica", "source"], "a read replica takes all and keeps its own")
    until(lambda: replica.health()["pending_rows"] == 1, "what stays local is reported")
    assert names(source) == ["source"]
    for node in (replica, source):
        assert node.stop() == 0
        start([node])
    site.application(both).write("INSERT INTO events VALUES ('more', 'both', 2, NULL)")
    until(lambda: names(replica) == ["both", "both", "replica", "source"], "also after a restart")
    assert names(source) == ["source"]
    assert names(both) == ["both", "both", "source"]
