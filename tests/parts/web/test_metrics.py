"""Metrics: known names, true values, no collisions, and a documentation test."""

from __future__ import annotations

import subprocess
import time
from dataclasses import fields
from pathlib import Path

import pytest
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse

from harmonylite.errors import ConfigError
from harmonylite.peer import Peer
from harmonylite.status import Counters, NodeStatus
from harmonylite.web.endpoints import MetricsEndpoint, http_servers
from harmonylite.web.metrics import COUNTERS, SERVER, make_registry
from tests.needs import PROMTOOL
from tests.parts.web.fix_http import fetch, running_status

REGION = {"region": "b", "primary": "a", "reachable": True, "round_trip_seconds": 0.04, "copy_behind": 3}
DOCS = Path(__file__).parents[3] / "docs" / "metrics.md"


def samples(status: NodeStatus, **names: str) -> dict[str, float]:
    text = generate_latest(make_registry(status, **names)).decode()
    return {s.name: s.value for family in parse(text) for s in family.samples}


def test_the_four_known_names_are_there_under_namespace_and_subsystem() -> None:
    status = running_status()
    status.counters.published_rows, status.pending_rows = 5, 3
    for seconds in (0.0004, 0.004, 0.04):
        status.poll_time.observe(seconds)
    status.capture_time.observe(0.25)
    found = samples(status, namespace="ns", subsystem="sub")
    assert found["ns_sub_published"] == 5
    assert found["ns_sub_pending_publish"] == 3
    assert found["ns_sub_count_changes_count"] == 3
    assert found["ns_sub_count_changes_sum"] == pytest.approx(0.0444)
    assert (found["ns_sub_scan_changes_count"], found["ns_sub_scan_changes_sum"]) == (1, 0.25)


def test_every_counter_of_the_status_is_exposed_with_its_value() -> None:
    status = running_status()
    for number, counter in enumerate(fields(Counters), start=1):
        setattr(status.counters, counter.name, number)
    assert list(COUNTERS) == [counter.name for counter in fields(Counters)]
    found = samples(status)
    for number, counter in enumerate(fields(Counters), start=1):
        assert found[f"harmonylite_{counter.name}_total"] == number


def test_figures_of_the_embedded_server_are_there_when_it_told_some() -> None:
    status = running_status()
    assert not any("nats_server" in name for name in samples(status))
    status.server = {name: float(number) for number, name in enumerate(SERVER)}
    found = samples(status)
    for number, (name, (kind, _)) in enumerate(SERVER.items()):
        assert found[f"harmonylite_nats_server_{name}{'_total' if kind == 'counter' else ''}"] == number


def test_how_far_the_primary_region_is_is_there_where_there_are_regions() -> None:
    status = running_status()
    assert not any("region" in name for name in samples(status))
    status.region = REGION
    assert "harmonylite_region_failover" not in samples(status), "an older node doesn't tell"
    status.region = REGION | {"failover": True, "failover_since": 1700000000.0}
    found = samples(status)
    assert found["harmonylite_region_failover"] == 1
    assert found["harmonylite_region_primary_reachable"] == 1
    assert found["harmonylite_region_primary_round_trip_seconds"] == 0.04
    assert found["harmonylite_region_copy_behind"] == 3


def test_a_silent_peer_is_told_from_one_that_is_up_and_one_that_nobody_can_tell_of() -> None:
    status = running_status()
    status.peers |= {"8": Peer("8", "up", 1.0), "9": Peer("9", "silent"), "10": Peer("10")}
    registry = make_registry(status)

    def value(name: str, peer: str) -> float | None:
        return registry.get_sample_value(f"harmonylite_{name}", {"node_id": "7", "peer": peer})

    assert [value("peer_up", peer) for peer in ("8", "9", "10")] == [1, 0, None]
    assert (value("peer_silent_seconds", "8") or 0) > 0
    assert value("peer_silent_seconds", "9") is None, "it was never heard"


def test_a_scrape_shows_what_changed_since_the_last_one() -> None:
    status = running_status()
    registry = make_registry(status)
    assert registry.get_sample_value("harmonylite_held_rows", {"node_id": "7"}) == 0
    status.held_rows = 2
    assert registry.get_sample_value("harmonylite_held_rows", {"node_id": "7"}) == 2


