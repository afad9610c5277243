"""Requests to a running node: from people, through the control API, and from other nodes.

Invariant: a request never makes the node fail; what can't be answered yet is refused with the reason.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

from harmonylite.db.mirror import skipped_messages
from harmonylite.db.replica import Replica
from harmonylite.db.sqlite.thread import SqliteThread
from harmonylite.errors import (
    DatabaseDamagedError,
    NotFoundError,
    NotRunningError,
    SnapshotError,
    VerifyError,
)
from harmonylite.model import Conflict
from harmonylite.nats.peers import NatsPeers
from harmonylite.node import peer_reports, skipped
from harmonylite.node.claim import runs
from harmonylite.node.integrity_check import check_files
from harmonylite.node.members import all_nodes, answers, known_nodes, node_rows, refuse_to_forget
from harmonylite.node.presence import Presence
from harmonylite.node.region import RegionControl
from harmonylite.node.registry import NodeList, Registry
from harmonylite.ports import Answered
from harmonylite.recovery.recover import Recovery
from harmonylite.replication.engine import Engine
from harmonylite.replication.verify import Verifier
from harmonylite.schema.names import advice, find
from harmonylite.snapshots.lease import Lease
from harmonylite.snapshots.repository import SnapshotRepository
from harmonylite.snapshots.requests import Requests
from harmonylite.status import NodeStatus

log = logging.getLogger(__name__)

ASK_AT_ONCE = 0.4
"""Seconds that every node has for an answer about itself."""
ASK = 3.0
"""Seconds for known nodes that did not answer at once."""
ASK_SLOW = 10.0
"""The same, for those of them that send heartbeats, where the answer is to be that of every node that is up."""
BEFORE_FORGETTING = 15.0
"""Seconds that a node's process has for a sign of life before it is forgotten: it may be busy, or far away."""


class Comparison(Protocol):
    """What `harmonylite.node.anti_entropy.AntiEntropy` does for a person; see there."""

    async def settle(self, positions: Mapping[int, int]) -> None: ...

    async def repair(self, right: Sequence[str], seconds: float) -> None: ...


@dataclass(slots=True)
class Parts:
    """The parts of a node that answer requests; None until they exist. The node sets them as it starts."""

    replica: Replica | None = None
    peers: NatsPeers | None = None
    repository: SnapshotRepository | None = None
    lease: Lease | None = None
    engine: Engine | None = None
    verifier: Verifier | None = None
    regional: RegionControl | None = None
    presence: Presence | None = None
    registry: Registry | None = None
    recovery: Recovery | None = None
    anti_entropy: Comparison | None = None

    def in_use(self) -> bool:
        """Return whether another process has a transaction open on the database."""
        return self.replica is not None and self.replica.others.any_open()


