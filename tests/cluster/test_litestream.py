"""The real Litestream beside a node: while it runs, and what it restored, in place and as a further node.

`make libraries WHICH=litestream` builds it; it takes minutes, so it is left out where nobody has.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cluster.fix_cluster import Site, start
from tests.cluster.libraries import INSTALLED
from tests.cluster.processes import Node, agree, until
from tests.needs import Need

pytestmark = pytest.mark.timeout(300)

PROGRAM = INSTALLED / "litestream" / "litestream"
TABLES = "CREATE TABLE t(id TEXT PRIMARY KEY, n INTEGER)"


@pytest.fixture(autouse=True)
def _litestream() -> None:
    Need("litestream", "" if PROGRAM.exists() else "make libraries WHICH=litestream").skip()


@contextmanager
def litestream(node: Node, replica: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run Litestream beside a node while the block runs; it has its first copy."""
    config = replica.with_suffix(".yml")
    config.write_text(f"dbs:\n  - path: {node.db}\n    replica:\n      path: {replica}\n      sync-interval: 200ms\n")
    log = replica.with_suffix(".log").open("wb")
    with log, subprocess.Popen([PROGRAM, "replicate", "-config", str(config)], stdout=log, stderr=log) as process:
        try:
            until(lambda: any(replica.rglob("*.ltx")), "Litestream has copied the file")
            yield process
        finally:
            process.terminate()


def restore(replica: Path, file: Path) -> None:
    """Let Litestream make ``file`` as it was last."""
    subprocess.run([PROGRAM, "restore", "-o", str(file), f"file://{replica}"], check=True, capture_output=True)


def write(site: Site, node: Node, first: int, count: int) -> None:
    """Let the application write rows, one commit each."""
    writer = site.application(node)
    for n in range(first, first + count):
        writer.write(("INSERT INTO t VALUES (?, ?)", [f"{node.name}-{n}", n]))


@pytest.fixture
def pair(site: Site) -> list[Node]:
    nodes = [site.node(name, tables=TABLES) for name in ("a", "b")]
    start(nodes)
    return nodes


def test_replication_goes_on_both_ways_and_its_tables_stay_where_they_are(site: Site, pair: list[Node]) -> None:
    here, there = pair
    with litestream(here, site.folder / "replica"):
        write(site, here, 0, 350)
        write(site, there, 0, 350)
        until(lambda: here.value("SELECT count(*) FROM t") == 700, "all rows are here")
        until(lambda: there.value("SELECT count(*) FROM t") == 700, "all rows are there")
        ours = [
            name for (name,) in here.rows("SELECT name FROM sqlite_schema WHERE name LIKE '\\_litestream%' ESCAPE '\\'")
        ]
        assert set(ours) == {"_litestream_seq", "_litestream_lock"}
        assert there.value("SELECT count(*) FROM sqlite_schema WHERE name LIKE '\\_litestream%' ESCAPE '\\'") == 0
        agree(pair)


def test_a_file_that_was_restored_in_place_gets_what_came_after_it(site: Site, pair: list[Node]) -> None:
    here, there = pair
    replica = site.folder / "replica"
    with litestream(here, replica):
        write(site, here, 0, 50)
        until_synced(replica)
    write(site, here, 100, 50)
    write(site, there, 0, 50)
    until(lambda: there.value("SELECT count(*) FROM t") == 150, "all rows are there")
    assert here.stop() == 0
    for suffix in ("", "-wal", "-shm"):
        Path(f"{here.db}{suffix}").unlink(missing_ok=True)
    restore(replica, here.db)
    here.start()
    here.ready()
    until(lambda: here.value("SELECT count(*) FROM t") == 150, "what came after the copy is here again")
    write(site, here, 200, 5)
    until(lambda: there.value("SELECT count(*) FROM t") == 155, "and it is written on")
    agree(pair)


def test_a_restored_file_begins_a_further_node(site: Site, pair: list[Node]) -> None:
    here, there = pair
    replica = site.folder / "replica"
    with litestream(here, replica):
        write(site, here, 0, 50)
        until_synced(replica)
    write(site, there, 0, 50)
    assert here.command("snapshot", "save")[0] == 0
    third = site.node("c", tables=None)
    third.db.parent.mkdir(parents=True, exist_ok=True)
    restore(replica, third.db)
    third.start()
    third.ready()
    write(site, third, 0, 5)
    for node in (here, there, third):
        until(lambda: node.value("SELECT count(*) FROM t") == 105, f"all rows are at {node.name}")  # noqa: B023
    agree([here, there, third])


def until_synced(replica: Path) -> None:
    """Wait until the copy has not grown for five of its intervals."""
    size, since = -1, time.monotonic()
    while time.monotonic() - since < 1:
        now = sum(path.stat().st_size for path in replica.rglob("*") if path.is_file())
        if now != size:
            size, since = now, time.monotonic()
        time.sleep(0.05)
