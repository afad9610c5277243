"""A file that comes back is never older than what it overwrites: an application that writes at once undoes nothing."""

from __future__ import annotations

import os
import shutil
import socket
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import apsw
import pytest

from tests.cluster.fix_cluster import Site, make, start
from tests.cluster.processes import SECONDS, Node, agree, until, until_equal

pytestmark = pytest.mark.timeout(400)

BY_HAND = {"schema": {"apply": "none"}}
T = "CREATE TABLE t(id TEXT PRIMARY KEY, n INT)"
COUNTER = "CREATE TABLE counter(id TEXT PRIMARY KEY, n INT); INSERT INTO counter VALUES ('c', 0)"
COUNTERS = "CREATE TABLE counter(id TEXT PRIMARY KEY, n INT); INSERT INTO counter VALUES ('0', 0), ('1', 0), ('2', 0)"
ONE_MORE = "UPDATE counter SET n = n + 1"
CHANGE_SETS = 1_000
"""So many come after the newest snapshot."""


def three(site: Site, kind: str) -> list[Node]:
    """Return three nodes on streams of three replicas, ready."""
    if kind == "embedded":
        nodes = site.embedded(3, replicas=3, tables=COUNTERS)
    else:
        urls = [server.url for server in site.servers(3)]
        sections = {"replication_log": {"replicas": 3}}
        nodes = [site.node(name, urls=urls, sections=sections, tables=COUNTERS) for name in "abc"]
    start(nodes)
    until_equal(nodes)
    return nodes


def count_everywhere(site: Site, nodes: Sequence[Node]) -> list[int]:
    """Let each node count on a row of its own until the stream holds so many change sets; return the counts."""
    enough = threading.Event()
    counts = [0] * len(nodes)

    def count(number: int) -> None:
        writer = site.application(nodes[number])
        while not enough.is_set():
            writer.write((f"{ONE_MORE} WHERE id = ?", [str(number)]))
            counts[number] += 1
            time.sleep(0.01)  # else they take the processor from the nodes, whose change sets then become few and large

    writers = [threading.Thread(target=count, args=(number,)) for number in range(len(nodes))]
    for writer in writers:
        writer.start()
    try:
        until(lambda: _newest(nodes[0]) >= CHANGE_SETS, "so many change sets", 4 * SECONDS)
    finally:
        enough.set()
        for writer in writers:
            writer.join()
    return counts


def _newest(node: Node) -> int:
    """Return the newest message of shard 0; 0 where the node, busy, gave no answer in time."""
    return int(node.health().get("shards", [{"last": 0}])[0]["last"])


def counted(node: Node) -> list[int]:
    return [int(n) for (n,) in node.rows("SELECT n FROM counter ORDER BY id")]


def wipe(node: Node) -> None:
    """Lose the node's folder, but for its configuration and its log."""
    for path in node.folder.glob("app.db*"):
        path.unlink()
    for folder in ("mirror", "nats"):
        shutil.rmtree(node.folder / folder, ignore_errors=True)


def at_once(db: Path, *, other_than: int = 0) -> list[int]:
    """Count one up in every row as soon as a file is there that logs what is written; return what was read."""

    def triggers() -> bool:
        if not db.exists() or db.stat().st_ino == other_than:
            return False
        reader = apsw.Connection(str(db), flags=apsw.SQLITE_OPEN_READONLY)
        reader.set_busy_timeout(60_000)
        try:
            return reader.execute("SELECT 1 FROM sqlite_schema WHERE name LIKE '%harmonylite%insert'").get is not None
        finally:
            reader.close()

    until(triggers, "a file with our triggers is there", 2 * SECONDS)
    app = apsw.Connection(str(db), flags=apsw.SQLITE_OPEN_READWRITE)
    app.set_busy_timeout(60_000)
    app.execute("BEGIN IMMEDIATE")
    found: list[Any] = app.execute("SELECT id, n FROM counter ORDER BY id").fetchall()
    for key, n in found:
        app.execute("UPDATE counter SET n = ? WHERE id = ?", [n + 1, key])
    app.execute("COMMIT")
    app.close()
    return [int(n) for _, n in found]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", ["external", "embedded"])
def test_what_is_written_as_soon_as_the_file_is_there_undoes_nothing(site: Site, kind: str) -> None:
    nodes = three(site, kind)
    b = nodes[1]
    counts = count_everywhere(site, nodes)
    until(lambda: all(counted(node) == counts for node in nodes), "all have every count", 2 * SECONDS)
    b.kill()
    wipe(b)
    b.start()
    assert at_once(b.db) == counts, "the file that appears holds all"
    b.ready()
    counts = [n + 1 for n in counts]
    until(lambda: all(counted(node) == counts for node in nodes), "the last count is everywhere, on top of all")
    agree(nodes)


@pytest.mark.parametrize("gone", ["", "*"], ids=["the file alone", "and what SQLite keeps beside it"])
def test_a_file_that_is_deleted_under_a_running_node_comes_back_with_all(site: Site, gone: str) -> None:
    a, b = nodes = [site.node(name, tables=COUNTER) for name in "ab"]
    start(nodes)
    writer = site.application(a)
    writer.write(ONE_MORE)
    until(lambda: counted(b) == [1], "b has the first count")
    other = b.db.stat().st_ino
    holder = apsw.Connection(str(b.db))
    holder.set_busy_timeout(60_000)
    holder.execute(ONE_MORE)
    b.sent()
    until(lambda: counted(a) == [2], "what the old file was given is everywhere")
    for path in b.folder.glob(f"app.db{gone}"):
        path.unlink()
    for _ in range(20):
        writer.write(ONE_MORE)
    assert at_once(b.db, other_than=other) >= [2]
    holder.close()
    b.ready()
    until_equal(nodes)
    assert "database" in b.log.read_text()
    assert b.rows("PRAGMA integrity_check") == [("ok",)]
    agree(nodes)


