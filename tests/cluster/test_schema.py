"""Each node's application is migrated by hand while nodes run: nothing stops, nothing is rewritten for nothing."""

from __future__ import annotations

import re

import pytest

from tests.cluster.fix_cluster import Site, start
from tests.cluster.processes import Node, agree, until, until_equal

pytestmark = pytest.mark.timeout(200)

BY_HAND = {"schema": {"apply": "none"}}
ITEMS = """
CREATE TABLE items(id INTEGER PRIMARY KEY, name TEXT NOT NULL);
INSERT INTO items SELECT value, 'item ' || value FROM json_each('[1,2,3,4,5,6,7,8,9,10]');
"""
STRICTER = (
    "CREATE TABLE new_items(id INTEGER PRIMARY KEY, name TEXT NOT NULL, code TEXT NOT NULL)",
    "INSERT INTO new_items SELECT id, name, 'code ' || id FROM items",
    "DROP TABLE items",
    "ALTER TABLE new_items RENAME TO items",
)
LENIENT = (
    "CREATE TABLE new_items(id INTEGER PRIMARY KEY, name TEXT)",
    "INSERT INTO new_items SELECT id, name FROM items",
    "DROP TABLE items",
    "ALTER TABLE new_items RENAME TO items",
)
REBUILD = (
    "CREATE TABLE new_items(id INTEGER PRIMARY KEY, name TEXT NOT NULL, price REAL NOT NULL DEFAULT 1.5)",
    "INSERT INTO new_items(id, name) SELECT id, name FROM items",
    "DROP TABLE items",
    "ALTER TABLE new_items RENAME TO items",
)


@pytest.fixture
def nodes(site: Site) -> list[Node]:
    """Two nodes with ten items."""
    nodes = [site.node(name, sections=BY_HAND, tables=ITEMS) for name in ("a", "b")]
    start(nodes)
    return nodes


def test_a_column_added_on_one_node_first_makes_no_row_traffic_and_the_other_waits_visibly(
    site: Site, nodes: list[Node]
) -> None:
    a, b = (site.application(node) for node in nodes)
    rows = nodes[0].status("published_rows")
    a.write("ALTER TABLE items ADD COLUMN colour TEXT")
    b.write("UPDATE items SET name = 'from the old schema' WHERE id = 2")
    until(lambda: nodes[0].value("SELECT name FROM items WHERE id = 2") == "from the old schema", "the old one flows")
    assert nodes[0].status("published_rows") == rows, "a schema change alone is no reason to send rows"
    a.write("UPDATE items SET colour = 'red' WHERE id = 1")
    until(lambda: nodes[1].waits("colour"), "the other one names what it waits for")
    b.write("UPDATE items SET name = 'continues writing' WHERE id = 3")
    until(
        lambda: nodes[0].value("SELECT name FROM items WHERE id = 3") == "continues writing", "its writes still go out"
    )
    b.write("ALTER TABLE items ADD COLUMN colour TEXT")
    content = until_equal(nodes)
    assert (1, "item 1", "red") in content["items"]
    for node in nodes:
        node.ready()
    agree(nodes)


def test_a_new_table_and_a_renamed_one_are_replicated_without_a_restart(site: Site, nodes: list[Node]) -> None:
    writers = [site.application(node) for node in nodes]
    for writer in writers:
        writer.write('CREATE TABLE "new one"(k TEXT PRIMARY KEY, v)')
    writers[0].write("INSERT INTO \"new one\" VALUES ('a', 1)")
    writers[1].write("INSERT INTO \"new one\" VALUES ('b', 2)")
    assert len(until_equal(nodes)["new one"]) == 2
    for writer in writers:
        writer.write('ALTER TABLE "new one" RENAME TO "order"', "ALTER TABLE items RENAME COLUMN name TO title")
    writers[0].write("UPDATE \"order\" SET v = 3 WHERE k = 'b'", "UPDATE items SET title = 'x' WHERE id = 1")
    writers[1].write("DELETE FROM \"order\" WHERE k = 'a'")
    content = until_equal(nodes)
    assert content["order"] == [("b", 3)]
    assert (1, "x") in content["items"]
    for node in nodes:
        node.ready()
    agree(nodes)


