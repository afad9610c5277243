"""What one node's application adds to its schema is made on all nodes, while everybody writes."""

from __future__ import annotations

import pytest

from tests.cluster.fix_cluster import Site, start
from tests.cluster.processes import Node, agree, until, until_equal

pytestmark = pytest.mark.timeout(200)

ITEMS = """
CREATE TABLE items(id INTEGER PRIMARY KEY, name TEXT NOT NULL);
INSERT INTO items SELECT value, 'item ' || value FROM json_each('[1,2,3,4,5,6,7,8,9,10]');
"""
MIGRATION = (
    "CREATE TABLE migrations(id INTEGER PRIMARY KEY, app TEXT, name TEXT)",
    "CREATE TABLE labels(id TEXT PRIMARY KEY NOT NULL, item INTEGER REFERENCES items(id), label TEXT)",
    "ALTER TABLE items ADD COLUMN colour TEXT",
    "UPDATE items SET colour = 'grey'",
    "CREATE INDEX items_colour ON items(colour)",
    "CREATE VIEW grey AS SELECT id FROM items WHERE colour = 'grey'",
    "CREATE VIRTUAL TABLE found USING fts5(name, content='items', content_rowid='id')",
    "INSERT INTO found(found) VALUES ('rebuild')",
    "CREATE TRIGGER found_i AFTER INSERT ON items BEGIN INSERT INTO found(rowid, name) VALUES (new.id, new.name); END",
    "INSERT INTO labels SELECT 'l' || id, id, 'new' FROM items",
    "INSERT INTO migrations VALUES (1, 'shop', '0002_labels')",
    "PRAGMA user_version = 2",
)
OBJECTS = "SELECT group_concat(name) FROM (SELECT name FROM sqlite_schema WHERE name NOT GLOB '__*' ORDER BY name)"


def same_schema(nodes: list[Node]) -> None:
    """Wait until all files have the same objects and the same number."""
    until(lambda: len({node.value(OBJECTS) for node in nodes}) == 1, "all have the same objects")
    until(lambda: len({node.value("PRAGMA user_version") for node in nodes}) == 1, "all have the same number")


@pytest.mark.parametrize("shards", [1, 2])
def test_a_migration_on_one_node_reaches_all_while_everybody_writes(site: Site, shards: int) -> None:
    sections = {"replication_log": {"shards": shards}}
    nodes = [site.node(name, sections=sections, tables=ITEMS) for name in ("a", "b", "c")]
    start(nodes)
    writers = [site.application(node) for node in nodes]
    for round_ in range(3):
        for place, writer in enumerate(writers):
            writer.write(f"INSERT INTO items(id, name) VALUES ({100 + 10 * round_ + place}, 'written red')")
        if round_ == 1:
            writers[0].write(*MIGRATION)
    content = until_equal(nodes)
    same_schema(nodes)
    assert len(content["labels"]) >= 10
    assert content["migrations"] == [(1, "shop", "0002_labels")]
    assert nodes[1].value("PRAGMA user_version") == 2
    writers[2].write("INSERT INTO items(id, name, colour) VALUES (200, 'late red', 'red')")
    until(
        lambda: all(n.value("SELECT count(*) FROM found WHERE found MATCH 'red'") == 10 for n in nodes), "found by all"
    )
    for node in nodes:
        node.ready()
        assert "Traceback" not in node.log.read_text()
    agree(nodes)


def test_a_node_that_was_down_and_one_that_is_new_get_it_too(site: Site) -> None:
    a, b = nodes = [site.node(name, tables=ITEMS) for name in ("a", "b")]
    start(nodes)
    until_equal(nodes)
    assert a.command("snapshot", "save")[0] == 0
    assert b.stop() == 0
    site.application(a).write(*MIGRATION)
    site.application(b).write("CREATE TABLE own(id INTEGER PRIMARY KEY)", "INSERT INTO own VALUES (1)")
    a.sent()
    b.start()
    until_equal(nodes)
    c = site.node("c", tables=None)
    c.start()
    content = until_equal([a, b, c])
    assert content["own"] == [(1,)]
    same_schema([a, b, c])
    for node in (a, b, c):
        node.ready()
    agree([a, b, c])


def test_both_nodes_add_at_once(site: Site) -> None:
    a, b = nodes = [site.node(name, tables=ITEMS) for name in ("a", "b")]
    start(nodes)
    site.application(a).write("ALTER TABLE items ADD COLUMN colour TEXT", "UPDATE items SET colour = 'red'")
    site.application(b).write("ALTER TABLE items ADD COLUMN price REAL", "UPDATE items SET price = 1.5")
    until(
        lambda: all(
            node.value("SELECT count(*) FROM pragma_table_info('items') WHERE name IN ('colour', 'price')") == 2
            for node in nodes
        ),
        "both columns are in both files",
    )
    question = "SELECT count(*) FROM items WHERE colour = 'red' AND price = 1.5"
    until(lambda: all(node.value(question) == 10 for node in nodes), "both values are in both files")
    for node in nodes:
        node.ready()
    agree(nodes)
