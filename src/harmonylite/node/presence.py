"""Presence: each node publishes a heartbeat every few seconds and keeps a list of the other nodes by theirs.

Invariant: a peer counts as silent only after `MISSED` of its own intervals without a heartbeat while this node was
connected to NATS. A node hears about `MOST_A_SECOND` heartbeats a second at most, whatever the number of nodes.
"""

from __future__ import annotations

import asyncio
import logging
import random
import socket
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Annotated

import msgspec

from harmonylite.errors import ForeignError, StreamError
from harmonylite.foreign import Codec, Line, Name, Seconds, Seq
from harmonylite.nats.peers import NatsPeers
from harmonylite.resource import Resource
from harmonylite.status import NodeStatus, Peer

log = logging.getLogger(__name__)

TOPIC = "alive"
LEAST_EVERY = 3.0
"""Seconds between two heartbeats of a node in a small cluster."""
MOST_A_SECOND = 4
"""Heartbeats that a node hears a second; in a cluster of more nodes each sends more rarely."""
JITTER = 0.2
"""Share by which each pause varies, so that nodes that start together spread."""
MISSED = 3
"""Heartbeats in a row that a node may miss before it counts as silent."""
MOST_PEERS = 1000
"""Nodes that are remembered; heartbeats of further ones are left out."""
GREETING_SECONDS = 1.0
"""A node that meets another one publishes its next heartbeat within so many seconds: that one knows nobody yet."""
GOODBYE_SECONDS = 1.0
"""How long the last heartbeat of a node that stops may take."""


class Heartbeat(msgspec.Struct):
    """A heartbeat. ``session``: of the sending process; ``every``: seconds to the next one; ``leaving``: the last."""

    node: Name
    session: Line
    every: Annotated[float, msgspec.Meta(ge=0.1, le=3600.0)]
    leaving: bool = False
    healthy: bool = False
    ready: bool = False
    lag_messages: Seq = 0
    lag_seconds: Seconds = 0.0
    pending_rows: Seq = 0
    version: Line = ""
    host: Line = ""


CODEC = Codec("a heartbeat", Heartbeat, packed=True)


def decode(data: bytes) -> Heartbeat | None:
    """Return the heartbeat in ``data``, None where it is none that this version understands."""
    try:
        return CODEC.decode(data)
    except ForeignError:
        return None