def test_lag_is_told_per_shard_in_messages_and_seconds() -> None:
    status = running_status()
    status.shard(3).last, status.shard(3).behind_since = 10, time.monotonic() - 1.5
    registry, labels = make_registry(status), {"node_id": "7", "shard": "3"}
    assert registry.get_sample_value("harmonylite_shard_lag_messages", labels) == 10
    assert (registry.get_sample_value("harmonylite_shard_lag_seconds", labels) or 0) >= 1.5


def test_histograms_are_cumulative_and_end_with_all() -> None:
    status = running_status()
    for seconds in (0.0005, 0.004, 0.004, 700.0):
        status.latency.observe(seconds)
    registry = make_registry(status)

    def bucket(bound: str) -> float | None:
        return registry.get_sample_value("harmonylite_commit_to_applied_seconds_bucket", {"node_id": "7", "le": bound})

    assert [bucket(b) for b in ("0.001", "0.003", "0.005", "60.0", "+Inf")] == [1, 1, 3, 3, 4]
    count = registry.get_sample_value("harmonylite_commit_to_applied_seconds_count", {"node_id": "7"})
    assert count == 4


def test_a_part_is_in_exactly_one_state() -> None:
    status = running_status()
    status.part("fold").waiting("locked")
    registry = make_registry(status)

    def value(state: str) -> float | None:
        return registry.get_sample_value("harmonylite_part_state", {"node_id": "7", "part": "fold", "state": state})

    assert [value(s) for s in ("starting", "ok", "waiting", "failed", "stopped")] == [0, 0, 1, 0, 0]


@pytest.mark.parametrize("names", [{"namespace": "my-app"}, {"subsystem": "a b"}, {"namespace": "1st"}])
def test_a_namespace_that_no_metric_can_have_is_refused_by_its_key(names: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=r"prometheus\.(namespace|subsystem)"):
        make_registry(running_status(), **names)


async def test_two_nodes_of_one_process_are_scraped_apart() -> None:
    one, two = running_status(), running_status()
    two.node_id = "8"
    (first,) = http_servers(one, metrics=MetricsEndpoint("127.0.0.1:0"))
    (second,) = http_servers(two, metrics=MetricsEndpoint("127.0.0.1:0"))
    async with first, second:
        assert 'harmonylite_healthy{node_id="7"} 1.0' in (await fetch(first.port, "/metrics")).text
        assert 'harmonylite_healthy{node_id="8"} 1.0' in (await fetch(second.port, "/")).text


async def test_plain_and_openmetrics_scrapers_both_get_what_they_ask_for() -> None:
    (http,) = http_servers(running_status(), metrics=MetricsEndpoint("127.0.0.1:0"))
    async with http:
        plain = await fetch(http.port, "/metrics")
        asked = {"accept": "application/openmetrics-text; version=1.0.0"}
        modern = await fetch(http.port, "/metrics", headers=asked)
    assert plain.headers["content-type"].startswith("text/plain")
    assert modern.headers["content-type"].startswith("application/openmetrics-text")
    assert len(list(parse(plain.text))) > 30
    modern_families = list(parse_openmetrics(modern.text))  # type: ignore[no-untyped-call]  # the library's gap
    assert len(modern_families) > 30


@PROMTOOL.mark
def test_promtool_has_nothing_to_say() -> None:
    status = running_status()
    status.server = dict.fromkeys(SERVER, 1.0)
    text = generate_latest(make_registry(status))
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, check=False)  # noqa: S607
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_every_metric_stands_in_the_docs_and_every_documented_one_exists() -> None:
    status = running_status()
    status.server = dict.fromkeys(SERVER, 1.0)
    status.region = REGION | {"failover": False}
    status.peers["8"] = Peer("8", "up", 1.0)
    names = {
        line.split()[2]
        for line in generate_latest(make_registry(status)).decode().splitlines()
        if line.startswith("# TYPE")
    }
    documented = {
        line.split("`")[1] for line in DOCS.read_text(encoding="utf-8").splitlines() if line.startswith("| `")
    }
    assert names == documented
