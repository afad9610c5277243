"""Presence: each node publishes a heartbeat every few seconds and keeps a list of the other nodes by theirs.

Invariant: a peer counts as silent only after `MISSED` of its own intervals without a heartbeat while this node was
connected to NATS. A node receives about `MOST_A_SECOND` heartbeats a second at most, whatever the number of nodes.
"""

from __future__ import annotations

import asyncio
import logging
import random
import socket
import time
from collections.abc import Iterable
from contextlib import suppress
from itertools import islice
from typing import Annotated, Literal

import msgspec

from harmonylite.errors import ForeignError, StreamError
from harmonylite.foreign import Codec, Line, Name
from harmonylite.nats.peers import NatsPeers
from harmonylite.peer import NodeHealth, Peer
from harmonylite.resource import Resource
from harmonylite.status import NodeStatus

log = logging.getLogger(__name__)

TOPIC = "alive"
LEAST_EVERY = 3.0
"""Seconds between two heartbeats of a node in a small cluster."""
MOST_A_SECOND = 4
"""Heartbeats that a node receives a second; in a cluster of more nodes each sends more rarely."""
JITTER = 0.2
"""Share by which each pause varies, so that nodes that start together spread."""
MISSED = 3
"""Heartbeats in a row that a node may miss before it counts as silent."""
MOST_PEERS = 1000
"""Nodes that are remembered; heartbeats of further ones are left out."""
MOST_TWINS = 16
"""Processes under this node's id that are logged, each once."""
NAMED = 50
"""Nodes that a line of the log names; more of them are given as a number."""
GREETING_SECONDS = 1.0
"""A node that meets another one publishes its next heartbeat within so many seconds: that one knows no node yet."""
GOODBYE_SECONDS = 1.0
"""How long the last heartbeat of a node that stops may take."""


class Heartbeat(NodeHealth):
    """A heartbeat. ``session``: of the sending process; ``every``: seconds to the next one; ``leaving``: the last."""

    node: Name
    session: Line
    every: Annotated[float, msgspec.Meta(ge=0.1, le=3600.0)]
    leaving: bool = False


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
        self._twins: dict[str, None] = {}
        self._silent: dict[str, float] = {}
        self._news: dict[str, dict[str, str]] = {}
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
        up = sum(peer.state == "up" for peer in self._status.peers.values())
        return max(LEAST_EVERY, (up + 1) / MOST_A_SECOND)

    def expect(self, nodes: Iterable[str]) -> None:
        """List ``nodes``, which this node knows from their change sets, also before their first heartbeat."""
        for node in nodes:
            self._peer(node)

    def forget(self, node: str) -> None:
        """Drop a node from the list; its next heartbeat lists it again."""
        self._status.peers.pop(node, None)
        self._silent.pop(node, None)

    def receive(self, heartbeat: Heartbeat, now: float) -> None:
        """Take note of a heartbeat that came at ``now`` on the monotonic clock."""
        known = len(self._twins) >= MOST_TWINS or heartbeat.session in (self._session, *self._twins)
        if heartbeat.node == self._status.node_id and not known:
            self._twins[heartbeat.session] = None
            log.error(
                "found another process on host %(host)s as node %(node)s; stop one of the two",
                {"host": heartbeat.host, "node": heartbeat.node},
            )
        peer = self._peer(heartbeat.node)
        if peer is None:
            return
        state: Literal["stopped", "up"] = "stopped" if heartbeat.leaving else "up"
        if peer.node in self._silent:
            since = self._silent.pop(peer.node)
            self._note("peers are back", peer.node, f"silent for {now - since:.0f} s")
        elif state == "up" and (peer.state == "stopped" or not peer.seen):
            self._note("peers are up", peer.node)
            self._met.set()
        if state == "stopped" and peer.state != "stopped":
            self._note("peers stopped", peer.node)
        peer.health, peer.every = heartbeat, heartbeat.every
        peer.state, peer.seen, peer.seen_wall = state, now, time.time()

    def poll(self, now: float) -> None:
        """Find the peers that became silent, and log what changed since the last call. ``now``: monotonic."""
        if not self._status.nats_connected:
            self._listening = None
            for peer in self._status.peers.values():
                peer.state = "unknown" if peer.state in ("up", "silent") else peer.state
            return
        if self._listening is None:
            self._listening = now
        for node, peer in sorted(self._status.peers.items()):
            quiet = now - max(peer.seen, self._listening)
            if peer.state == "stopped" or quiet <= MISSED * (peer.every or self.every):
                continue
            peer.state = "silent"
            if node not in self._silent:
                self._silent[node] = peer.seen or self._listening
                last = (
                    f"last heartbeat {now - peer.seen:.0f} s ago"
                    if peer.seen
                    else "no heartbeat since this node's start"
                )
                self._note("peers are silent", node, last)
        for what, nodes in self._news.items():
            level = logging.WARNING if what == "peers are silent" else logging.INFO
            named = [f"{node} ({note})" if note else node for node, note in islice(nodes.items(), NAMED)]
            more = f" and {len(nodes) - NAMED} more" if len(nodes) > NAMED else ""
            log.log(level, "%(what)s: %(nodes)s%(more)s", {"what": what, "nodes": ", ".join(named), "more": more})
        self._news.clear()

    def _note(self, what: str, node: str, note: str = "") -> None:
        """Keep a piece of news for the next `poll`, which logs one line for all nodes of a kind, each node once."""
        self._news.setdefault(what, {})[node] = note

    def _peer(self, node: str) -> Peer | None:
        known = self._status.peers
        if node == self._status.node_id or (node not in known and len(known) >= MOST_PEERS):
            return None
        return known.setdefault(node, Peer(node))

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._peers.listen(TOPIC, self._take), name="receive heartbeats")
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
            self.poll(time.monotonic())

    async def _publish(self, *, leaving: bool = False) -> None:
        status = self._status
        shards = status.shards.values()
        heartbeat = Heartbeat(
            status.node_id,
            self._session,
            self.every,
            leaving,
            healthy=status.healthy,
            starting=status.starting,
            ready=status.ready,
            lag_messages=status.left,
            lag_seconds=max((shard.lag_seconds for shard in shards), default=0.0),
            pending_rows=status.pending_rows,
            version=status.version,
            host=self._host,
            region=str(status.region.get("region", "")),
            page=status.page,
        )
        await self._peers.publish(TOPIC, CODEC.encode(heartbeat))

    def _take(self, data: bytes) -> None:
        heartbeat = decode(data)
        if heartbeat is None:
            log.debug(
                "ignoring a heartbeat of %(bytes)d bytes, which this version does not understand", {"bytes": len(data)}
            )
        else:
            self.receive(heartbeat, time.monotonic())
