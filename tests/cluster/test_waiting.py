"""What can't be done now is waited for, visibly, and the node continues by itself."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import nats
import pytest

from harmonylite.wire import VERSION
from tests.cluster.fix_cluster import Site, start
from tests.cluster.processes import Node, agree, until, until_equal
from tests.needs import MOUNTS

pytestmark = pytest.mark.timeout(200)


def js(node: Node, what: str, payload: bytes = b"") -> bytes:
    """Send one request to the node's NATS server and return the answer."""

    async def ask() -> bytes:
        client = await nats.connect(node.sections["nats"]["urls"][0])
        try:
            return bytes((await client.request(what, payload, timeout=30)).data)
        finally:
            await client.close()

    return asyncio.run(ask())


def test_a_lock_held_for_10_seconds_is_waited_for_and_said(site: Site) -> None:
    nodes = [site.node(name) for name in ("a", "b")]
    start(nodes)
    holder, writer = site.application(nodes[1]), site.application(nodes[0])
    holder.ask({"hold": [["UPDATE fought SET value = 'held' WHERE id = 1", []]]})
    held = time.monotonic()
    writer.write("UPDATE fought SET value = 'sent' WHERE id = 2", "INSERT INTO events VALUES ('1', 'a', 1, NULL)")
    until(lambda: nodes[1].waits("lock"), "the node says what it waits for")
    until(lambda: time.monotonic() - held > 10, "ten seconds pass")
    assert nodes[1].alive
    assert nodes[1].value("SELECT count(*) FROM events") == 0
    assert holder.ask("commit") == {"rows": 1}
    content = until_equal(nodes)
    assert [value for _, value, _ in content["fought"][:2]] == ["held", "sent"]
    nodes[1].ready()


def test_a_lock_held_at_the_start_is_waited_for(site: Site) -> None:
    node = site.node("a")
    holder = site.application(node)
    holder.ask({"hold": [["UPDATE fought SET value = 'held' WHERE id = 1", []]]})
    node.start()
    until(lambda: node.waits("lock"), "the node says what it waits for")
    told = "join: install the capture triggers: another connection holds the lock"
    node.logged(told)
    assert holder.ask("commit") == {"rows": 1}
    node.ready()


def test_the_lag_of_a_stuck_message_grows_whatever_comes_behind_it(site: Site) -> None:
    """It stood still as soon as a second message waited, so the documented alert could not fire."""
    source, node = site.node("a"), site.node("b")
    start([source, node])

    def shard() -> dict[str, float]:
        return dict(node.health()["shards"][0])

    until(lambda: shard()["lag_seconds"] == 0.0, "nothing lags")
    holder, writer = site.application(node), site.application(source)
    holder.ask({"hold": [["UPDATE fought SET value = 'held' WHERE id = 1", []]]})
    stuck = time.monotonic()
    for number in range(5):
        writer.write(f"INSERT INTO events VALUES ('behind {number}', 'a', {number}, NULL)")
        until(lambda: shard()["lag_messages"] > number, "another message waits")  # noqa: B023
        until(lambda: shard()["lag_seconds"] >= 1.5 * (number + 1), "the lag grows")  # noqa: B023
        assert shard()["lag_seconds"] <= time.monotonic() - stuck + 1.0

    def heard() -> dict[str, float]:
        return {peer["node_id"]: peer["lag_seconds"] for peer in source.health()["peers"]}

    until(lambda: heard().get("b", 0.0) > 0, "the others hear of it")
    assert holder.ask("commit") == {"rows": 1}
    until_equal([source, node])
    until(lambda: shard()["lag_seconds"] == 0.0, "nothing lags")


def test_a_message_that_nobody_understands_pauses_visibly_and_can_be_skipped(site: Site) -> None:
    nodes = [site.node(name) for name in ("a", "b")]
    start(nodes)
    prefix = nodes[0].sections["nats"]["subject_prefix"]
    stored = js(nodes[0], f"{prefix}.0.stranger", msgspec.msgpack.encode([VERSION + 1, 0, "stranger"]))
    seq = int(msgspec.json.decode(stored)["seq"])
    site.application(nodes[0]).write("INSERT INTO events VALUES ('after', 'a', 1, NULL)")
    for node in nodes:
        until(lambda: node.waits(f"message {seq} of shard 0 can't be applied"), "the message is named")  # noqa: B023
        assert node.get("/health")[0] == 503
        assert node.alive
    nodes[1].kill()
    nodes[1].start()
    until(lambda: nodes[1].waits(f"message {seq} of shard 0"), "also after a restart")
    for node in nodes:
        code, text = node.command("skip", "0", str(seq), "-yes")
        assert code == 0, text
    content = until_equal(nodes)
    assert [name for name, *_ in content["events"]] == ["after"]
    for node in nodes:
        node.ready()
    assert nodes[1].stop() == 0
    start([nodes[1]])
    agree(nodes)


def fill(ballast: Path, leave: int = 0) -> None:
    """Write a file until its disk is full, then take ``leave`` bytes back."""
    try:
        with ballast.open("wb") as file:
            while True:
                file.write(bytes(4096))
                file.flush()
    except OSError:
        os.truncate(ballast, ballast.stat().st_size - leave)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MB, where this process may mount one."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder)]
    MOUNTS.skip()
    subprocess.run(mount, check=True)
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)  # noqa: S607


