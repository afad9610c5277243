"""The cluster's list of nodes, in one pointer that all of them share: who has been here, with which schema, and who is
forgotten.

Invariant: a node that runs is on the list, and a node that is forgotten is on no node's, until it runs again: then it
lists itself. The list is changed by compare-and-set; while NATS can't be asked, what was read last counts. What a node
knows of another one's schema is on the list and nowhere else, and it reads the list when a schema changed.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta

from harmonylite.backoff import Backoff, Retry
from harmonylite.errors import ForeignError, StreamError
from harmonylite.foreign import Codec, Line, Name, Seconds, Seq, Text
from harmonylite.nats.peers import NatsPeers
from harmonylite.snapshots.repository import PointerStore

log = logging.getLogger(__name__)

V = TypeVar("V")

KEY = "nodes"
TOPIC = "forgotten"
"""Where a node announces to the others that one was forgotten."""
LISTED = "listed"
"""Where a node announces to the others that its entry has another schema."""
EVERY = 600.0
"""Seconds between two times that a node notes that it is there."""
REFRESH_SECONDS = 60.0
"""Seconds until a node of a small cluster reads the list although nothing was announced: older versions announce
nothing."""
REFRESH_PAUSE = 1.0
"""Seconds between two reads in a small cluster: a change of the schema reaches all nodes at once, and each announces
it."""
READS_A_SECOND = 50
"""Times that all nodes together read the list while changes are announced, 2 otherwise: it grows with the cluster."""
READ_SECONDS = 3.0
"""How long a question for the list may take; then the last answer counts."""
TRIES = 50
"""How often a change is tried against others' before it is given up."""
MOST = 4096
"""Nodes on the list, and nodes that are forgotten; the oldest go."""
MOST_BYTES = 512 * 1024
"""Size of a list that a node sets; more of the oldest go. A NATS server takes a megabyte, and so does the decoder."""


class SchemaNote(msgspec.Struct, frozen=True, omit_defaults=True):
    """A node's schema: its hash, the one before, since when, ``user_version``, how many tables, and digests of what
    identifies their records, of their columns, and of these with their affinities.
    """

    hash: Line = ""
    previous: Line = ""
    since: Seconds = 0.0
    version: Annotated[int, Meta(ge=-(2**31), le=2**31 - 1)] = 0
    tables: Seq = 0
    identities: Line = ""
    columns: Line = ""
    affinities: Line = ""

    @property
    def short(self) -> str:
        """The digest of the columns of its replicated tables, as people see it."""
        return self.columns[:8]


class ListedNode(msgspec.Struct, frozen=True):
    """A node. ``place``: fingerprint of its file's path and machine; ``seen``: when it last noted that it is there."""

    place: Line = ""
    host: Line = ""
    version: Line = ""
    seen: Seconds = 0.0
    schema: SchemaNote = SchemaNote()


class NodeList(msgspec.Struct, frozen=True):
    """The list. ``forgotten``: when each node was forgotten, which others still find in their history."""

    nodes: Annotated[dict[Name, ListedNode], Meta(max_length=MOST)] = {}
    forgotten: Annotated[dict[Name, Seconds], Meta(max_length=MOST)] = {}


CODEC = Codec("the list of nodes", NodeList, most=1024 * 1024)
FORGOTTEN = Text("the node that was forgotten", r"[A-Za-z0-9_-]{1,64}")
CHANGED = Text("the node whose entry changed", r"[A-Za-z0-9_-]{1,64}")

Alive = Callable[[str], Awaitable[bool]]
Expect = Callable[[], Awaitable[None]]