class Control:
    """Answers. Implements `harmonylite.web.actions.Actions`."""

    def __init__(self, status: NodeStatus, thread: SqliteThread, parts: Parts) -> None:
        self.parts = parts
        self._status = status
        self._thread = thread
        self.requests = Requests(status, lambda: parts.peers, lambda: parts.repository, lambda: parts.lease)

    # questions of other nodes -----------------------------------------------------------------------------------

    async def who(self, _question: bytes) -> bytes:
        """Answer another node with this one's report."""
        return peer_reports.CODEC.encode(self._status.report())

    # questions of a person (harmonylite.web.actions) ------------------------------------------------------------

    async def status(self) -> dict[str, Any]:
        """Return this node's report."""
        return self._status.report()

    async def cluster(self, *, slow: float = ASK) -> Sequence[dict[str, Any]]:
        """Return the reports of all nodes that answer, and the names of those that don't.

        ``slow``: seconds that nodes which send heartbeats have for their answer.
        """
        if self.parts.peers is None:
            return [self._status.report()]
        known = await self.known()
        # first anyone who answers at once, also those that are not known yet; then those that are known and slow
        first = await self._who(seconds=ASK_AT_ONCE)
        found = peer_reports.unreadable(first.unread) | peer_reports.by_node(first.answers)
        if missing := known - found.keys():
            alive = any(peer.state == "up" for name, peer in self._status.peers.items() if name in missing)

            def enough(answers: Iterable[dict[str, Any]]) -> bool:
                return known <= peer_reports.by_node(answers).keys() | found.keys()

            later = await self._who(seconds=slow if alive else ASK, enough=enough)
            found |= peer_reports.unreadable(later.unread) | peer_reports.by_node(later.answers)
        found[self._status.node_id] = self._status.report()
        for node in known - set(found):
            found[node] = {"node_id": node, "status": "unknown"}
        return [found[node] for node in sorted(found)]

    async def _who(
        self, *, seconds: float, enough: Callable[[list[dict[str, Any]]], bool] | None = None
    ) -> Answered[dict[str, Any]]:
        assert self.parts.peers is not None
        return await self.parts.peers.ask("who", b"", peer_reports.CODEC.decode, seconds=seconds, enough=enough)

    async def known(self) -> set[str]:
        """Return the nodes whose change sets this node remembers or whose heartbeats it receives, and itself; none that
        is forgotten.

        Raises NotRunningError.
        """
        return (await self._known())[0]

    async def _known(self) -> tuple[set[str], NodeList]:
        remembered = await self._thread.run(self._running().nodes)
        roll = await self.parts.registry.read() if self.parts.registry is not None else NodeList()
        return known_nodes(remembered, roll, self._status), roll

    async def nodes(self) -> Sequence[dict[str, Any]]:
        """Return a row for each node that the cluster knows."""
        known, roll = await self._known()
        return node_rows(all_nodes(known, roll, self._status), roll, self._status)

    async def forget(self, node: str) -> dict[str, Any]:
        """Remove a permanently gone node from every node's lists; waits for any sign of life first."""
        known, roll = await self._known()
        if self.parts.registry is None:
            raise NotRunningError("the node is not connected to the others yet")
        listed = all_nodes(known, roll, self._status)
        refuse_to_forget(node, listed, await self.cluster(), self._status.node_id)
        if self.parts.peers is not None and await runs(self.parts.peers, node, seconds=BEFORE_FORGETTING):
            raise answers(node)
        await self.parts.registry.forget(node)
        log.warning("forgot node %(node)s on request", {"node": node})
        return {"forgotten": node}

    async def alive(self, node: str) -> bool:
        """Return whether a process runs under that node id now."""
        return self.parts.peers is not None and await runs(self.parts.peers, node)

    def _running(self) -> Replica:
        if self.parts.replica is None or self.parts.engine is None:
            reasons = "; ".join(self._status.waits) or "it is starting"
            raise NotRunningError(f"the node can't do that yet: {reasons}")
        return self.parts.replica

    async def conflicts(self, table: str | None, limit: int) -> Sequence[Conflict]:
        """Return the newest conflicts. Raises NotFoundError for a table that neither replica nor journal know."""
        replica = self._running()
        found = await self._thread.run(lambda: replica.conflicts(table=table, limit=limit))
        if table is not None and not found and find(table, replica.tables) is None:
            raise NotFoundError(f"there is no replicated table {table}", advice=advice(table, replica.tables))
        return found

    async def verify(self, repair: bool, seconds: float, without: frozenset[str]) -> dict[str, Any]:
        """Compare database, mirror and nodes; ``without``: nodes that are gone and not waited for."""
        replica = self._running()
        if self.parts.verifier is None or self.parts.peers is None:
            raise NotRunningError("the node is not connected to the others yet")
        answering = await self.cluster()
        known = {str(report["node_id"]) for report in answering}
        if strange := sorted(without - known):
            raise NotFoundError(f"no node {strange[0]} is known", advice=f"known are {', '.join(sorted(known))}")
        if self.parts.engine is not None and self._status.caught_up:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds / 3):
                    await self.parts.engine.sender.idle()
        checked = asyncio.create_task(check_files(replica.options, seconds), name="check the files")
        try:
            answer = await self._compared(self.parts.verifier, repair, seconds, known - without)
            answer["files"] = await checked
        finally:
            checked.cancel()
        answer = self._with_files(answer, repair=repair)
        self._status.verified = (time.time(), _verdict(answer))
        return answer

    def _with_files(self, answer: dict[str, Any], *, repair: bool) -> dict[str, Any]:
        """Report on the files; with ``repair``, have damaged ones healed, as at a start."""
        for damaged in (each for each in answer["files"] if each["damage"]):
            answer["agree"] = False
            log.error("found %(file)s damaged: %(reason)s", {"file": damaged["file"], "reason": damaged["damage"]})
            if repair:
                what = f"{damaged['file']} is damaged: {damaged['damage']}"
                self._thread.hurt(DatabaseDamagedError(what, file=damaged["file"]))
        return answer

    async def _compared(self, verifier: Verifier, repair: bool, seconds: float, known: set[str]) -> dict[str, Any]:
        """Compare; with ``repair`` take the majority's mirror where this node's deviates, and compare once more."""
        deadline = time.monotonic() + seconds
        found = await self._settled(verifier, repair, seconds, known)
        own, right, anti_entropy = self._status.node_id, found["majority"], self.parts.anti_entropy
        if not repair or not right or own in right or anti_entropy is None:
            return found
        try:
            await anti_entropy.repair(right, max(1.0, deadline - time.monotonic()))
        except TimeoutError:
            raise VerifyError(
                f"this node's mirror is not repaired within {seconds:.0f} s; it is repaired as soon as may be",
                advice="look again, or give it more time with -timeout",
            ) from None
        again = await self._settled(verifier, True, max(seconds / 2, deadline - time.monotonic()), known)
        return again | {"repaired_from": list(right)}

    async def _settled(self, verifier: Verifier, repair: bool, seconds: float, known: set[str]) -> dict[str, Any]:
        """Compare, and record if this node's mirror is right."""
        found = await verifier.verify(repair=repair, seconds=seconds, known=known)
        if self._status.node_id in found["majority"] and self.parts.anti_entropy is not None:
            await self.parts.anti_entropy.settle({int(shard): seq for shard, seq in found["positions"].items()})
        return found

    async def save_snapshot(self) -> dict[str, Any]:
        """Save a snapshot now."""
        self._running()
        if self.parts.repository is None:
            raise NotRunningError("the node is not connected to the store yet")
        saved = await self.parts.repository.save()
        if saved is None:
            raise SnapshotError("another node saved a newer snapshot meanwhile")
        return {"name": saved.name, "bytes": saved.bytes, "positions": saved.positions}

    async def region(self, action: str, force: bool) -> dict[str, Any]:
        """Make this node's region the primary region ("promote"), or a copy of the primary region again ("rejoin")."""
        if self.parts.regional is None:
            raise NotRunningError("the node is not connected to NATS yet")
        if action == "rejoin":
            return await self.parts.regional.rejoin()
        self._running()
        return await self.parts.regional.promote(self.parts.repository, force=force)

    async def skip(self, shard: int, seq: int) -> dict[str, Any]:
        """Leave out the message before which this node is paused."""
        self._running()
        return skipped.shown(await self._engine().receiver.skip(shard, seq))

    async def left_out(self) -> Sequence[dict[str, Any]]:
        """Return the messages that this node's mirror lacks."""
        replica = self._running()
        return [skipped.shown(entry) for entry in await self._thread.run(skipped_messages.left_out, replica.connection)]

    async def undo_skip(self, shard: int, seq: int) -> dict[str, Any]:
        """Take in a message that was left out."""
        replica, engine = self._running(), self._engine()
        if self.parts.recovery is None:
            raise NotRunningError("the node is not replicating yet")
        return await skipped.undo(replica, self._thread, engine, self.parts.recovery, shard, seq)

    def _engine(self) -> Engine:
        if self.parts.engine is None:
            raise NotRunningError("the node is not replicating yet")
        return self.parts.engine


def _verdict(answer: Mapping[str, Any]) -> str:
    """Return the result of a comparison, as a phrase."""
    if answer["agree"]:
        return "all nodes agree"
    differ = [node["node_id"] for node in answer["nodes"] if not node["agrees"]]
    found = [f"nodes that differ: {', '.join(differ)}"] if differ else []
    found += [] if answer["local"]["equal"] else ["database and mirror differ"]
    found += [f"no answer of {', '.join(answer['silent'])}"] if answer["silent"] else []
    found += [f"{each['file']} is damaged" for each in answer["files"] if each["damage"]]
    return "; ".join(found) or "rows are pending that don't get into the streams"
