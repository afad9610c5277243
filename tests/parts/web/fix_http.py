"""A plain HTTP client over loopback, and a status to look at."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from http.client import HTTPConnection
from typing import Any

from harmonylite.status import NodeStatus


@dataclass(frozen=True)
class Reply:
    """One HTTP answer."""

    code: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.body)


async def fetch(
    port: int,
    path: str,
    *,
    method: str = "GET",
    headers: dict[str, str] | None = None,
    body: str | None = None,
    host: str = "127.0.0.1",
) -> Reply:
    """Ask ``path`` of a server on this machine, in a thread, over a connection of its own."""

    def ask() -> Reply:
        connection = HTTPConnection(host, port, timeout=60)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return Reply(answer.status, answer.read(), {k.lower(): v for k, v in answer.getheaders()})
        finally:
            connection.close()

    return await asyncio.to_thread(ask)


def running_status() -> NodeStatus:
    """Return the status of a node at which all is well."""
    status = NodeStatus(node_id="7", version="1.2.3", db_path="/data/shop.db", tables=("items", "orders"))
    status.db_connected = status.nats_connected = status.cdc_installed = status.joined = status.caught_up = True
    status.nats_server = "nats://127.0.0.1:4222"
    shard = status.shard(0)
    shard.position = shard.last = 42
    status.part("capture").ok()
    status.part("fold").ok()
    return status
