"""Two regions joined by leaf links: one order for all, reads in each, writes in each also while the link is cut."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.cluster.fix_cluster import Site, start
from tests.cluster.fix_regions import SECRET, Regions, build
from tests.cluster.processes import Node, Rows, agree, until, until_equal
from tests.cluster.writing import Application

pytestmark = pytest.mark.timeout(300)


def insert(name: str, n: int) -> tuple[str, list[object]]:
    return "INSERT INTO events VALUES (?, ?, ?, NULL)", [f"{name}-{n}", name, n]


def count(node: Node, name: str) -> int:
    return int(node.value("SELECT count(*) FROM events WHERE writer = ?", [name]) or 0)


def whole(content: dict[str, Rows], name: str, committed: int) -> None:
    """Check that every transaction of a load is there once and in full."""
    counted = next(n for writer, n in content["counters"] if writer == name)
    assert counted in (committed, committed + 1)
    assert sorted(n for _, writer, n, _ in content["events"] if writer == name) == list(range(1, counted + 1))


def secret_is_kept(nodes: list[Node]) -> None:
    """Check that the links' password is in no log, on no command line, and in private files only."""
    lines = [Path(f"/proc/{path.name}/cmdline") for path in Path("/proc").iterdir() if path.name.isdigit()]
    for path in [*lines, *(node.log for node in nodes)]:
        assert SECRET.encode() not in bytes_of(path), path
    for node in nodes:
        for folder, _, names in os.walk(node.folder):
            for path in (Path(folder) / name for name in names):
                if path != node.config and SECRET.encode() in bytes_of(path):
                    assert path.name == "nats-server.conf"
                    assert path.stat().st_mode & 0o077 == 0


def bytes_of(path: Path) -> bytes:
    """Return what is in a file, nothing where it has gone: servers and SQLite make and remove files all the time."""
    try:
        return path.read_bytes()
    except OSError:
        return b""


@pytest.fixture
def pair(region_site: Site) -> Regions:
    """One node in each of two regions, ready."""
    regions = build(region_site)
    start(regions.nodes)
    return regions


@pytest.fixture
def writers(region_site: Site, pair: Regions) -> list[Application]:
    """An application beside each node."""
    return [region_site.application(node) for node in pair.nodes]


def test_both_regions_write_through_a_cut_of_the_leaf_link_and_end_equal(
    pair: Regions, writers: list[Application]
) -> None:
    near, far = pair.nodes
    writers[0].load("near", pause=0.05)
    writers[1].load("far", pause=0.05)
    until(lambda: count(far, "near") > 5 and count(near, "far") > 5, "each hears the other")
    pair.cut("hole")
    until(lambda: far.waits("can't reach primary region a since"), "the region says what is cut, and since when")
    reached = [writer.committed for writer in writers]
    until(lambda: all(w.committed > n + 60 for w, n in zip(writers, reached, strict=True)), "both write on")
    near.ready()  # the primary region is well without the other region
    assert far.get("/readyz")[0] == 503
    until(lambda: far.health()["pending_rows"] > 60, "what can't be ordered yet is counted")
    assert count(far, "far") > reached[1], "and is there where it was written"
    code, text = far.command("status")
    assert code == 0
    assert "region b, primary region a can't be reached" in text
    pair.cut("slow 100")
    until(lambda: far.get("/readyz")[0] == 200, "the slow line is as good as any")
    reached = [writer.committed for writer in writers]
    until(lambda: count(far, "near") > reached[0] and count(near, "far") > reached[1], "each hears the other again")
    committed = [writer.kill() for writer in writers]
    content = until_equal(pair.nodes)
    whole(content, "near", committed[0])
    whole(content, "far", committed[1])
    until(lambda: (far.health()["region"].get("round_trip_seconds") or 0) > 0.15, "the slow way is measured")
    agree(pair.nodes)