class Presence(Resource):
    """Publishes this node's heartbeats and keeps `NodeStatus.peers`. ``session``: names this process."""

    def __init__(self, peers: NatsPeers, status: NodeStatus, session: str) -> None:
        self._peers = peers
        self._status = status
        self._session = session
        self._host = socket.gethostname()[:255]
        self._met = asyncio.Event()
        self._listening: float | None = None
        self._twin = ""
        self._silent: dict[str, float] = {}
        self._news: dict[str, list[str]] = {}
        self._task: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Start to publish and to listen."""
        self._task = asyncio.create_task(self._run(), name="heartbeats")

    async def aclose(self) -> None:
        """End, and announce that this node stops."""
        if self._task is None:
            return
        self._task.cancel()
        await asyncio.wait({self._task})
        with suppress(StreamError, TimeoutError):
            async with asyncio.timeout(GOODBYE_SECONDS):
                await self._publish(leaving=True)

    async def ended(self) -> None:
        """Wait until the heartbeats end; raises what they ended with."""
        if self._task is not None:
            await asyncio.wait({self._task})
            if not self._task.cancelled():
                self._task.result()

    @property
    def every(self) -> float:
        """Seconds between heartbeats now."""
        heard = sum(peer.state == "up" for peer in self._status.peers.values())
        return max(LEAST_EVERY, (heard + 1) / MOST_A_SECOND)

    def expect(self, nodes: Iterable[str]) -> None:
        """List ``nodes``, which this node knows from their change sets, also before they are heard."""
        for node in nodes:
            self._peer(node)

    def forget(self, node: str) -> None:
        """Drop a node from the list; its next heartbeat lists it again."""
        self._status.peers.pop(node, None)
        self._silent.pop(node, None)

    def hear(self, heartbeat: Heartbeat, now: float) -> None:
        """Take note of a heartbeat that came at ``now`` on the monotonic clock."""
        if heartbeat.node == self._status.node_id and heartbeat.session not in (self._session, self._twin):
            self._twin = heartbeat.session
            log.error("another process on host %s runs as node %s; stop one of the two", heartbeat.host, heartbeat.node)
        peer = self._peer(heartbeat.node)
        if peer is None:
            return
        state = "stopped" if heartbeat.leaving else "up"
        if peer.node in self._silent:
            since = self._silent.pop(peer.node)
            self._note("peers are back", f"{peer.node} (silent for {now - since:.0f} s)")
        elif state == "up" and (peer.state == "stopped" or not peer.heard):
            self._note("peers are up", peer.node)
            self._met.set()
        if state == "stopped" and peer.state != "stopped":
            self._note("peers stopped", peer.node)
        for name in ("healthy", "ready", "lag_messages", "lag_seconds", "pending_rows", "version", "host", "every"):
            setattr(peer, name, getattr(heartbeat, name))
        peer.state, peer.heard, peer.heard_wall = state, now, time.time()  # type: ignore[assignment] # one of the two

    def look(self, now: float) -> None:
        """Find the peers that became silent, and log what changed since the last look. ``now``: monotonic."""
        if not self._status.nats_connected:
            self._listening = None
            for peer in self._status.peers.values():
                peer.state = "unknown" if peer.state in ("up", "silent") else peer.state
            return
        if self._listening is None:
            self._listening = now
        for node, peer in sorted(self._status.peers.items()):
            quiet = now - max(peer.heard, self._listening)
            if peer.state == "stopped" or quiet <= MISSED * (peer.every or self.every):
                continue
            peer.state = "silent"
            if node not in self._silent:
                self._silent[node] = peer.heard or self._listening
                last = f"last heard {now - peer.heard:.0f} s ago" if peer.heard else "not heard since this node's start"
                self._note("peers are silent", f"{node} ({last})")
        for what, nodes in self._news.items():
            log.log(logging.WARNING if what == "peers are silent" else logging.INFO, "%s: %s", what, ", ".join(nodes))
        self._news.clear()

    def _note(self, what: str, node: str) -> None:
        """Keep a piece of news for the next look, which logs one line for all nodes of a kind."""
        self._news.setdefault(what, []).append(node)

    def _peer(self, node: str) -> Peer | None:
        known = self._status.peers
        if node == self._status.node_id or (node not in known and len(known) >= MOST_PEERS):
            return None
        return known.setdefault(node, Peer(node))

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._peers.listen(TOPIC, self._take), name="hear heartbeats")
            group.create_task(self._heartbeat(), name="send heartbeats")

    async def _heartbeat(self) -> None:
        while True:
            self._met.clear()
            with suppress(StreamError):
                await self._publish()
            with suppress(TimeoutError):
                async with asyncio.timeout(self.every * random.uniform(1 - JITTER, 1 + JITTER)):
                    await self._met.wait()
                    await asyncio.sleep(random.uniform(0.0, GREETING_SECONDS))
            self.look(time.monotonic())

    async def _publish(self, *, leaving: bool = False) -> None:
        status = self._status
        shards = status.shards.values()
        heartbeat = Heartbeat(
            status.node_id, self._session, self.every, leaving, status.healthy, status.ready,
            sum(shard.lag for shard in shards), max((shard.lag_seconds for shard in shards), default=0.0),
            status.pending_rows, status.version, self._host,
        )  # fmt: skip
        await self._peers.publish(TOPIC, CODEC.encode(heartbeat))

    def _take(self, data: bytes) -> None:
        heartbeat = decode(data)
        if heartbeat is None:
            log.debug("a heartbeat of %d bytes is none that this version understands", len(data))
        else:
            self.hear(heartbeat, time.monotonic())
