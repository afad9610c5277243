"""``harmonylite schema``: people see every node's schema, follow a change around the cluster, accept what waits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.fix_cluster import Site, start
from tests.cluster.processes import Node, until, until_equal

pytestmark = pytest.mark.timeout(200)

ITEMS = "CREATE TABLE items(id INTEGER PRIMARY KEY, name TEXT NOT NULL);"


def told(node: Node, *words: str) -> dict[str, Any]:
    """Return what a command of ``harmonylite schema`` says of ``node`` as JSON."""
    code, text = node.command("schema", *words, "-json")
    assert code in (0, 4), text
    found: dict[str, Any] = json.loads(text)
    return found


def hashes(node: Node) -> dict[str, str]:
    """Return the schema's hash on every node, as ``node`` says it."""
    return {each["node_id"]: each["hash"] for each in told(node, "status", "-cluster")["nodes"]}


def listed(node: Node, other: Node) -> str:
    """Return the digest of the tables of ``other``, as the cluster's list of nodes says it to ``node``."""
    peers = {str(peer["node_id"]): peer for peer in node.health()["peers"]}
    return str(peers[other.name]["schema"])


def test_a_change_is_applied_here_and_followed_until_every_node_has_it(site: Site, tmp_path: Path) -> None:
    a, b = nodes = [site.node(name, tables=ITEMS) for name in ("a", "b")]
    start(nodes)
    before = told(a, "status")
    assert before["version"] == 0
    assert before["tables"] == 1
    until(lambda: hashes(a) == dict.fromkeys("ab", before["hash"]), "both are listed, with the same schema")

    file = tmp_path / "labels.sql"
    file.write_text(
        "ALTER TABLE items ADD COLUMN label TEXT;\nCREATE INDEX items_label ON items(label);\n"
        "UPDATE items SET label = 'none'; PRAGMA user_version = 3;\n"
    )
    code, text = a.command("schema", "apply", str(file), "-dry-run")
    assert (code, "+  label TEXT)" in text, "nothing was changed" in text) == (0, True, True), text
    assert told(a, "status")["hash"] == before["hash"]

    applied = told(a, "apply", str(file))
    assert applied["seconds"].keys() == {"a", "b"}
    assert b.value("SELECT count(*) FROM pragma_table_info('items') WHERE name = 'label'") == 1
    after = until(lambda: (found := told(b, "status"))["hash"] == applied["hash"] and found, "b has it")
    assert (after["previous_hash"], after["version"]) == (before["hash"], 3)
    assert after["since"] > 0
    health = b.health()["schema"]
    assert (health["hash"], health["previous_hash"], health["paused"]) == (after["hash"], before["hash"], False)

    changes = told(b, "history")["changes"]
    assert [change["node"] for change in changes] == ["a"]
    assert {each["name"] for each in changes[0]["changes"]} == {"items", "items_label", "user_version"}
    for flag in ("-schema-status", "-schema-status-cluster"):
        code, text = a.command(flag)
        assert (code, after["hash"] in text) == (0, True), text
    until(lambda: listed(a, b) == b.ask("GET", "/v1/status")["schema"], "the cluster's list has what b has")
    assert b.stop() == 0
    gone = next(each for each in told(a, "status", "-cluster")["nodes"] if each["node_id"] == "b")
    assert (gone["state"], gone["hash"]) == ("unknown", after["hash"])


@pytest.mark.parametrize(
    ("sql", "why"),
    [
        ("CREATE TABLE extra(id TEXT PRIMARY KEY); CREATE TABLE items(id)", "already exists"),
        ("CREATE TABLE extra(id TEXT PRIMARY KEY); COMMIT; SELECT 1", "not authorized"),
        ("CREATE TABLE extra(id TEXT PRIMARY KEY); INSERT INTO items(name) VALUES (NULL)", "NOT NULL"),
    ],
)
def test_a_file_that_fails_changes_nothing(site: Site, tmp_path: Path, sql: str, why: str) -> None:
    node = site.node("a", tables=ITEMS)
    start([node])
    file = tmp_path / "wrong.sql"
    file.write_text(sql)
    code, text = node.command("schema", "apply", str(file))
    assert code != 0
    assert why in text
    assert "nothing was changed" in text
    assert node.value("SELECT count(*) FROM sqlite_schema WHERE name = 'extra'") == 0


def test_what_waits_is_shown_compared_and_accepted(site: Site) -> None:
    a = site.node("a", tables=ITEMS)
    b = site.node("b", sections={"schema": {"apply": "none"}}, tables=ITEMS)
    start([a, b])
    site.application(a).write(
        "ALTER TABLE items ADD COLUMN label TEXT", "INSERT INTO items(id, name, label) VALUES (1, 'one', 'l')"
    )
    waits = until(lambda: (found := told(b, "status"))["waiting"] and found["why"] and found, "b says what waits")
    assert waits["waiting"][0]["object"].startswith("table items")
    assert waits["waiting"][0]["node"] == "a"
    until(lambda: b.health()["schema"]["paused"], "b pauses")
    code, text = b.command("schema", "diff", "a")
    assert (code, "+  label TEXT)" in text) == (4, True), text
    assert b.command("schema", "diff", "nobody")[0] == 15
    code, text = b.command("schema", "accept")
    assert (code, "made table items" in text) == (0, True), text
    until_equal([a, b])
    until(lambda: b.command("schema", "diff", "a") == (0, "no difference"), "the schemas are the same")
    until(lambda: told(b, "status")["waiting"] == [], "nothing waits")


def test_what_was_dropped_and_renamed_is_in_the_history(site: Site) -> None:
    node = site.node("a", sections={"schema": {"apply": "all"}}, tables=ITEMS)
    start([node])
    writer = site.application(node)
    for sql in ("CREATE TABLE gone(id INTEGER PRIMARY KEY)", "ALTER TABLE gone RENAME TO later", "DROP TABLE later"):
        before = len(told(node, "history")["changes"])
        writer.write(sql)
        until(lambda before=before: len(told(node, "history")["changes"]) > before, "it is in the stream")  # type: ignore[misc]
    code, text = node.command("schema", "history")
    assert code == 0, text
    lines = [line.strip() for line in text.splitlines() if line.startswith("    ")]
    assert lines[0].startswith("table gone: CREATE TABLE gone(")
    assert lines[1].startswith("rename table gone to later: CREATE TABLE")
    assert lines[2:] == ["drop table later"]