def test_a_node_restarted_while_its_region_is_cut_off_loses_nothing(pair: Regions, writers: list[Application]) -> None:
    far = pair.b[0]
    pair.cut("reset")
    writers[1].write(insert("far", 1))
    writers[0].write(insert("near", 1))
    assert far.stop() == 0
    writers[1].write(insert("far", 2), ("UPDATE fought SET value = 'far' WHERE id = 1", []))
    far.start()
    until(lambda: far.waits("primary region a"), "the restarted node says what it waits for")
    writers[1].write(insert("far", 3))
    until(lambda: far.health()["pending_rows"] == 4, "all four rows are counted")
    pair.cut("pass")
    content = until_equal(pair.nodes)
    assert sorted(row[0] for row in content["events"]) == ["far-1", "far-2", "far-3", "near-1"]
    assert content["fought"][0] == (1, "far", "")
    agree(pair.nodes)
    secret_is_kept(pair.nodes)


def test_the_primary_region_moves_to_the_other_region_and_back_under_load(
    pair: Regions, writers: list[Application]
) -> None:
    near, far = pair.nodes
    writers[0].load("near", pause=0.02)
    writers[1].load("far", pause=0.02)
    for node, other in ((far, near), (near, far)):
        until(lambda: count(far, "near") > 20 and count(near, "far") > 20, "both are at it")
        code, text = node.command("region", "promote")
        assert (code, text) == (0, f"region {node.name[0]} is the primary region now, region {other.name[0]} no more")
        reached = [writer.committed for writer in writers]
        until(lambda: count(far, "near") > reached[0] and count(near, "far") > reached[1], "it continues")  # noqa: B023
        until(lambda: other.health()["region"]["primary"] == node.name[0], "the other region follows")  # noqa: B023
        shown = f"{other.name}: region {other.name[0]}, primary region {node.name[0]} in "
        until(lambda: shown in node.command("region", "show")[1], "the command shows it")  # noqa: B023
    committed = [writer.kill() for writer in writers]
    content = until_equal(pair.nodes)
    whole(content, "near", committed[0])
    whole(content, "far", committed[1])
    agree(pair.nodes)
    assert near.command("region", "promote") == (0, "region a is the primary region already")


def test_a_region_goes_on_without_a_lost_primary_region_and_takes_it_in_again_with_what_it_wrote(
    pair: Regions, writers: list[Application]
) -> None:
    near, far = pair.nodes
    writers[0].write(insert("near", 0))
    writers[1].write(insert("far", 0))
    until_equal(pair.nodes)
    code, text = far.command("region", "promote", "-force", "-yes")
    assert code == 1
    assert "primary region a can be reached; leave -force out" in text
    pair.cut("reset")
    for n in (1, 2, 3):
        writers[0].write(insert("near", n), ("UPDATE fought SET value = ? WHERE id = 1", [f"near{n}"]))
        writers[1].write(insert("far", n))
    near.sent()  # the primary region orders what is written there
    code, text = far.command("region", "promote")
    assert code == 1
    assert "primary region a can't be reached" in text
    near.kill()
    code, text = far.command("region", "promote", "-force", "-yes")
    assert (code, text) == (0, "region b is the primary region now; region a was not asked")
    until(lambda: far.get("/readyz")[0] == 200, "region b is whole by itself")
    far.sent()
    near.start()
    writers[0].write(insert("near", 4))
    pair.cut("pass")
    until(lambda: near.waits("region b was promoted while this region was away"), "the demoted region says so")
    assert near.get("/health")[0] == 503
    writers[1].write(insert("far", 4))
    far.sent()  # the new primary region is not held up by the old one
    code, text = near.command("region", "rejoin")
    assert (code, text) == (0, "stream harmonylite-changes-0 of region a is a copy of region b now")
    content = until_equal(pair.nodes)
    assert sorted(row[0] for row in content["events"]) == [f"{name}-{n}" for name in ("far", "near") for n in range(5)]
    assert content["fought"][0] == (1, "near3", ""), (
        "what the primary region had ordered, and only it knew, is published again"
    )
    for node in pair.nodes:
        node.ready()
    agree(pair.nodes)