def test_a_new_node_gets_rows_of_a_column_that_the_newest_snapshot_lacks(site: Site) -> None:
    a, b = nodes = [site.node(name, sections=BY_HAND, tables=T) for name in "ab"]
    start(nodes)
    for node in nodes:
        site.application(node).write("ALTER TABLE t ADD COLUMN x TEXT")
    for node in nodes:
        site.application(node).write(("INSERT INTO t VALUES (?, 1, 'x of ' || ?)", [node.name, node.name]))
    until_equal(nodes)
    b.kill()
    wipe(b)
    b.start()
    b.ready()
    assert until_equal([a, b])["t"] == [("a", 1, "x of a"), ("b", 1, "x of b")]
    agree(nodes)


@pytest.mark.parametrize("running", [False, True], ids=["node stopped", "written into under the running node"])
def test_a_backup_that_lacks_a_column_gets_the_clusters_values_of_it(site: Site, running: bool) -> None:
    a, b = nodes = [site.node(name, sections=BY_HAND, tables=T) for name in "ab"]
    start(nodes)
    site.application(a).write("INSERT INTO t VALUES ('one', 1)")
    until_equal(nodes)
    backup = copy_of(b, site.folder / "backup.db")
    for node in nodes:
        site.application(node).write("ALTER TABLE t ADD COLUMN x TEXT")
    site.application(a).write("UPDATE t SET x = 'hello'", "INSERT INTO t VALUES ('two', 2, 'world')")
    until_equal(nodes)
    restore(b, backup, running=running)
    until(lambda: b.waits("the column x"), "b says what it waits for")
    site.application(b).write("ALTER TABLE t ADD COLUMN x TEXT")
    b.ready()
    assert until_equal(nodes)["t"] == [("one", 1, "hello"), ("two", 2, "world")]
    agree(nodes)


def copy_of(node: Node, backup: Path) -> Path:
    """Back the node's database up; return the copy."""
    connection = apsw.Connection(str(node.db))
    connection.set_busy_timeout(60_000)
    connection.execute("VACUUM INTO ?", [str(backup)])
    connection.close()
    return backup


def restore(node: Node, backup: Path, *, running: bool) -> None:
    """Put a backup in the place of a stopped node's database and start it, or write it into the running node's."""
    if running:
        source, target = apsw.Connection(str(backup)), apsw.Connection(str(node.db))
        target.set_busy_timeout(60_000)
        with target.backup("main", source, "main") as copying:
            copying.step()
        source.close()
        target.close()
        return
    if node.alive:
        assert node.stop() == 0
    for path in node.folder.glob("app.db*"):
        path.unlink()
    shutil.copy(backup, node.db)
    node.start()


def test_a_file_that_the_application_makes_meanwhile_is_merged_and_not_replaced(site: Site) -> None:
    a, b = site.node("a", tables=COUNTER), site.node("b", tables=None)
    start([a])
    site.application(a).write(ONE_MORE)
    a.sent()
    make(b.db, "CREATE TABLE own(id INTEGER PRIMARY KEY)")
    b.start()
    b.ready()
    assert b.rows("SELECT name FROM sqlite_schema WHERE name = 'own'") == [("own",)]


def test_a_file_without_a_table_is_filled_where_it_is(site: Site) -> None:
    a, b = site.node("a", tables=COUNTER), site.node("b", tables=None)
    start([a])
    site.application(a).write(ONE_MORE)
    a.sent()
    make(b.db, "PRAGMA journal_mode = wal")
    holder = apsw.Connection(str(b.db))
    holder.set_busy_timeout(60_000)
    holder.execute("PRAGMA user_version = 0").fetchall()
    b.start()
    b.ready()
    assert holder.execute("SELECT n FROM counter").fetchall() == [(1,)], "anyone who has it open sees the rows"
    holder.close()
    agree([a, b])


@pytest.mark.parametrize("how", ["a new node", "its disk lost", "a backup put back"])
def test_systemd_hears_of_the_start_once_the_file_holds_all(
    site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, how: str
) -> None:
    server = site.server()
    a, b = (site.node(name, urls=[server.url], tables=COUNTER if name == "a" else None) for name in "ab")
    start([a] if how == "a new node" else [a, b])
    writer = site.application(a)
    writer.write(ONE_MORE)
    if how == "a backup put back":
        until_equal([a, b])
        backup = copy_of(b, site.folder / "backup.db")
    for _ in range(200):
        writer.write(ONE_MORE)
    a.sent()
    if how == "a backup put back":
        until_equal([a, b])
        assert b.stop() == 0
    elif how == "its disk lost":
        b.kill()
        wipe(b)
    server.kill()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        path = f"@harmonylite-test-{os.getpid()}-{tmp_path.name}"
        systemd.bind("\0" + path[1:])
        systemd.settimeout(2 * SECONDS)
        monkeypatch.setenv("NOTIFY_SOCKET", path)
        restore(b, backup, running=False) if how == "a backup put back" else b.start()
        monkeypatch.delenv("NOTIFY_SOCKET")
        told = [systemd.recv(4096).decode().splitlines() for _ in range(4)]
        assert not any("READY=1" in lines for lines in told), "nobody knows what the streams hold by now"
        server.start()
        while "READY=1" not in systemd.recv(4096).decode().splitlines():
            pass
        assert counted(b) == [201]
    a.ready()  # it looks for the server that came back after a pause
    agree([a, b])
