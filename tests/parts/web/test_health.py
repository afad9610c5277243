"""Health, liveness and readiness over real HTTP: shape, codes and reasons."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import pytest

from harmonylite.errors import ConfigError
from harmonylite.peer import NodeHealth, Peer
from harmonylite.status import NodeStatus
from harmonylite.web.endpoints import HealthEndpoint, MetricsEndpoint, http_servers
from harmonylite.web.health import health_routes
from tests.parts.web.fix_http import Reply, fetch, running_status
from tests.ports import free_port

ROOT = Path(__file__).parents[3]

KNOWN = [
    "status",
    "node_id",
    "uptime_seconds",
    "db_connected",
    "nats_connected",
    "cdc_installed",
    "tables_tracked",
    "last_replicated_event_timestamp",
    "last_published_event_timestamp",
    "version",
]


async def ask(status: NodeStatus, url: str = "/health", **site: Any) -> Reply:
    (http,) = http_servers(status, health=HealthEndpoint("127.0.0.1:0", **site))
    async with http:
        return await fetch(http.port, url)


async def test_health_has_the_shape_that_monitors_know() -> None:
    status = running_status()
    status.last_replicated = 1742571045.25
    reply = await ask(status, detailed=False)
    assert reply.code == 200
    assert reply.headers["content-type"] == "application/json"
    assert list(reply.json) == KNOWN
    assert reply.json["status"] == "healthy"
    assert reply.json["node_id"] == 7
    assert type(reply.json["uptime_seconds"]) is int
    assert reply.json["tables_tracked"] == 2
    assert reply.json["last_replicated_event_timestamp"] == "2025-03-21T15:30:45.250Z"
    assert reply.json["last_published_event_timestamp"] is None


@pytest.mark.parametrize(("node_id", "shown"), [("12", 12), ("0012", "0012"), ("berlin-1", "berlin-1"), ("", "")])
async def test_a_node_id_is_a_number_only_where_it_is_written_as_one(node_id: str, shown: int | str) -> None:
    status = running_status()
    status.node_id = node_id
    assert (await ask(status)).json["node_id"] == shown


@pytest.mark.parametrize("lost", ["db_connected", "nats_connected"])
async def test_health_is_503_when_the_database_or_nats_is_gone(lost: str) -> None:
    status = running_status()
    setattr(status, lost, False)
    reply = await ask(status)
    assert (reply.code, reply.json["status"], reply.json[lost]) == (503, "unhealthy", False)


async def test_a_node_that_has_not_joined_yet_is_starting_until_something_is_wrong() -> None:
    status = running_status()
    status.joined = status.nats_connected = False
    assert [(r.code, r.json["status"]) for r in [await ask(status)]] == [(503, "starting")]
    status.part("nats").failed("the password is wrong")
    assert (await ask(status)).json["status"] == "unhealthy"
    status.begin()
    assert (await ask(status)).json["status"] == "starting"
    status.stopping = True
    assert (await ask(status)).json["status"] == "unhealthy"


async def test_detailed_health_tells_lag_pending_held_and_the_reason_of_waiting() -> None:
    status = running_status()
    status.shard(1).last, status.shard(1).behind_since = 9, time.monotonic() - 2.5
    status.pending_rows, status.held_rows = 3, 1
    status.part("fold").waiting("table orders has no column note here")
    body = (await ask(status)).json
    lag = body["shards"][1].pop("lag_seconds")
    assert body["shards"][1] == {"shard": 1, "position": 0, "last": 9, "lag_messages": 9}
    assert lag >= 2.5, "it grows by itself"
    assert (body["pending_rows"], body["held_rows"]) == (3, 1)
    assert body["waits"] == ["fold: table orders has no column note here"]


async def test_a_node_that_is_behind_says_how_many_messages_are_left_and_for_how_long() -> None:
    status, now = running_status(), time.monotonic()
    status.caught_up, status.shard(0).last, status.shard(0).position = False, 3000, 0
    assert (await ask(status)).json["catching_up"] == {"messages": 3000, "seconds": None}
    status.pace.see(3000, now - 2.0)
    status.shard(0).position = 1000
    found = (await ask(status)).json["catching_up"]
    assert found["messages"] == 2000
    assert 4.0 <= found["seconds"] < 60.0, "1,000 took two seconds"
    assert "catching up: 2,000 messages left, about" in (await ask(status, "/readyz")).json["reasons"][-1]
    status.part("merge").waiting("table orders has no column note here")
    assert (await ask(status)).json["catching_up"] is None, "something is in its way"
    status.part("merge").ok()
    status.shard(0).position = 3000
    assert (await ask(status)).json["catching_up"] is None


async def test_a_node_that_caught_up_once_says_so_only_when_it_is_late() -> None:
    status = running_status()
    status.shard(0).last, status.shard(0).position = 10, 9
    status.shard(0).behind_since = time.monotonic() + 60  # just now, however long the answer takes
    assert (await ask(status)).json["catching_up"] is None
    status.shard(0).behind_since = time.monotonic() - 60
    assert (await ask(status)).json["catching_up"]["messages"] == 1


async def test_detailed_health_lists_the_peers() -> None:
    status = running_status()
    status.peers["8"] = Peer("8", "silent", 1.0, 1742571045.25, health=NodeHealth(version="1.0"))
    status.peers["9"] = Peer("9")
    heard, unheard = (await ask(status)).json["peers"]
    assert (heard["node_id"], heard["state"], heard["last_heard"]) == ("8", "silent", "2025-03-21T15:30:45.250Z")
    assert heard["silent_seconds"] > 0
    assert (unheard["state"], unheard["last_heard"], unheard["silent_seconds"]) == ("unknown", None, None)
    assert (await ask(status)).code == 200, "a silent peer makes nobody else unhealthy"


def test_every_key_of_a_peer_stands_in_the_docs() -> None:
    section = (ROOT / "docs" / "health.md").read_text(encoding="utf-8").partition("## Peers")[2].partition("\n## ")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    assert {name for row in rows for name in re.findall("`([^`]+)`", row)} == set(Peer("8").report(0.0))


async def test_a_configured_path_is_the_one_that_answers() -> None:
    assert (await ask(running_status(), "/up/now", path="up/now")).code == 200
    assert (await ask(running_status(), "/health", path="/up")).code == 404


@pytest.mark.parametrize("path", ["/a b", "/{x}", "/a?b", "/a\nb"])
def test_a_path_that_is_none_is_refused_by_its_key(path: str) -> None:
    with pytest.raises(ConfigError, match=r"health_check\.path"):
        health_routes(running_status(), path=path)


async def test_livez_stays_200_whatever_parts_wait_for_or_failed_at_as_no_restart_would_help() -> None:
    status = running_status()
    status.nats_connected = False
    status.part("fold").waiting("no connection")
    assert (await ask(status, "/livez")).code == 200
    status.part("fold").failed("message 12 of shard 0 can't be read")
    reply = await ask(status, "/livez")
    assert (reply.code, reply.json["reasons"]) == (200, ["fold: message 12 of shard 0 can't be read"])
    assert (await ask(status, "/health")).code == 503


async def test_a_node_without_its_triggers_is_not_healthy() -> None:
    status = running_status()
    status.cdc_installed = False
    assert (await ask(status, "/health")).code == 503
    assert (await ask(status, "/readyz")).json["reasons"] == ["the capture triggers are not in place"]


async def test_readyz_is_200_only_when_caught_up_and_else_says_why() -> None:
    status = running_status()
    assert (await ask(status, "/readyz")).json == {"status": "ready", "reasons": []}
    status.caught_up, status.shard(0).last, status.shard(0).behind_since = False, 50, time.monotonic() - 4
    reply = await ask(status, "/readyz")
    (reason,) = reply.json["reasons"]
    assert reply.code == 503
    assert re.fullmatch(r"shard 0 is 8 messages \(\d+ s\) behind", reason)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        ({"db_connected": False}, "the database is not open"),
        ({"nats_connected": False}, "NATS is not connected"),
        ({"stopping": True}, "the node is stopping"),
        ({"caught_up": False}, "the stream was not read to its end yet"),
    ],
)
async def test_readyz_always_has_a_reason_with_its_503(spoil: dict[str, bool], reason: str) -> None:
    status = running_status()
    for name, value in spoil.items():
        setattr(status, name, value)
    reply = await ask(status, "/readyz")
    assert (reply.code, reply.json["reasons"]) == (503, [reason])


async def test_a_part_that_waits_too_long_makes_the_node_unhealthy() -> None:
    status = running_status()
    status.part("fold").waiting("the database is locked")
    assert (await ask(status)).code == 200
    status.part("fold").since = time.monotonic() - 16
    assert (await ask(status)).code == 503


async def test_without_details_the_page_and_its_data_are_not_there() -> None:
    assert (await ask(running_status(), "/", detailed=False)).code == 404
    assert (await ask(running_status(), "/status.json", detailed=False)).code == 404


async def test_the_same_bind_for_health_and_metrics_is_one_server() -> None:
    bind = f"127.0.0.1:{free_port()}"
    (http,) = http_servers(running_status(), health=HealthEndpoint(bind), metrics=MetricsEndpoint(bind))
    async with http:
        assert (await fetch(http.port, "/health")).code == 200
        assert re.search("^harmonylite_healthy", (await fetch(http.port, "/metrics")).text, re.MULTILINE)


def test_nothing_is_served_that_is_not_enabled() -> None:
    assert http_servers(running_status()) == []
    assert len(http_servers(running_status(), health=HealthEndpoint(":0"), metrics=MetricsEndpoint(":0"))) == 2


def test_every_part_stands_in_the_docs_and_every_documented_one_exists() -> None:
    source = "".join(file.read_text() for file in (ROOT / "src").rglob("*.py"))
    named = set(re.findall(r'part\("([^"]+)"\)', source)) | {"shard <N>"}
    named |= set(re.findall(r'^(?:PART|NATS) = "([^"]+)"', source, re.MULTILINE))
    section = (ROOT / "docs" / "health.md").read_text(encoding="utf-8").partition("## Parts")[2].partition("\n## ")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    assert {name for row in rows for name in re.findall("`([^`]+)`", row)} == named