def test_a_table_rebuilt_by_a_migration_tool_stays_replicated(site: Site, nodes: list[Node]) -> None:
    writers = [site.application(node) for node in nodes]
    for writer in writers:
        writer.write(*REBUILD)
    writers[0].write("UPDATE items SET price = 9.5 WHERE id = 4")
    writers[1].write("INSERT INTO items(id, name) VALUES (11, 'eleven')")
    content = until_equal(nodes)
    assert (4, "item 4", 9.5) in content["items"]
    assert (11, "eleven", 1.5) in content["items"]
    agree(nodes)


def test_a_schema_changed_while_the_node_was_off_is_taken_up(site: Site, nodes: list[Node]) -> None:
    assert nodes[0].stop() == 0
    writers = [site.application(node) for node in nodes]
    writers[0].write("ALTER TABLE items ADD COLUMN colour TEXT")
    writers[0].write("UPDATE items SET colour = 'blue' WHERE id = 5")
    writers[1].write("UPDATE items SET name = 'meanwhile' WHERE id = 6")
    nodes[0].start()
    until(lambda: nodes[1].waits("colour"), "the other one waits")
    writers[1].write("ALTER TABLE items ADD COLUMN colour TEXT")
    content = until_equal(nodes)
    assert (5, "item 5", "blue") in content["items"]
    assert (6, "meanwhile", None) in content["items"]
    agree(nodes)


def test_a_column_that_must_have_a_value_comes_by_a_migration_first_here_then_there(
    site: Site, nodes: list[Node]
) -> None:
    a, b = (site.application(node) for node in nodes)
    a.write(*STRICTER)
    until(lambda: nodes[1].waits("code"), "the values that the migration made are on their way")
    b.write("INSERT INTO items VALUES (11, 'of the old schema')", "UPDATE items SET name = 'renamed' WHERE id = 1")
    until(lambda: nodes[0].value("SELECT code FROM items WHERE id = 11") == "", "the old schema's rows still arrive")
    b.write(*STRICTER)
    content = until_equal(nodes)
    assert content["items"][:2] == [(1, "renamed", "code 1"), (10, "item 10", "code 10")]
    assert (11, "of the old schema", "code 11") in content["items"]
    for node in nodes:
        node.ready()
        assert "Traceback" not in node.log.read_text()
    agree(nodes)


def test_a_constraint_that_only_one_node_has_pauses_it_visibly_and_never_ends_it(site: Site, nodes: list[Node]) -> None:
    a, b = (site.application(node) for node in nodes)
    a.write(*LENIENT)
    a.write("INSERT INTO items VALUES (11, NULL)")
    until(lambda: nodes[1].waits("NOT NULL constraint failed: items.name"), "the node says what is in the way")
    b.write("UPDATE items SET name = 'still written' WHERE id = 1")
    until(lambda: nodes[0].value("SELECT name FROM items WHERE id = 1") == "still written", "its own changes go out")
    assert nodes[1].get("/livez")[0] == 200
    nodes[1].logged("NOT NULL constraint failed")
    said = nodes[1].log.read_text()
    assert said.count("NOT NULL constraint failed") == 1, "what stays the same is logged once"
    assert "Traceback" not in said
    nodes[1].kill()
    nodes[1].start()
    until(lambda: nodes[1].waits("NOT NULL constraint failed: items.name"), "also after a restart")
    b.write(*LENIENT)
    content = until_equal(nodes)
    assert (11, None) in content["items"]
    for node in nodes:
        node.ready()
    agree(nodes)


def test_a_column_goes_on_one_node_first_while_the_other_still_writes_it(site: Site, nodes: list[Node]) -> None:
    a, b = (site.application(node) for node in nodes)
    for writer in (a, b):
        writer.write("ALTER TABLE items ADD COLUMN price REAL")
    a.write("UPDATE items SET price = 1.5 WHERE id = 1")
    until(lambda: nodes[1].value("SELECT price FROM items WHERE id = 1") == 1.5, "both nodes have seen the column")
    a.write("ALTER TABLE items DROP COLUMN price")
    b.write("UPDATE items SET price = 2.5, name = 'dear' WHERE id = 2", "INSERT INTO items VALUES (11, 'new', 3.5)")
    until(lambda: nodes[0].value("SELECT name FROM items WHERE id = 2") == "dear", "the old schema's rows arrive")
    until(lambda: nodes[0].value("SELECT name FROM items WHERE id = 11") == "new", "its new rows, too")
    b.write("UPDATE items SET price = 4.5 WHERE id = 1", "DELETE FROM items WHERE id = 3")
    b.write("ALTER TABLE items DROP COLUMN price")
    content = until_equal(nodes)
    assert (2, "dear") in content["items"]
    assert len(content["items"]) == 10
    for node in nodes:
        node.ready()
    agree(nodes)