def test_a_full_disk_is_waited_for_and_nothing_is_lost(small_disk: Path, site: Site) -> None:
    server = site.server()
    nodes = [site.node("a", urls=[server.url]), site.node("b", urls=[server.url], folder=small_disk / "b")]
    start(nodes)
    ballast = small_disk / "ballast"
    writer = site.application(nodes[0])
    fill(ballast)
    for n in range(20):
        writer.write(("INSERT INTO events VALUES (?, 'a', ?, hex(randomblob(100000)))", [f"a{n}", n]))
    until(lambda: nodes[1].waits(f"no room is left on the disk of {nodes[1].db}"), "the node says which disk is full")
    assert nodes[1].get("/readyz")[0] == 503
    assert nodes[1].get("/livez")[0] == 200, "a restart makes no room"
    assert nodes[1].alive
    nodes[1].logged("no room is left on the disk of")
    ballast.unlink()
    assert len(until_equal(nodes)["events"]) == 20
    nodes[1].ready()
    said = nodes[1].log.read_text()
    assert "Traceback" not in said
    assert 1 <= said.count("no room is left on the disk of") <= 6, "a disk that stays full is told once, by each part"
    agree(nodes)


def test_a_stream_that_was_deleted_is_said_and_the_node_stays_up_with_what_is_written(site: Site) -> None:
    server = site.server()
    nodes = [site.node(name, urls=[server.url]) for name in ("a", "b")]
    start(nodes)
    writer = site.application(nodes[0])
    writer.write("INSERT INTO events VALUES ('1', 'a', 1, NULL)")
    until_equal(nodes)
    js(nodes[0], f"$JS.API.STREAM.DELETE.{nodes[0].sections['nats']['stream_prefix']}-0")
    writer.write("INSERT INTO events VALUES ('2', 'a', 2, NULL)")
    for node in nodes:
        until(lambda: node.waits("does not exist"), "the node says what is lost")  # noqa: B023
    # the first row counts, too, while the database does not note that it is back
    until(lambda: nodes[0].health()["pending_rows"] in (1, 2), "what is written stays pending")
    assert all(node.alive and "Traceback" not in node.log.read_text() for node in nodes)


def test_a_lock_taken_while_the_node_waits_for_nats_does_not_end_it_when_it_joins(site: Site) -> None:
    server = site.server()
    server.stop()
    node = site.node("a", urls=[server.url])
    node.start()
    until(lambda: node.waits("nats") and node.health()["db_connected"], "the node waits for NATS")
    holder = site.application(node)
    holder.ask({"hold": [["UPDATE fought SET value = 'held' WHERE id = 1", []]]})
    server.start()
    until(lambda: node.waits("lock"), "the node says what it waits for")
    assert holder.ask("commit") == {"rows": 1}
    node.ready()
    assert node.value("SELECT value FROM fought WHERE id = 1") == "held"


def test_a_first_start_on_a_full_disk_is_refused_by_the_file_s_name_and_works_once_there_is_room(
    small_disk: Path, site: Site
) -> None:
    node = site.node("a", folder=small_disk / "a")
    ballast = small_disk / "ballast"
    fill(ballast)
    node.config, node.log = site.folder / "a.toml", site.folder / "a.log"
    node.start()
    assert node.gone() == 1
    assert f"{node.folder}/mirror/app.db" in node.last_words()
    assert "No space left on device" in node.last_words()
    assert "Traceback" not in node.last_words()
    ballast.unlink()
    node.start()
    node.ready()


def test_a_disk_that_is_full_for_the_embedded_server_too_is_waited_for_and_nothing_is_lost(
    small_disk: Path, site: Site
) -> None:
    (node,) = site.embedded(1, replicas=1, folder=small_disk)
    node.arguments = []
    start([node])
    writer = site.application(node)
    writer.write("INSERT INTO events VALUES ('before', 'a', 0, NULL)")
    node.sent()
    assert node.status("published_rows") == 1
    ballast = small_disk / "ballast"
    fill(ballast, leave=300_000)
    # Frozen, or it could keep up with the application to the end, and then nothing would be left that has no room.
    server = node.pid_of_server()
    os.kill(server, signal.SIGSTOP)
    written = 0
    while "rows" in writer.ask([["INSERT INTO events VALUES (?, 'a', 1, hex(randomblob(10000)))", [f"{written}"]]]):
        written += 1
    os.kill(server, signal.SIGCONT)
    until(lambda: node.get("/readyz")[0] == 503, "the node says that something is in its way")
    assert node.alive
    ballast.unlink()
    writer.write("INSERT INTO events VALUES ('after', 'a', 0, NULL)")
    node.sent()
    assert node.status("published_rows") >= written + 2
    node.ready()
    assert "Traceback" not in node.log.read_text()


def test_an_outage_of_nats_is_one_sentence_and_a_few_lines_however_many_parts_wait(site: Site) -> None:
    """Four parts told it in four ways, one of them that no snapshot could be saved when none was due."""
    server = site.server()
    node = site.node("a", urls=[server.url])
    start([node])
    before = len(node.log.read_text())
    server.kill()
    site.application(node).write("INSERT INTO events VALUES ('meanwhile', 'a', 1, NULL)")
    named = re.compile(r"nats: NATS server not accepting connections at 127\.0\.0\.1:.* \(for [1-9]\d+ s\).*publish")

    def alone() -> str:
        """Return the one sentence that it says after ten seconds, which names what waits for NATS."""
        waits = [str(wait) for wait in node.health()["waits"]]
        return waits[0] if len(waits) == 1 and named.match(waits[0]) else ""

    wait = until(alone, "ten seconds pass, and one sentence says all")
    assert "no snapshot could be saved" not in wait
    lines = node.log.read_text()[before:].splitlines()
    assert len(lines) <= 3, lines
    server.start()
    node.ready()
    node.logged("nats: resumed after")
    said = node.log.read_text()[before:]
    assert said.count("resumed after") == 1, said
