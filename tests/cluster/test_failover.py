"""A region that is cut off.

Its nodes fail over, see each other's writes, and fail back on their own.
"""

from __future__ import annotations

import pytest

from tests.cluster.fix_cluster import Site, start
from tests.cluster.fix_regions import Regions, build
from tests.cluster.processes import Node, agree, until, until_equal
from tests.cluster.writing import Application

pytestmark = pytest.mark.timeout(600)


def insert(name: str, n: int) -> tuple[str, list[object]]:
    return "INSERT INTO events VALUES (?, ?, ?, NULL)", [f"{name}-{n}", name, n]


def fought(value: str) -> tuple[str, list[object]]:
    return "UPDATE fought SET value = ? WHERE id = 1", [value]


def has(node: Node, key: str) -> bool:
    return bool(node.value("SELECT count(*) FROM events WHERE id = ?", [key]))


@pytest.fixture
def regions(region_site: Site, request: pytest.FixtureRequest) -> Regions:
    """Two regions; a parameter: the seconds after which a cut makes a failover."""
    after = getattr(request, "param", 2.0)
    found = build(
        region_site, 2, replicas=2, sections={"nats": {"failover_after": after}, "replication_log": {"shards": 2}}
    )
    start(found.nodes)
    return found


@pytest.fixture
def writers(region_site: Site, regions: Regions) -> dict[str, Application]:
    return {node.name: region_site.application(node) for node in regions.nodes}


def test_siblings_of_a_cut_off_region_converge_and_everything_does_once_the_link_is_back(
    regions: Regions, writers: dict[str, Application]
) -> None:
    a1, _ = regions.a
    b1, b2 = regions.b
    writers["a1"].write(insert("before", 1), insert("before", 2))
    until_equal(regions.nodes)
    regions.cut("hole")
    writers["a1"].write(insert("a1", 1), fought("of a1"))
    writers["b1"].write(insert("b1", 1), fought("of b1"))
    until(lambda: has(b2, "b1-1"), "a sibling sees what was written during the cut")
    writers["b2"].write(insert("b2", 1), ("DELETE FROM events WHERE id = 'before-1'", []), fought("of b2"))
    until(lambda: has(b1, "b2-1"), "and the other way round")
    until_equal(regions.b)
    assert not has(b1, "a1-1"), "the primary region's writes are out of reach"
    b1.ready()  # a region with an order of its own is well
    assert "failed over at" in b1.command("status")[1]
    assert b1.health()["region"]["failover"]
    a1.ready()  # the primary region works all the time
    regions.cut("pass")
    content = until_equal(regions.nodes)
    assert sorted(row[0] for row in content["events"]) == ["a1-1", "b1-1", "b2-1", "before-2"]
    for node in regions.nodes:
        until(lambda: not node.health()["region"].get("failover"), "the failover is over")  # noqa: B023
        node.ready()
        assert node.health()["region"]["primary"] == "a"
    assert content["fought"][0] == (1, "of b2", "")
    assert "of a1" in a1.command("conflicts")[1]
    agree(regions.nodes)


@pytest.mark.slow
@pytest.mark.parametrize("regions", [15.0], indirect=True)  # the primary region gets what is written before that
def test_what_was_on_its_way_to_the_primary_region_at_the_cut_does_not_undo_what_siblings_made_of_it(
    regions: Regions, writers: dict[str, Application]
) -> None:
    a1, _ = regions.a
    b1, b2 = regions.b
    writers["a1"].write(fought("before"))
    until_equal(regions.nodes)
    regions.cut("deaf")
    writers["b1"].write(insert("b1", 1), fought("of b1"))
    until(lambda: has(a1, "b1-1"), "the primary region has it, and region b does not know")
    assert not has(b2, "b1-1") or b2.health()["region"].get("failover")
    regions.cut("hole")
    until(lambda: has(b2, "b1-1"), "the sibling sees it in the failover")
    writers["b2"].write(("DELETE FROM events WHERE id = 'b1-1'", []), fought("before"), insert("b2", 1))
    until(lambda: has(b1, "b2-1"), "and its writer what the sibling made of it")
    regions.cut("pass")
    until(lambda: has(a1, "b2-1"), "it is brought back")
    for node in regions.nodes:
        node.ready()
    content = until_equal(regions.nodes)
    assert [row[0] for row in content["events"]] == ["b2-1"]
    assert content["fought"][0] == (1, "before", "")
    agree(regions.nodes)


def count(node: Node, name: str) -> int:
    return int(node.value("SELECT count(*) FROM events WHERE writer = ?", [name]) or 0)


@pytest.mark.slow
def test_nothing_is_lost_or_done_twice_under_load_and_when_a_node_restarts_apart(
    regions: Regions, writers: dict[str, Application]
) -> None:
    b1, b2 = regions.b
    loads = {name: writers[name] for name in ("a1", "b1", "b2")}
    for name, load in loads.items():
        load.load(name, pause=0.1)
    until(lambda: all(count(node, name) > 10 for node in regions.nodes for name in loads), "all are at it")
    regions.cut("reset")
    until(lambda: b1.health()["region"].get("failover") and b2.health()["region"].get("failover"), "apart")
    reached = {name: load.committed for name, load in loads.items()}
    until(lambda: count(b2, "b1") > reached["b1"] and count(b1, "b2") > reached["b2"], "siblings converge")
    b2.kill()
    b2.start()
    reached = {name: load.committed for name, load in loads.items()}
    until(lambda: count(b2, "b1") > reached["b1"] and count(b1, "b2") > reached["b2"], "and do again")
    regions.cut("pass")
    reached = {name: load.committed for name, load in loads.items()}
    until(lambda: all(count(n, name) > reached[name] for n in regions.nodes for name in loads), "all again")
    committed = {name: load.kill() for name, load in loads.items()}
    content = until_equal(regions.nodes)
    for name, done in committed.items():
        counted = next(n for writer, n in content["counters"] if writer == name)
        assert counted in (done, done + 1)
        assert sorted(n for _, writer, n, _ in content["events"] if writer == name) == list(range(1, counted + 1))
    agree(regions.nodes)