def test_names_change_right_behind_writes_that_are_under_way(site: Site, nodes: list[Node]) -> None:
    a, b = (site.application(node) for node in nodes)
    for n in range(100, 150):
        a.write(f"INSERT INTO items VALUES ({n}, 'a {n}')")
        b.write(f"INSERT INTO items VALUES ({n + 100}, 'b {n}')")
    for writer in (a, b):
        writer.write("ALTER TABLE items RENAME COLUMN name TO title", "ALTER TABLE items RENAME TO things")
    a.write("UPDATE things SET title = 'after' WHERE id = 1")
    content = until_equal(nodes)
    assert len(content["things"]) == 110
    assert (1, "after") in content["things"]
    for node in nodes:
        node.ready()
    agree(nodes)


def test_a_node_that_was_away_while_columns_and_tables_came_and_went_goes_on(site: Site, nodes: list[Node]) -> None:
    a, b = (site.application(node) for node in nodes)
    away = nodes[1]
    assert away.stop() == 0
    a.write("ALTER TABLE items ADD COLUMN colour TEXT")
    a.write("UPDATE items SET colour = 'red' WHERE id = 1")
    a.write("CREATE TABLE passing(id INTEGER PRIMARY KEY, v)", "INSERT INTO passing VALUES (1, 'x')")
    nodes[0].sent()
    assert nodes[0].status("published_rows") == 2
    a.write("DROP TABLE passing", "ALTER TABLE items RENAME COLUMN colour TO paint")
    a.write("UPDATE items SET paint = 'blue' WHERE id = 2")
    b.write("UPDATE items SET name = 'meanwhile' WHERE id = 3")
    b.write("ALTER TABLE items ADD COLUMN paint TEXT")
    away.start()
    content = until_equal(nodes, seconds=120)
    assert content["items"][:1] == [(1, "item 1", "red")]
    assert {(2, "item 2", "blue"), (3, "meanwhile", None)} <= set(content["items"])
    away.logged("is past that: this node resyncs from it")
    for node in nodes:
        node.ready()
    agree(nodes)


def test_a_change_set_of_several_shards_waits_visibly_for_its_table_or_is_left_out(site: Site) -> None:
    nodes = [
        site.node(name, sections=BY_HAND | {"replication_log": {"shards": 3}}, tables=ITEMS) for name in ("a", "b")
    ]
    start(nodes)
    a, b = (site.application(node) for node in nodes)
    a.write("CREATE TABLE never_there(k TEXT PRIMARY KEY, v)")
    a.write("INSERT INTO never_there SELECT 'k' || value, value FROM json_each('[1,2,3,4,5,6,7,8,9]')")
    nodes[0].sent()
    assert nodes[0].status("published_rows") == 9
    a.write("UPDATE items SET name = 'behind it'")
    until(lambda: nodes[1].waits("needs table never_there"), "the other one says what it waits for")
    skipped: set[tuple[str, str]] = set()

    def more() -> bool:
        """Leave out each part that the node waits at; return whether it waits no more."""
        waits = set(re.findall(r"shard (\d), message (\d+)\) needs", " ".join(nodes[1].health().get("waits", ["?"]))))
        for part in waits - skipped:
            assert nodes[1].command("skip", *part, "-yes")[0] == 0
        skipped.update(waits)
        return not waits and nodes[1].health().get("waits") == []

    until(more, "it continues")
    assert len(skipped) == 1, "one part means the change set: all of it is left out"
    assert nodes[1].value("SELECT count(*) FROM sqlite_schema WHERE name = 'never_there'") == 0
    until(lambda: nodes[1].value("SELECT count(*) FROM items WHERE name = 'behind it'") == 10, "the rest arrives")
    b.write("UPDATE items SET name = 'and back' WHERE id = 1")
    until(lambda: nodes[0].value("SELECT name FROM items WHERE id = 1") == "and back", "its own writes go out")
    nodes[1].ready()
