"""Snapshots of a running cluster: saved in time by one node, found without NATS's pointers, read back in time."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime

import apsw
import pytest

from tests.cluster.fix_cluster import Site, start
from tests.cluster.processes import Node, agree, until, until_equal

pytestmark = pytest.mark.timeout(300)


def insert(n: int, note: str | None = None) -> tuple[str, list[object]]:
    return "INSERT INTO events VALUES (?, 'a', ?, ?)", [f"a-{n}", n, note]


def asked(node: Node, *words: str) -> dict[str, object]:
    code, text = node.command(*words, "-json")
    assert code == 0, text
    found: dict[str, object] = json.loads(text)
    return found


def listed(node: Node) -> list[dict[str, object]]:
    found = asked(node, "snapshot", "list")["snapshots"]
    assert isinstance(found, list)
    return found


def written(node: Node, *statements: object) -> None:
    """Commit, and wait until it is in the order."""
    site_writer = apsw.Connection(str(node.db))
    site_writer.set_busy_timeout(60_000)
    with site_writer:
        for statement in statements:
            sql, values = statement if isinstance(statement, tuple) else (statement, ())
            site_writer.execute(sql, values)
    site_writer.close()
    node.sent()


def test_the_database_as_it_was_comes_from_a_snapshot_and_the_stream(site: Site) -> None:
    node = site.node("a", sections={"snapshot": {"keep": 3}})
    start([node])
    written(node, insert(1), insert(2))
    first = asked(node, "snapshot", "save")
    written(node, "UPDATE events SET note = 'changed' WHERE id = 'a-1'")
    between = datetime.now(UTC).isoformat()
    written(node, "DELETE FROM events WHERE id = 'a-1'", insert(3))
    written(node, insert(4))

    def rows_of(name: str) -> list[tuple[object, ...]]:
        connection = apsw.Connection(str(node.folder / name), flags=apsw.SQLITE_OPEN_READONLY)
        try:
            ours = connection.execute(
                "SELECT count(*) FROM sqlite_schema WHERE name GLOB '__harmonylite__*'"
            ).fetchall()
            assert ours == [(0,)], "the copy is the application's alone"
            return connection.execute("SELECT id, note FROM events ORDER BY id").fetchall()
        finally:
            connection.close()

    def restored(name: str, *words: str) -> list[tuple[object, ...]]:
        code, text = node.command("snapshot", "restore", "-o", str(node.folder / name), *words)
        assert code == 0, text
        return rows_of(name)

    positions = first["positions"]
    assert isinstance(positions, dict)
    at = int(positions["0"])
    assert restored("first.db", "-position", str(at)) == [("a-1", None), ("a-2", None)]
    assert restored("between.db", "-at", between) == [("a-1", "changed"), ("a-2", None)]
    assert restored("now.db") == [("a-2", None), ("a-3", None), ("a-4", None)]
    assert restored("beginning.db", "-position", "0") == [], "as far back as the first snapshot"
    code, text = node.command("snapshot", "restore", "-o", str(node.folder / "now.db"))
    assert (code, "is there already" in text) == (9, True)
    code, text = node.command("snapshot", "restore", "-o", str(node.folder / "x.db"), "-at", "2001-01-01")
    assert (code, "out of reach: the oldest point" in text) == (9, True), text
    assert not list(node.folder.glob(".*db*")), "nothing is left behind"
    assert not list((node.folder / "mirror" / "app.db").glob("replay-*"))

    assert len(listed(node)) == 2
    fetched = node.folder / "fetched.db"
    code, text = node.command("snapshot", "fetch", str(first["name"]), "-o", str(fetched))
    assert code == 0, text
    connection = apsw.Connection(str(fetched))
    assert connection.execute("SELECT count(*) FROM events").fetchall() == [(2,)]
    connection.close()
    code, text = node.command("snapshot", "fetch", "snapshot-of-nobody", "-o", str(node.folder / "y.db"))
    assert (code, "there is no snapshot" in text) == (15, True)

    code, text = node.command("history", "events", "a-1")
    assert code == 0
    assert [word in text for word in ("insert", "update", "delete", "'changed'")] == [True] * 4, text
    told = asked(node, "history", "events", "a-1")["events"]
    assert isinstance(told, list)
    assert [(event["kind"], event["node"]) for event in told] == [("insert", "a"), ("update", "a"), ("delete", "a")]
    assert told[1]["before"] == {"note": None}
    assert told[1]["after"] == {"note": "changed"}
    assert "nothing happened" in node.command("history", "events", "nobody")[1]
    code, text = node.command("history", "nothing", "1")
    assert (code, "no replicated table nothing" in text) == (15, True)
    code, text = node.command("history", "accounts", "1")
    assert (code, "the key of table accounts is writer, k" in text) == (2, True)


def test_the_stream_never_forgets_what_a_new_node_needs_and_old_snapshots_are_pruned(site: Site) -> None:
    small: dict[str, dict[str, object]] = {
        "replication_log": {"max_entries": 40},
        "snapshot": {"keep": 2, "lease_ttl": "10s"},
    }
    nodes = [site.node("a", sections=small), site.node("b", sections=small)]
    start(nodes)
    a, b = nodes

    def told(node: Node) -> bool:
        return "this node saves the snapshots now" in node.log.read_text()

    until(lambda: told(a) or told(b), "one node holds the lease")
    assert not (told(a) and told(b))
    holder, other = (a, b) if told(a) else (b, a)
    saved = holder.status("snapshots_saved")
    for n in range(15):  # more than a third of what the stream keeps, and less than the half, at which any node saves
        written(other, insert(n))
    until(lambda: holder.status("snapshots_saved") > saved, "the holder saves before the stream forgets")
    for n in range(15, 30):
        written(other, insert(n))
    holder.kill()
    until(lambda: told(other), "the lease is taken over from a killed node")
    before = other.status("snapshots_saved")
    for n in range(30, 90):
        written(other, insert(n))
    until(lambda: other.status("snapshots_saved") > before, "the next holder saves")
    until(lambda: len(listed(other)) == 2, "old ones are pruned")
    late = site.node("late", sections=small, tables=None)
    start([late])
    assert late.status("snapshots_restored") == 1, "one is fetched, and no more"
    assert len(until_equal([other, late])["events"]) == 90
    assert other.stop() == 0
    until(lambda: told(late), "the lease of a node that stopped is taken")
    start([holder, other])
    until_equal([a, b, late])
    agree([late])


def test_after_the_loss_of_a_machine_its_data_are_a_file_without_any_node(site: Site) -> None:
    folder, server = site.folder / "snapshots", site.server()
    folder.mkdir()
    store = {"snapshot": {"store": "file"}, "snapshot.file": {"path": str(folder)}}
    node = site.node("a", urls=[server.url], sections=store)
    start([node])
    written(node, insert(1))
    assert node.command("snapshot", "save")[0] == 0
    written(node, insert(2))
    node.kill()
    for path in node.folder.iterdir():
        if path != node.config and path != node.log:
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def made(name: str, *words: str, said: str = "") -> list[tuple[object, ...]]:
        code, text = node.command("snapshot", *words, "-o", str(node.folder / name))
        assert code == 0, text
        assert "no running node" in text
        assert said in text
        connection = apsw.Connection(str(node.folder / name), flags=apsw.SQLITE_OPEN_READONLY)
        try:
            return connection.execute("SELECT id FROM events ORDER BY id").fetchall()
        finally:
            connection.close()

    assert made("now.db", "restore", said="and the stream") == [("a-1",), ("a-2",)], (
        "the snapshot, and what came after it in the stream"
    )
    newest = json.loads(node.command("snapshot", "list", "-json")[1].partition("\n")[2])["snapshots"][0]
    assert newest["newest"]
    assert made("before.db", "restore", "-position", str(newest["positions"]["0"])) == [("a-1",)]
    server.stop()
    assert made("alone.db", "restore", said="alone, without the stream") == [("a-1",)], (
        "without NATS what the store has"
    )
    assert made("fetched.db", "fetch", newest["name"]) == [("a-1",)]
    code, text = node.command("snapshot", "restore", "-position", "1", "-o", str(node.folder / "x.db"))
    assert (code, "without the streams" in text) == (9, True), text
    code, text = node.command("snapshot", "save")
    assert (code, "no running node" in text) == (3, True), text
    node.sections["snapshot"]["store"] = "nats"
    node.write_config()
    assert node.command("snapshot", "list")[0] == 6, "the snapshots are where nobody answers"
    node.sections["nats"]["urls"] = []
    node.write_config()
    code, text = node.command("snapshot", "list")
    assert (code, "in its own NATS server" in text) == (3, True), text
    assert sorted(path.name for path in node.folder.glob("*db*")) == ["alone.db", "before.db", "fetched.db", "now.db"]


def test_publishing_waits_while_no_snapshot_can_be_saved_so_a_new_node_finds_all_that_was_published(
    site: Site,
) -> None:
    folder, away = site.folder / "snapshots", site.folder / "away"
    folder.mkdir()
    sections: dict[str, dict[str, object]] = {
        "snapshot": {"store": "file", "lease_ttl": "2s"},
        "snapshot.file": {"path": str(folder)},
        "replication_log": {"max_entries": 30},
    }

    def sent(node: Node) -> bool:
        return "position" in node.ask("GET", "/v1/position?seconds=2")

    nodes, full = (
        [site.node(name, sections=sections) for name in "ab"],
        "waiting for a snapshot: the stream would forget",
    )
    start(nodes)
    folder.rename(away)
    writers = [site.application(node) for node in nodes]
    for n in range(60):
        for name, writer in zip("ab", writers, strict=True):
            writer.write(("INSERT INTO events VALUES (?, ?, ?, NULL)", [f"{name}-{n}", name, n]))
        # one change set each: what gathers would fill the stream with fewer
        until(lambda: all(node.waits(full) or sent(node) for node in nodes), "they are sent")
    for node in nodes:
        until(lambda: node.waits(full) and node.health()["pending_rows"], "it says what it waits for")  # noqa: B023
    for node in nodes:
        node.kill()
    away.rename(folder)
    late = site.node("late", sections=sections, tables=None)
    start([late])
    assert 20 < len(late.rows("SELECT id FROM events")) < 120, "what was published; the rest is pending elsewhere"
    start(nodes)
    assert len(until_equal([*nodes, late])["events"]) == 120
    agree([late])


def test_a_snapshot_in_a_directory_is_found_when_nats_lost_everything_and_a_damaged_one_is_passed_over(
    site: Site,
) -> None:
    folder = site.folder / "snapshots"
    folder.mkdir()
    store = {"snapshot": {"store": "file"}, "snapshot.file": {"path": str(folder)}}
    server = site.server()
    first = site.node("a", urls=[server.url], sections=store)
    start([first])
    written(first, insert(1))
    assert first.command("snapshot", "save")[0] == 0
    written(first, insert(2))
    assert first.command("snapshot", "save")[0] == 0
    newest = next(each for each in listed(first) if each["newest"])
    assert first.stop() == 0
    object_file = next(path for path in folder.rglob("*") if path.name == newest["name"])
    object_file.write_bytes(object_file.read_bytes()[:-20] + b"x" * 20)
    code, text = first.command("snapshot", "restore", "-o", str(first.folder / "copy.db"))
    assert (code, "trying an older snapshot" in text) == (0, True), text
    copied = apsw.Connection(str(first.folder / "copy.db"))
    assert copied.execute("SELECT count(*) FROM events").fetchall() == [(2,)], "from the stream, what came later"
    copied.close()
    server.stop()
    shutil.rmtree(server.folder / server.name)
    server.start()
    for path in first.folder.iterdir():
        if path.name != "a.toml" and not path.name.endswith(".log"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    start([first])
    assert [i for (i,) in first.rows("SELECT id FROM events")] == ["a-1"], "the newest good snapshot is used"
    assert "an older one is tried" in first.log.read_text()
    late = site.node("late", urls=[server.url], sections=store, tables=None)
    start([late])
    written(first, insert(5))
    assert len(until_equal([first, late])["events"]) == 2
    agree([first, late])


def test_a_node_that_sleeps_leaves_all_published_and_a_snapshot_behind(site: Site) -> None:
    node = site.node("a", sections={"": {"sleep_timeout": "2s"}})
    writer = site.application(node)
    writer.load("w", pause=0.1)  # it does not sleep meanwhile, however slowly all of this goes
    node.start()
    node.ready()
    until(lambda: node.status("published_change_sets") > 1, "it publishes what is written")
    writer.kill()
    assert node.gone() == 0
    assert "stopping: no change for" in node.log.read_text()
    asleep = node.rows("SELECT id FROM events ORDER BY id")
    site.application(node).write(insert(1))
    late = site.node("late", tables=None)
    node.sections[""].pop("sleep_timeout")
    start([late])
    assert late.rows("SELECT id FROM events ORDER BY id") == asleep
    assert int(listed(late)[0]["positions"]["0"]) > 0  # type: ignore[index]
    start([node])
    assert len(until_equal([node, late])["events"]) == len(asleep) + 1
