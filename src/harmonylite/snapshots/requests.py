"""How a node asks the others for a snapshot, and whether its store is the cluster's.

Invariant: a request makes at most one node save at most one snapshot, and one that did not help is not repeated: it
names the newest snapshot, which is of no use where it comes from, and for a while no node saves another one because of
that. Nothing is saved for a node whose store lacks what another node's store has: its configuration names another one.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Annotated

import msgspec
from msgspec import Meta

from harmonylite.errors import StreamError
from harmonylite.foreign import Codec, Line, Name
from harmonylite.ports import Peers
from harmonylite.snapshots.lease import Lease
from harmonylite.snapshots.repository import PASSING, SnapshotRepository
from harmonylite.status import NodeStatus

log = logging.getLogger(__name__)

TOPIC = "snapshot-request"
SAVE = 10.0
"""Seconds that another node has to save a snapshot when it is asked for one."""
ASK = 2.0
"""Seconds that another node has to check whether its store has a snapshot."""
PAUSE, LONGEST = 5.0, 300.0
"""Seconds before another snapshot is asked for, or saved for the same node, where the last one was of no use to it: at
first, and after many in a row.
"""
TURN = 1.0
"""Nodes that don't hold the lease wait for up to this many seconds before they save, so that they don't all do."""
REMEMBERED = 64
"""Nodes of which is remembered what was saved for them."""


Unusable = Annotated[str, Meta(max_length=128, pattern=r"\A[0-9A-Za-z_-]*\Z")]
"""The name of a snapshot, or ""."""


class Request(msgspec.Struct):
    """``node``, whose snapshots are in ``store``, can't use the newest one, ``unusable`` ("": it found none).

    ``missing``: its store doesn't have that one. ``nodes``: who may save one, whatever there is; empty: the holder of
    the lease, or, with ``anyone``, every node. ``only_look``: nothing is to be saved.
    """

    node: Name
    store: Line
    unusable: Unusable = ""
    missing: bool = False
    nodes: Annotated[list[Name], Meta(max_length=1024)] = []
    anyone: bool = msgspec.field(default=False, name="anybody")
    only_look: bool = False


class Reply(msgspec.Struct):
    """``saved``: the snapshot to use, "" where ``node`` has none to offer; ``fresh``: it was saved for this request.
    ``has``: the store of ``node`` has the one that the other one's lacks.
    """

    node: Name
    store: Line
    saved: Unusable = ""
    fresh: bool = False
    has: bool = False


REQUEST = Codec("a request for a snapshot", Request)
REPLY = Codec("an answer to a request for a snapshot", Reply)


class Requests:
    """Asks for this node. ``peers``: None until they can be reached; ``repository`` and ``lease`` likewise."""

    def __init__(
        self,
        status: NodeStatus,
        peers: Callable[[], Peers | None],
        repository: Callable[[], SnapshotRepository | None],
        lease: Callable[[], Lease | None],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._status = status
        self._peers = peers
        self._repository = repository
        self._lease = lease
        self._clock = clock
        self._part = status.part("snapshots")
        self._no_use = NoUse()
        self._unanswered = 0
        self._said = self._said_of = ""

    async def request_snapshot(self) -> bool:
        """Ask for a snapshot in place of the newest one, which is of no use here; True when a node could answer.

        Where the last answer did not help, no node is asked again before another snapshot is the newest, or for a
        while.
        """
        peers, repository, lease = self._peers(), self._repository(), self._lease()
        if peers is None or repository is None or lease is None:
            return False
        with suppress(*PASSING):
            newest = await repository.newest()
            unusable = newest.name if newest is not None else ""
            if self._no_use.holds(unusable, self._clock()):
                if self._said:
                    self._part.failed(self._said)
                return True
            request = Request(
                self._status.node_id,
                repository.catalog.place,
                unusable,
                unusable in repository.missing,
                # no node answers for a lease that is free, or that an earlier process of this node holds
                anyone=self._unanswered > 0 or not await lease.is_others(),
            )
            replies = await _ask(peers, request, seconds=SAVE)
            self._unanswered = 0 if replies else self._unanswered + 1
            if not replies:
                return False
            self._note_replies(request, replies)
            return True
        return False

    def _note_replies(self, request: Request, replies: Sequence[Reply]) -> None:
        other = next((reply for reply in replies if reply.has), None)
        offered = next((reply for reply in replies if reply.saved), None)
        if other is not None:
            if request.unusable != self._said_of:  # another node may answer the next time; the cause is the same one
                self._said_of, self._said = request.unusable, other_store(request.unusable, request.store, other)
            self._part.failed(self._said)
        if offered is None:
            self._no_use.note(request.unusable, self._clock())
        elif offered.fresh:
            self._no_use.note(offered.saved, self._clock())


class NoUse:
    """A snapshot that may or may not help. The pause grows with each one in a row that did not."""

    def __init__(self) -> None:
        self._name: str | None = None
        self._until = 0.0
        self._pause = PAUSE

    def note(self, name: str, now: float) -> None:
        """Give ``name`` until the pause is over."""
        self._name, self._until = name, now + self._pause
        self._pause = min(LONGEST, self._pause * 2)

    def holds(self, name: str, now: float) -> bool:
        """Return whether ``name`` is that one, and did not help; another name begins with the first pause again."""
        if name != self._name:
            self._pause = PAUSE
            return False
        return now < self._until


async def ask_nodes(peers: Peers, nodes: Sequence[str], *, me: str, seconds: float = SAVE) -> list[str]:
    """Have one of ``nodes`` save a snapshot; return the names of those saved. Raises StreamError."""
    replies = await _ask(peers, Request(me, "", nodes=list(nodes)), seconds=seconds)
    return [reply.saved for reply in replies if reply.saved]


async def who_has(peers: Peers, repository: SnapshotRepository, name: str, *, me: str) -> Reply | None:
    """Return what a node says whose store has snapshot ``name``, which this node's lacks; None: no node says so."""
    request = Request(me, repository.catalog.place, name, missing=True, only_look=True)
    with suppress(StreamError):
        return next((reply for reply in await _ask(peers, request, seconds=ASK) if reply.has), None)
    return None