class Registry:
    """The list, as the node ``node`` sees and keeps it. ``forgot``: called with a node that was forgotten anywhere."""

    def __init__(
        self, pointers: PointerStore, peers: NatsPeers, node: str, entry: ListedNode, forgot: Callable[[str], None]
    ) -> None:
        self._pointers = pointers
        self._peers = peers
        self._node = node
        self._entry = entry
        self._forgot = forgot
        self._roll = NodeList()
        self._unread = 0
        self._due = asyncio.Event()
        self._stale = asyncio.Event()

    async def run(self, alive: Alive, expect: Expect | None = None) -> None:
        """Keep this node on the list, and the list in hand current. ``alive``: returns whether a node answers now;
        ``expect``: called once the list has been read, so that no node is expected that was forgotten.
        """
        async with asyncio.TaskGroup() as group:
            group.create_task(self._peers.listen(TOPIC, self._hear), name="learn which nodes are forgotten")
            changed = self._peers.listen(LISTED, lambda _: self._stale.set(), subscribed=self._stale.set)
            group.create_task(changed, name="learn which nodes have another schema")
            group.create_task(self._follow(expect), name="read the list of nodes")
            group.create_task(self._keep(alive), name="keep this node on the list")

    async def read(self) -> NodeList:
        """Return the list, read now or read last."""
        await self._refreshed()
        return self._roll

    def last(self) -> NodeList:
        """Return the list that was read last."""
        return self._roll

    def noted(self) -> SchemaNote:
        """Return what this node says of its schema; after a start, what it said before."""
        listed = self._roll.nodes.get(self._node, ListedNode()).schema
        return self._entry.schema if self._entry.schema.hash else listed

    def note(self, schema: SchemaNote) -> None:
        """Say so of this node's schema, as soon as the list can be written."""
        self._entry = msgspec.structs.replace(self._entry, schema=schema)
        self._due.set()

    async def forget(self, node: str) -> None:
        """Take ``node`` off the list of every node. Raises StreamError."""
        await self._change(lambda roll: _without(roll, [node]))
        with suppress(StreamError):
            await self._peers.publish(TOPIC, FORGOTTEN.encode(node))
        self._forgot(node)

    async def enrol(self, alive: Alive) -> None:
        """Put this node on the list, and take off what it was called before at this place. Raises StreamError."""
        roll, _ = await self._read()
        before = roll.nodes.get(self._node)
        former = [name for name, entry in roll.nodes.items() if entry.place == self._entry.place and name != self._node]
        gone = [name for name in former if not await alive(name)]

        def enrolled(roll: NodeList) -> NodeList:
            roll = _without(roll, gone)
            if not self._entry.schema.hash and (listed := roll.nodes.get(self._node)) is not None:
                self._entry = msgspec.structs.replace(self._entry, schema=listed.schema)
            me = msgspec.structs.replace(self._entry, seen=time.time())
            return NodeList(roll.nodes | {self._node: me}, _all_but(roll.forgotten, self._node))

        await self._change(enrolled)
        if before is None or self._entry.schema != before.schema:
            with suppress(StreamError):
                await self._peers.publish(LISTED, CHANGED.encode(self._node))
        for name in gone:
            log.info("renamed node %(before)s to %(node)s: forgot the old name", {"before": name, "node": self._node})
            self._forgot(name)

    async def _keep(self, alive: Alive) -> None:
        retry = Retry(log, "writing the list of nodes", Backoff(first=0.5, most=60.0, calm=120.0))
        while True:
            self._due.clear()
            try:
                await self.enrol(alive)
            except StreamError as error:
                await asyncio.sleep(retry.failed(error, time.monotonic()))
            else:
                retry.worked()
                with suppress(TimeoutError):
                    async with asyncio.timeout(EVERY):
                        await self._due.wait()

    async def _follow(self, expect: Expect | None) -> None:
        """Read the list when it changed, and after each reconnect, which may have missed that."""
        while True:
            every, pause = paces(len(self._roll.nodes))
            with suppress(TimeoutError):
                async with asyncio.timeout(every):
                    await self._stale.wait()
            self._stale.clear()
            if not await self._refreshed():
                self._stale.set()
            elif expect is not None:
                await expect()
                expect = None
            await asyncio.sleep(pause)

    async def _refreshed(self) -> bool:
        """Read the list; return False where NATS can't be asked now."""
        with suppress(StreamError, TimeoutError):
            async with asyncio.timeout(READ_SECONDS):
                await self._read()
                return True
        return False

    async def _change(self, change: Callable[[NodeList], NodeList]) -> None:
        for _ in range(TRIES):
            roll, revision = await self._read()
            changed = _fitting(change(roll))
            if await self._pointers.set_pointer(KEY, CODEC.encode(changed), revision=revision):
                self._roll = changed
                return
        raise StreamError(f"other nodes changed the list of nodes {TRIES} times during this change", advice="try again")

    async def _read(self) -> tuple[NodeList, int]:
        """Return the list and its revision; one that can't be read is empty, and is replaced by a node that runs."""
        found = await self._pointers.pointer(KEY)
        if found is None:
            return NodeList(), 0
        try:
            self._roll = CODEC.decode(found[0])
        except ForeignError as error:
            if self._unread != found[1]:
                log.warning("replacing the list of nodes, which counts as absent: %(error)s", {"error": error.message})
            self._unread, self._roll = found[1], NodeList()
            self._due.set()
        return self._roll, found[1]

    def _hear(self, data: bytes) -> None:
        with suppress(ForeignError):
            node = FORGOTTEN.decode(data)
            self._stale.set()
            if node != self._node:
                self._forgot(node)


def paces(nodes: int) -> tuple[float, float]:
    """Return after how many seconds a node of a cluster of ``nodes`` reads the list at the latest, and how many
    seconds it waits between two reads.
    """
    return min(EVERY, max(REFRESH_SECONDS, nodes / 2)), max(REFRESH_PAUSE, nodes / READS_A_SECOND)


def _without(roll: NodeList, names: list[str]) -> NodeList:
    """Return ``roll`` with ``names`` forgotten."""
    return NodeList(_all_but(roll.nodes, *names), roll.forgotten | dict.fromkeys(names, time.time()))


def _fitting(roll: NodeList) -> NodeList:
    """Return the newest of ``roll`` that fit; those from the future go first: they are made up."""
    now = time.time()

    def when(seconds: float) -> float:
        return seconds if seconds <= now else 0.0

    for most in (MOST >> step for step in range(MOST.bit_length())):
        nodes = _newest(roll.nodes, lambda entry: when(entry.seen), most)
        roll = NodeList(nodes, _newest(roll.forgotten, when, most))
        if len(CODEC.encode(roll)) <= MOST_BYTES:
            break
    return roll


def _all_but(found: dict[str, V], *names: str) -> dict[str, V]:
    return {name: value for name, value in found.items() if name not in names}


def _newest(found: dict[str, V], when: Callable[[V], float], most: int) -> dict[str, V]:
    return dict(sorted(found.items(), key=lambda item: when(item[1]))[-most:])
