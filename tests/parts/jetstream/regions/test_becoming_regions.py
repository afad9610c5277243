"""Clusters that become regions, and what is refused: two orders, a forgotten or a wrong name."""

from __future__ import annotations

from pathlib import Path

import pytest

from harmonylite.errors import ConfigError
from harmonylite.jetstream.object_store import JetStreamObjects
from harmonylite.jetstream.regions.mirror_streams import ensure_region_streams
from harmonylite.jetstream.regions.promotion import promote
from harmonylite.jetstream.regions.region_objects import RegionObjects
from harmonylite.jetstream.shard import JetStreamShard
from harmonylite.jetstream.stream_metadata import PrimaryRegion
from harmonylite.jetstream.streams import ensure_streams
from tests.parts.jetstream.regions.fix_sides import Side


async def test_a_cluster_that_becomes_a_region_keeps_its_order_and_its_snapshots(
    sides: tuple[Side, Side], tmp_path: Path
) -> None:
    a, b = sides
    await ensure_streams(a.link, a.settings)
    before = JetStreamObjects(a.link, a.settings)
    source = tmp_path / "source"
    source.write_bytes(b"the cluster's beginning")
    await before.put("first", source)
    assert await before.set_pointer("newest", b"first", revision=0)
    old = await JetStreamShard(a.link, a.settings, 0, "near").info()
    await a.ensure()
    await b.ensure()
    near, far = (RegionObjects(side.link, side.settings, side.home) for side in sides)
    assert (await b.shard().info()).created == old.created, "it is the same order"
    for objects in (near, far):
        assert await objects.pointer("newest") == (b"first", 0)
        assert await objects.names() == ["first"]
        await objects.get("first", tmp_path / "target")
        assert (tmp_path / "target").read_bytes() == source.read_bytes()
    await far.put("second", source)
    assert await far.set_pointer("newest", b"second", revision=0), "to this store it is the first one"
    assert await near.pointer("newest") == (b"second", 1)
    assert await near.names() == ["first", "second"]
    await near.delete("first")
    assert await before.names() == []
    with b.home.storing("b"):
        assert await far.pointer("newest") is None
    stale = JetStreamObjects(b.link, b.settings)
    assert await stale.set_pointer("newest", b"of another cluster", revision=0)
    await promote(b.link, b.settings, b.home)
    assert await far.pointer("newest") is None, "what b had of its own before is not the cluster's"
    assert await far.names() == []


async def test_two_regions_that_each_made_an_order_are_not_joined_by_mistake(sides: tuple[Side, Side]) -> None:
    a, b = sides
    await ensure_streams(b.link, b.settings)
    with pytest.raises(ConfigError, match="streams of region b take messages already") as refused:
        await b.ensure()
    assert 'primary_region = "b"' in refused.value.advice
    await a.ensure()
    with pytest.raises(ConfigError, match="streams of region b take messages already"):
        await b.ensure()
    await a.server.stop()
    await b.waits_for("a can't be asked whether its streams do, too")


async def test_who_says_the_wrong_home_is_told_and_goes_by_the_streams(sides: tuple[Side, Side]) -> None:
    a, b = sides
    await ensure_region_streams(a.link, a.settings, PrimaryRegion("a", "a"))
    await b.ensure()
    for side in sides:
        told = await ensure_region_streams(side.link, side.settings, PrimaryRegion(side.name, "b"))
        assert told == ["the streams name a as primary region, primary_region names b; correct it"]
    with pytest.raises(ConfigError, match="is a copy of region a's, and this node is in no region"):
        await ensure_streams(b.link, b.settings)


async def test_a_server_in_another_domain_is_named(sides: tuple[Side, Side]) -> None:
    a, _ = sides
    a.home = PrimaryRegion("elsewhere", "elsewhere")
    await a.waits_for("JetStream of the server has domain a: set domain: elsewhere in the jetstream block")