def other_store(name: str, mine: str, other: Reply) -> str:
    """Return the sentence on a store that is not the cluster's."""
    alike = " (the same words on two machines: it has to be one place)" if mine == other.store else ""
    return (
        f"snapshot {name}, the cluster's newest, is not in this node's store, {mine}, but in that of node {other.node},"
        f" {other.store}{alike}: set [snapshot] of this node as there"
    )


async def _ask(peers: Peers, request: Request, *, seconds: float) -> list[Reply]:
    """Return the replies up to the first decisive one."""

    def settled(found: list[Reply]) -> bool:
        return any(reply.saved or reply.has for reply in found)

    return (await peers.ask(TOPIC, REQUEST.encode(request), REPLY.decode, seconds=seconds, enough=settled)).answers


class Answering:
    """Answers such requests of other nodes."""

    def __init__(
        self,
        repository: SnapshotRepository,
        lease: Lease,
        status: NodeStatus,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._repository = repository
        self._lease = lease
        self._status = status
        self._clock = clock
        self._served: dict[str, NoUse] = {}
        self._warned: set[tuple[str, str]] = set()

    async def answer(self, request: Request) -> bytes | None:
        """Answer one request; None when that is another node's turn."""
        if request.node == self._status.node_id or not self._status.caught_up:
            return None
        with suppress(*PASSING):
            reply = await self._reply(request)
            return REPLY.encode(reply) if reply is not None else None
        return None

    async def _reply(self, request: Request) -> Reply | None:
        mine = Reply(self._status.node_id, self._repository.catalog.place)
        if request.nodes:
            return await self._saved(request, mine) if mine.node in request.nodes else None
        if request.missing and await self._repository.catalog.has(request.unusable):
            self._warn(request, mine)
            mine.has = True
            return mine
        if request.only_look or not (self._lease.held or request.anyone):
            return None
        if not self._lease.held:
            await asyncio.sleep(random.uniform(0.0, TURN))
        newest = await self._repository.newest()
        if newest is not None and newest.name not in {request.unusable, *self._repository.damaged}:
            mine.saved = newest.name
            return mine
        if self._of(request.node).holds(request.unusable, self._clock()):
            log.warning(
                "saving nothing: snapshot %(snapshot)s did not help node %(node)s, which asks again",
                {"snapshot": request.unusable, "node": request.node},
            )
            return mine
        return await self._saved(request, mine)

    async def _saved(self, request: Request, mine: Reply) -> Reply:
        saved = await self._repository.save()
        if saved is not None:
            mine.saved, mine.fresh = saved.name, True
            self._of(request.node).note(saved.name, self._clock())
        return mine

    def _of(self, node: str) -> NoUse:
        if node not in self._served and len(self._served) >= REMEMBERED:
            self._served.pop(next(iter(self._served)))
        return self._served.setdefault(node, NoUse())

    def _warn(self, request: Request, mine: Reply) -> None:
        if (request.node, request.store) not in self._warned and len(self._warned) < REMEMBERED:
            self._warned.add((request.node, request.store))
            log.warning(
                "found another store in [snapshot] of node %(node)s: it does not find snapshot %(snapshot)s in its"
                " store, %(theirs)s; this node has it in %(store)s",
                {
                    "node": request.node,
                    "snapshot": request.unusable,
                    "theirs": request.store,
                    "store": mine.store,
                },
            )
