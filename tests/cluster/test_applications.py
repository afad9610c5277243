"""Applications as they are: lone writers, readers that stay, hardened and attaching connections, rollbacks."""

from __future__ import annotations

import random
import sys
import time

import apsw
import pytest

from tests.cluster.fix_cluster import Site, make, start
from tests.cluster.processes import Node, agree, until, until_equal

pytestmark = pytest.mark.timeout(200)

SELDOM = {"": {"polling_interval": 600_000}}
"""Nobody looks by itself for ten minutes: what is noticed was heard."""

HOOK = """
import os, sys
def watch(event, arguments, file=open({told!r}, "a", buffering=1)):
    if event == "open" and isinstance(arguments[0], str) and arguments[0].rpartition("/")[2].startswith({names!r}):
        if not arguments[2] & os.O_EXCL and not os.path.isdir(arguments[0]):
            print(arguments, file=file)
sys.addaudithook(watch)
from harmonylite.cli import main
main()
"""
"""Tells of each such file that is opened by other means than SQLite's: a file that is made then is nobody's yet, and a
folder is no file."""


def insert(name: str, n: int) -> tuple[str, list[object]]:
    return "INSERT INTO events VALUES (?, ?, ?, NULL)", [f"{name}-{n}", name, n]


def count(node: Node) -> int:
    return int(node.value("SELECT count(*) FROM events") or 0)


def test_every_lone_commit_is_noticed_at_once_though_nobody_polls(site: Site) -> None:
    nodes = [site.node(name, sections=SELDOM) for name in ("a", "b")]
    start(nodes)
    writer = site.application(nodes[0])
    for n in range(1, 26):
        writer.write(insert("a", n))
        until(lambda: count(nodes[1]) == n, f"lone write {n} arrives", 60)  # noqa: B023
        time.sleep(random.uniform(0, 0.02))  # not a wait: the next write is to meet the node at any point of its rest


def test_commits_just_before_and_while_the_watch_starts_are_not_missed(site: Site) -> None:
    nodes = [site.node(name, sections=SELDOM) for name in ("a", "b")]
    start(nodes)
    writer = site.application(nodes[0])
    written = 0
    for _ in range(2):
        nodes[0].kill()
        nodes[0].start()

        def ready() -> bool:
            nonlocal written
            written += 1
            writer.write(insert("a", written))
            return nodes[0].get("/readyz")[0] == 200

        until(ready, "the node is ready")
        until(lambda: count(nodes[1]) == written, "what was committed until then arrives without another commit", 60)


def test_a_reader_that_stays_from_before_the_start_holds_nobody_up(site: Site) -> None:
    nodes = [site.node(name) for name in ("a", "b")]
    for node in nodes:
        connection = apsw.Connection(str(node.db))
        connection.pragma("journal_mode", "wal")
        connection.close()
    with nodes[1].reader() as reader:
        reader.execute("BEGIN")
        assert reader.execute("SELECT count(*) FROM events").get == 0
        start(nodes)
        writer = site.application(nodes[0])
        for n in range(5):
            writer.write(insert("a", n))
        until(lambda: count(nodes[1]) == 5, "rows arrive beside the reader")
        assert reader.execute("SELECT count(*) FROM events").get == 0, "a reader sees its own moment"
        nodes[1].ready()
        assert nodes[1].stop() == 0


def test_a_reader_of_a_file_in_rollback_mode_is_waited_for_and_said(site: Site) -> None:
    nodes = [site.node(name) for name in ("a", "b")]
    with nodes[1].reader() as reader:
        reader.execute("BEGIN")
        assert reader.execute("SELECT count(*) FROM events").get == 0
        for node in nodes:
            node.start()
        nodes[0].ready()
        until(lambda: nodes[1].waits("lock"), "the node says what it waits for")
        reader.execute("COMMIT")
        nodes[1].ready()
        site.application(nodes[0]).write(insert("a", 1))
        until_equal(nodes)


