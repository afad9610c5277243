"""How nodes end: gently, at once, with the exit code that says why, and without damage when two share an id."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path
from typing import Any

import apsw
import pytest

from tests.cluster.fix_cluster import Site, start
from tests.cluster.processes import Node, agree, until, until_equal

pytestmark = pytest.mark.timeout(200)


def names(path: Path) -> set[str]:
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    connection.set_busy_timeout(60_000)
    try:
        return {str(name) for (name,) in connection.execute("SELECT name FROM sqlite_schema")}
    finally:
        connection.close()


def test_a_stop_publishes_what_is_committed_and_ends_within_seconds(site: Site) -> None:
    nodes = [site.node(name) for name in ("a", "b")]
    start(nodes)
    writer = site.application(nodes[0])
    for n in range(20):
        writer.write(("INSERT INTO events VALUES (?, 'a', ?, 'last words')", [f"a{n}", n]))
    assert nodes[0].stop() == 0
    assert not (nodes[0].db.parent / "mirror" / "app.db" / "control.json").exists()
    until(lambda: nodes[1].value("SELECT count(*) FROM events") == 20, "the last words are with the other node")
    said = nodes[0].last_words()
    assert f"health_check.bind: listening at http://127.0.0.1:{nodes[0].port}" in said
    assert "stopping: publishing what is committed" in said
    assert "not published yet" not in said, "it had not to give up waiting for the stream"
    assert "stopped" in said.splitlines()[-1]


def test_a_stop_without_nats_says_what_is_not_published_yet(site: Site) -> None:
    server = site.server()
    node = site.node("a", urls=[server.url])
    start([node])
    server.stop()
    until(lambda: not node.health()["nats_connected"], "the node knows that NATS is gone")
    site.application(node).write("INSERT INTO events VALUES ('x', 'a', 1, 'waits')")
    until(lambda: node.health()["pending_rows"] == 1, "the write is noticed")
    assert node.stop() == 0
    assert "rows not published yet: 1; they stay pending" in node.last_words()
    server.start()
    node.start()
    node.ready()
    node.sent()
    assert node.health()["pending_rows"] == 0, "it is published after the next start"


def test_the_second_signal_cuts(site: Site) -> None:
    server = site.server()
    node = site.node("a", urls=[server.url])
    writer = site.application(node)
    rounds = iter(range(1_000_000))

    def cut() -> bool:
        """Return whether the second signal came before the node had given up waiting, after five seconds."""
        start([node])
        server.signal(signal.SIGSTOP)
        writer.write(("INSERT INTO events VALUES (?, 'a', 1, 'can not be published')", [f"x{next(rounds)}"]))
        node.signal(signal.SIGTERM)
        until(lambda: not node.alive or node.get("/health")[0] == 503, "it is stopping, and says so")
        node.signal(signal.SIGTERM)
        code = node.gone()
        server.signal(signal.SIGCONT)
        assert code in (0, 1), "without the second signal it ends with 0"
        return code == 1

    until(cut, "the second signal cuts")
    assert "stopped at once on the second signal" in node.last_words()
    start([node])
    node.sent()
    assert node.health()["pending_rows"] == 0, "what was pending is published after all"


def test_a_configuration_that_can_not_be_used_ends_with_2_and_says_where(site: Site) -> None:
    node = site.node("a", sections={"replication_log": {"max_entrys": 5}})
    node.start()
    assert node.gone() == 2
    assert "max_entries" in node.last_words()
    node.config.unlink()
    node.spawn([*node.process.args])  # type: ignore[union-attr, misc] # what was spawned before
    assert node.gone() == 2
    assert str(node.config) in node.last_words()
    assert not (node.db.parent / "mirror").exists()


def test_no_server_after_all_tries_ends_with_its_own_exit_code(site: Site) -> None:
    node = site.node("a", urls=["nats://127.0.0.1:9"], sections={"nats": {"connect_retries": 2}})
    node.start()
    assert node.gone() == 6
    assert "NATS server not accepting connections" in node.last_words()


def test_a_process_that_was_frozen_while_another_took_its_id_is_fenced_and_nothing_is_damaged(site: Site) -> None:
    same: dict[str, dict[str, Any]] = {"": {"node_id": "a"}, "logging": {"verbose": True}}
    nodes = [site.node("a"), site.node("twin", sections=same), site.node("b")]
    one, twin, other = nodes
    start([one, other])
    writers = [site.application(node) for node in nodes]
    writers[0].write("INSERT INTO events VALUES ('one', 'a', 1, NULL)")
    until_equal([one, other])
    one.signal(signal.SIGSTOP)
    start([twin])
    until(lambda: "settled node id a" in twin.log.read_text(), "the twin hears nobody under its id")
    one.signal(signal.SIGCONT)
    until_equal(nodes)
    writers[1].write("INSERT INTO events VALUES ('twin', 'twin', 1, NULL)")
    until_equal(nodes, "for the twin is the only one that writes")
    writers[0].write("INSERT INTO events VALUES ('one more', 'a', 2, NULL)")
    assert one.gone() == 8
    assert "another process publishes as node a" in one.last_words()
    writers[1].write("INSERT INTO events VALUES ('twin more', 'twin', 2, NULL)")
    until_equal([twin, other])
    assert one.value("SELECT count(*) FROM events") == 4 - 1, "its own file holds its own row, and lacks the newest"
    one.sections[""]["node_id"] = "c"
    start([one])
    content = until_equal(nodes)
    assert len(content["events"]) == 4
    agree([other])


def test_a_second_node_on_one_file_is_refused(site: Site) -> None:
    node = site.node("a")
    start([node])
    second = Node("second", node.folder, urls=node.sections["nats"]["urls"])
    site.running.append(second)
    second.start()
    assert second.gone() == 1
    assert "a node runs for app.db already" in second.last_words()
    node.ready()


def test_cleanup_takes_out_what_is_ours_and_nothing_else(site: Site) -> None:
    tables = """
    CREATE TABLE t_harmonylite_users(id INTEGER PRIMARY KEY, name TEXT);
    CREATE TABLE xx_harmonylite__log(id INTEGER PRIMARY KEY);
    CREATE TRIGGER t_harmonylite_trigger AFTER INSERT ON xx_harmonylite__log
      BEGIN INSERT INTO t_harmonylite_users VALUES (new.id, 'by trigger'); END;
    INSERT INTO t_harmonylite_users VALUES (1, 'somebody');
    """
    node = site.node("a", tables=tables)
    before = names(node.db)
    start([node])
    assert len(names(node.db)) > len(before)
    code, text = node.command("-cleanup")
    assert code != 0, "not while a node runs"
    assert node.stop() == 0
    code, text = node.command("-cleanup")
    assert code == 0, text
    assert names(node.db) == before
    assert node.rows("SELECT * FROM t_harmonylite_users") == [(1, "somebody")]
    assert node.value("PRAGMA integrity_check") == "ok"
    node.start()
    node.ready()


def test_a_copied_folder_is_another_node(site: Site) -> None:
    first = site.node("first", sections={"": {"node_id": ""}})
    start([first])
    writer = site.application(first)
    writer.write("INSERT INTO events VALUES ('1', 'first', 1, NULL)")
    first.sent()
    assert first.stop() == 0
    shutil.copytree(first.folder, site.folder / "copy")
    copy = site.node("copy", sections={"": {"node_id": ""}}, tables=None)
    copy.sections["nats"] = first.sections["nats"]
    start([first, copy])
    assert first.health()["node_id"] != copy.health()["node_id"]
    writer.write("INSERT INTO events VALUES ('2', 'first', 2, NULL)")
    site.application(copy).write("INSERT INTO events VALUES ('3', 'copy', 3, NULL)")
    assert len(until_equal([first, copy])["events"]) == 3
    agree([first, copy])


def test_a_stop_at_any_moment_of_the_start_ends_well_and_without_a_traceback(site: Site) -> None:
    other = site.node("other")
    start([other])
    for moment in ("node a, database", "connected to NATS", "bootstrapped the mirror", "ready"):
        node = site.node("a")
        node.log.write_bytes(b"")
        node.start()
        if moment == "ready":
            node.ready()
        else:
            until(lambda: moment in node.log.read_text(), moment)  # noqa: B023
        assert node.stop() == 0, moment
        said = node.log.read_text()
        assert "Traceback" not in said
        assert "foresaw" not in said
        assert "Error" not in said
        shutil.rmtree(node.folder)
