"""A cluster to look at: a status in which everything on the page has something to show, and what answers for it."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from harmonylite.peer import NodeHealth, Peer, PeerState
from harmonylite.status import NodeStatus
from harmonylite.web.endpoints import HealthEndpoint, http_servers
from harmonylite.web.last_hour import KEPT, LastHour
from harmonylite.web.page_guard import PageGuard
from harmonylite.web.page_source import PageSource
from harmonylite.web.server import HttpServer
from tests.parts.web.fix_http import running_status

TOKEN = "a-token-of-thirty-two-characters"
SCRIPT = "<script>document.title = 'taken'</script>"


def peer(name: str, state: PeerState = "up", *, silent: float = 1.0, **health: Any) -> Peer:
    """Return another node that was heard ``silent`` seconds ago."""
    usual: dict[str, Any] = {"healthy": True, "ready": True, "version": "1.2.3"}
    schema = health.pop("schema", "5ca1ab1e")
    said = NodeHealth(**(usual | health))
    return Peer(name, state, time.monotonic() - silent, time.time() - silent, 3.0, said, schema)


def cluster_status() -> NodeStatus:
    """Return the status of a node of two regions: one node lags, one is gone, one was stopped."""
    status = running_status()
    status.node_id, status.schema, status.tables = "vienna-1", "5ca1ab1e", ("customers", "order_lines", "orders")
    status.region = {"region": "vienna", "primary": "vienna", "reachable": True}
    status.peers = {
        each.node: each
        for each in (
            peer("vienna-2", region="vienna", page="http://127.0.0.1:9/", host="db-2"),
            peer("vienna-3", region="vienna", lag_messages=4_102, lag_seconds=74.0, page="javascript:alert(1)"),
            peer("graz-1", "silent", silent=760.0, region="graz"),
            peer("graz-2", "stopped", silent=5_400.0, region="graz"),
            peer("graz-3", region="graz", schema="0ddba115"),
        )
    }
    status.server = {"connections": 7, "cluster_peers": 2, "stored_bytes": 48_100_000, "cpu_ratio": 0.021}
    status.counters.conflicts, status.pending_rows = 3, 12
    status.verified = (time.time() - 4_000, "all nodes agree")
    for seconds in [0.004] * 80 + [0.02] * 5:
        status.latency.observe(seconds)
    return status


def full_hour(status: NodeStatus) -> LastHour:
    """Return an hour of samples with a burst, a stretch of lag and some conflicts in it."""
    hour, now = LastHour(status), time.time()
    for n in range(KEPT):
        wave = 1 + math.sin(n / 40)
        lag = max(0.0, 30 - abs(n - 400) / 2)
        burst = 900.0 if 250 < n < 270 else 0.0
        times = (None, None) if n % 97 == 0 else (0.004 + 0.001 * wave, 0.012 + 0.004 * wave + lag / 50)
        hour.samples.append(
            (now - 5 * (KEPT - n), 40 * wave + burst, 90 * wave + burst, int(lag), lag, 0, int(n % 180 == 90), *times)
        )
    return hour


def conflict(number: int, **more: Any) -> dict[str, Any]:
    """Return a conflict as the page gets it."""
    return {
        "id": f"id-{number}",
        "table": "orders",
        "key": [["id", "text", f"o-{number}"]],
        "column": "state",
        "kind": "update",
        "winning": ["text", "shipped"],
        "overruled": ["text", "cancelled by the customer"],
        "winner": "vienna-2",
        "loser": "graz-3",
        "position": f"0:{4_000 - number}",
        "at": time.time() - 40 * number**3,
        "can_put_back": True,
    } | more


class Answers:
    """Stands for `harmonylite.node.page.NodePage`, which other tests run for real. ``done``: what it was asked to do.

    ``search``: what conflicts were searched for.
    """

    def __init__(self, conflicts: Sequence[dict[str, Any]] = ()) -> None:
        self.listed = list(conflicts) or [
            conflict(1),
            conflict(2, table="customers", column="phone", winning=["null", "NULL"]),
            conflict(3, column="note", kind="delete", can_put_back=False, overruled=["text", SCRIPT]),
            conflict(4, column="total", winning=["integer", str(2**63 - 1)], overruled=["real", "-0.0"]),
        ]
        self.done: list[Any] = []
        self.search = ""

    async def details(self) -> dict[str, Any]:
        tables = [("customers", 48_211, True, 0, 0), ("order_lines", 1_902_400, False, 12, 0)]
        tables.append(("orders", 310_004, True, 0, 2))
        names = ("name", "rows", "exact", "pending", "held")
        gone = {"node_id": "linz-1", "state": "unknown", "last_seen": time.time() - 900_000, "host": "db-9"}
        blank = {"version": "1.1.0", "region": "", "schema": "", "page": "", "lag_messages": None}
        snapshot = {"name": "snapshot-1", "node": "vienna-2", "bytes": 21_300_000, "size": 96_400_000}
        return {
            "nodes": [gone | blank | {"lag_seconds": None, "pending_rows": None}],
            "tables": [dict(zip(names, table, strict=True)) for table in tables],
            "snapshots": {"listed": [snapshot | {"at": time.time() - 1_900}], "count": 3, "next": 0.0},
            "verified": {"at": time.time() - 4_000, "said": "all nodes agree"},
            "errors": {},
        }

    async def conflicts(self, table: str, words: str, limit: int) -> Sequence[dict[str, Any]]:
        self.search = words
        return [each for each in self.listed if words.casefold() in repr(each).casefold()][:limit]

    async def changes(self) -> AsyncGenerator[dict[str, Any], None]:
        async def passing() -> AsyncGenerator[dict[str, Any], None]:
            before, after = {"id": 2**60, "state": "open"}, {"id": 2**60, "state": "shipped"}
            change = {"table": "orders", "kind": "update", "key": {"id": 2**60}, "before": before, "after": after}
            yield {"position": "0:7", "origin": "graz-3", "at": time.time(), "changes": [change]}
            await asyncio.sleep(3600)

        return passing()

    def log(self) -> Sequence[dict[str, str]]:
        return [{"at": "2026-11-20T10:00:00Z", "level": "warning", "text": f"peers are silent: graz-1 {SCRIPT}"}]

    async def put_back(self, conflict: str) -> dict[str, Any]:
        self.done.append(conflict)
        return {}

    async def save_snapshot(self) -> dict[str, Any]:
        self.done.append("snapshot")
        return {"name": "snapshot-2"}

    async def verify(self) -> dict[str, Any]:
        self.done.append("verify")
        return {"agree": True}


def serving_page(
    status: NodeStatus, answers: Answers, *, guard: PageGuard | None = None, hosts: tuple[str, ...] = ()
) -> HttpServer:
    """Return the server of a page, not open yet. ``hosts``: names that it answers for beside this machine's."""
    source = PageSource(answers, full_hour(status), guard or PageGuard())
    (http,) = http_servers(status, health=HealthEndpoint("127.0.0.1:0", hosts=hosts), source=source)
    return http