def test_what_is_not_committed_reaches_nobody_and_a_rollback_leaves_no_trace(site: Site) -> None:
    nodes = [site.node(name) for name in ("a", "b")]
    start(nodes)
    undone, other = site.application(nodes[0]), site.application(nodes[1])
    undone.ask({"hold": [["INSERT INTO events VALUES ('undone', 'a', 1, NULL)", []]]})
    other.write(insert("b", 1))
    until(lambda: nodes[0].waits("lock"), "the transaction is open while the node looks")
    assert nodes[1].value("SELECT count(*) FROM events WHERE id = 'undone'") == 0
    undone.kill()
    content = until_equal(nodes)
    assert [name for name, *_ in content["events"]] == ["b-1"]
    nodes[0].sent()
    assert nodes[0].status("published_rows") == 0
    agree(nodes)


def test_attached_and_hardened_connections_are_captured_each_by_the_node_of_its_file(site: Site) -> None:
    nodes = [site.node(name) for name in ("a", "b", "c")]
    start(nodes)
    other = site.folder / "other.db"
    make(other, "CREATE TABLE notes(id INTEGER PRIMARY KEY, text TEXT)")
    hardened = ("PRAGMA trusted_schema = OFF", "PRAGMA foreign_keys = ON", "PRAGMA recursive_triggers = ON")
    attach = [f"ATTACH '{node.db}' AS shop{i}" for i, node in enumerate(nodes)]
    outside = site.application(other, *hardened, attach[0])
    both = site.application(nodes[1], *hardened, attach[2])
    outside.write("INSERT INTO notes VALUES (1, 'of no node')", "INSERT INTO shop0.events VALUES ('0', 'x', 1, NULL)")
    both.write(
        "INSERT INTO main.events VALUES ('1', 'x', 1, NULL)", "INSERT INTO shop2.events VALUES ('2', 'x', 1, NULL)"
    )
    both.write("UPDATE shop2.fought SET value = 'attached' WHERE id = 1", "DELETE FROM main.fought WHERE id = 2")
    content = until_equal(nodes)
    assert [name for name, *_ in content["events"]] == ["0", "1", "2"]
    for node in nodes:
        node.sent()
    assert [row[:2] for row in content["fought"]][:2] == [(1, "attached"), (3, "at first")]
    assert {node.status("published_rows") for node in nodes[1:]} == {2}, "each node published what its own file got"
    agree(nodes)


def test_nobody_but_sqlite_opens_the_live_files(site: Site) -> None:
    nodes = [site.node(name) for name in ("a", "b")]
    told = site.folder / "opened"
    nodes[0].write_config()
    hook = HOOK.format(told=str(told), names=("app.db", "mirror.db"))
    nodes[0].spawn([sys.executable, "-c", hook, "-config", str(nodes[0].config)])
    nodes[0].ready()
    start(nodes[1:])
    for node in nodes:
        site.application(node).write(insert(node.name, 1))
    until_equal(nodes)
    assert nodes[0].command("snapshot", "save")[0] == 0
    agree(nodes)
    assert nodes[0].stop() == 0
    # its locks tell who has a transaction open; the file stays open as long as SQLite's own
    opened = [line for line in told.read_text().splitlines() if "-shm'" not in line]
    # before SQLite opens it: was it overwritten while no node ran? Each start asks that once
    assert [line.split(", ")[1] for line in opened] in ([], ["'r'"])


def test_intervals_of_zero_stop_nothing(site: Site) -> None:
    zero = {"": {"cleanup_interval": 0, "polling_interval": 0, "sleep_timeout": 0}, "snapshot": {"interval": 0}}
    nodes = [site.node(name, sections=zero) for name in ("a", "b")]
    start(nodes)
    for node in nodes:
        site.application(node).write(insert(node.name, 1))
    assert len(until_equal(nodes)["events"]) == 2
    assert nodes[0].stop() == 0
