"""What a node says of its schema, to people and to the other nodes, and what it is asked to do with what waits.

Invariant: what is said of this node is never older than `EVERY`, once the node has noticed a commit; of a node that
does not answer, the cluster's list of nodes says what it had last.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from harmonylite.db.replica import Replica
from harmonylite.db.schema_facts import SchemaFacts, moved, read_facts
from harmonylite.db.sqlite.thread import SqliteThread
from harmonylite.errors import (
    DatabaseBusyError,
    DatabaseError,
    NotFoundError,
    NotRunningError,
    PoisonError,
    StreamError,
)
from harmonylite.foreign import Codec, Line, Text
from harmonylite.node.control import ASK_SLOW, Control, Parts
from harmonylite.node.registry import ListedNode, NodeList, SchemaNote
from harmonylite.ports import ShardStream
from harmonylite.replication.row_history import change_sets
from harmonylite.schema.section import SECTION
from harmonylite.status import NodeStatus
from harmonylite.ticks import tick
from harmonylite.wire import SECTIONS

EVERY = 1.0
"""Seconds between two checks whether the schema changed, after a commit or a fold."""
OFTEN = 5.0
"""Seconds between checks while a change waits, or while the node does not replicate yet."""
RARELY = 60.0
"""Seconds between checks otherwise."""
RETRY = 5.0
"""Seconds between two attempts to make what waits; more if an attempt takes long."""
PAUSE = 20
"""The pause after such an attempt, in multiples of its duration."""
TOPIC = "schema"
ASK_SECONDS = 5.0
"""How long another node has to return its schema."""
MOST_BYTES = 8 * 1024 * 1024
"""Size of a schema that another node may answer with."""


class SchemaObject(msgspec.Struct, frozen=True):
    """One object of a schema with its definition."""

    kind: Line
    name: Annotated[str, Meta(max_length=4096)]
    sql: Annotated[str, Meta(max_length=1024 * 1024)]


class NodeSchema(msgspec.Struct, frozen=True):
    """A node's schema."""

    hash: Line = ""
    version: Annotated[int, msgspec.Meta(ge=-(2**31), le=2**31 - 1)] = 0
    objects: list[SchemaObject] = []


CODEC = Codec("the schema of a node", NodeSchema, most=MOST_BYTES)
ASKED = Text("the node whose schema is asked for", r"[A-Za-z0-9_-]{1,64}")


class Schemas:
    """Implements `harmonylite.web.schema_routes.SchemaActions`. ``streams``: set by the node as it starts."""

    def __init__(self, status: NodeStatus, thread: SqliteThread, parts: Parts, control: Control) -> None:
        self._status = status
        self._thread = thread
        self._parts = parts
        self._control = control
        self._facts: SchemaFacts | None = None
        self._moved: tuple[int, int] | None = None
        self._waiting: list[dict[str, Any]] = []
        self._read_for: tuple[object, ...] = ()
        self._read_at = 0.0
        self._retry_at = 0.0
        self._said: tuple[object, ...] = ()
        self.streams: Sequence[ShardStream] = ()

    async def run(self) -> None:
        """Keep the status, and this node's entry in the cluster's list, up to date; answer what others ask."""
        async with asyncio.TaskGroup() as group:
            if self._parts.peers is not None:
                group.create_task(
                    self._parts.peers.serve(TOPIC, ASKED.decode, self._answer), name="answer about schemas"
                )
            while True:
                with suppress(DatabaseError, DatabaseBusyError):
                    await self._refresh(again=False)
                await tick(EVERY)

    def _replica(self) -> Replica:
        if self._parts.replica is None:
            raise NotRunningError("the database is not open yet")
        return self._parts.replica

    async def _refresh(self, *, again: bool = True) -> SchemaFacts:
        """Bring the status up to date; without ``again`` the files are read only where they may have moved."""
        replica, counters = self._replica(), self._status.counters
        seen = (replica, counters.captures, counters.folded_change_sets, self._status.waits_for_schema)
        now = time.monotonic()
        facts = self._facts
        pause = OFTEN if self._waiting or not self._status.caught_up else RARELY
        if facts is None or again or seen != self._read_for or now - self._read_at >= pause - EVERY / 2:
            facts = await self._thread.run(self._read, replica)
            self._read_for, self._read_at = seen, now
        registry = self._parts.registry
        listed = registry.last() if registry is not None else None
        why = self._status.part("merge").reason
        said = (facts, self._waiting, listed, tuple(self._status.peers), why, self._read_at)
        if said != self._said:
            self._say(facts)
            self._said = said
        return facts

    def _say(self, facts: SchemaFacts) -> None:
        """Show what is known of the schemas in the status."""
        waiting = self._waiting
        noted = self._noted(facts)
        self._share(facts)
        merging, paused = self._status.part("merge"), self._status.waits_for_schema
        many = "1 schema change waits" if len(waiting) == 1 else f"{len(waiting)} schema changes wait"
        pending = f"{many} for `harmonylite schema accept`" if waiting else ""
        self._status.schema_state = {
            "hash": facts.hash,
            "previous_hash": noted.previous,
            "since": noted.since,
            "version": facts.version,
            "tables": facts.tables,
            "paused": paused,
            "why": merging.reason if paused else pending,
            "waiting": waiting,
            **self._others(facts),
        }

    def _read(self, replica: Replica) -> SchemaFacts:
        """Return the schema, and note what waits; runs on the SQLite thread."""
        began = time.monotonic()
        if self._waiting and began >= self._retry_at:
            with suppress(DatabaseBusyError):
                replica.retry_schema()
            self._retry_at = time.monotonic() + max(RETRY, PAUSE * (time.monotonic() - began))
        now = moved(replica.connection)
        if self._facts is None or now != self._moved:
            shapes = [table.shape for table in replica.tables.values()]
            self._facts, self._moved = read_facts(replica.connection, replica.options.rules, shapes), now
        self._waiting = [asdict(change) for change in replica.waiting_schema()]
        return self._facts

    def _noted(self, facts: SchemaFacts) -> SchemaNote:
        """Return what the list says of this node's schema, which is brought up to ``facts``."""
        registry = self._parts.registry
        noted = registry.noted() if registry is not None else SchemaNote()
        now = {"identities": facts.identities, "columns": facts.columns, "affinities": facts.affinities}
        if noted.hash != facts.hash:
            new = SchemaNote(facts.hash, noted.hash, time.time(), facts.version, facts.tables, **now)
        else:
            new = msgspec.structs.replace(noted, **now)
        if registry is None or new == noted:
            return noted
        registry.note(new)
        return new

    def _share(self, facts: SchemaFacts) -> None:
        """Show the digests of this node and, as the list has them, of its peers."""
        self._status.schema = facts.columns[:8]
        listed = self._parts.registry.last().nodes if self._parts.registry is not None else {}
        for name, peer in self._status.peers.items():
            peer.schema = listed.get(name, ListedNode()).schema.short

    def _others(self, facts: SchemaFacts) -> dict[str, list[str]]:
        """Return the nodes that have this schema and other identities, and these columns with other affinities."""
        registry = self._parts.registry
        notes = {name: entry.schema for name, entry in registry.last().nodes.items()} if registry is not None else {}
        identities = (n for n, it in notes.items() if it.hash == facts.hash and it.identities != facts.identities)
        affinities = (n for n, it in notes.items() if it.columns == facts.columns and it.affinities != facts.affinities)
        return {"other_identities": sorted(identities), "other_affinities": sorted(affinities)}

    async def _answer(self, asked: str) -> bytes | None:
        if asked != self._status.node_id:
            return None
        with suppress(DatabaseError, DatabaseBusyError, NotRunningError):
            await self._refresh()  # who asks may have received already what this node did a moment ago
        if self._facts is None:
            return None
        objects = [SchemaObject(*each) for each in self._facts.objects]
        return CODEC.encode(NodeSchema(self._facts.hash, self._facts.version, objects))

    # questions of a person ---------------------------------------------------------------------------------------

    async def schema(self) -> dict[str, Any]:
        """Return this node's schema: hash, the one before, since when, what waits, and why."""
        await self._refresh()
        return {"node_id": self._status.node_id, "state": "this node", **self._status.schema_state}

    async def cluster(self) -> Sequence[dict[str, Any]]:
        """Return the same of every node that the cluster knows; of one that does not answer, what it listed last.

        ``state``: "up" also for one that sends heartbeats and has not answered yet.
        """
        await self._refresh()
        reports = {str(report["node_id"]): report for report in await self._control.cluster(slow=ASK_SLOW)}
        registry = self._parts.registry
        roll = await registry.read() if registry is not None else NodeList()
        found = []
        for name in sorted(reports.keys() | (roll.nodes.keys() - roll.forgotten.keys())):
            reported = reports.get(name, {}).get("schema_state")
            entry = roll.nodes.get(name, ListedNode()).schema
            alive = name in self._status.peers and self._status.peers[name].state == "up"
            state = "this node" if name == self._status.node_id else "up" if reported or alive else "unknown"
            listed = {"hash": entry.hash, "previous_hash": entry.previous, "since": entry.since}
            why = "it has not answered yet" if alive else ""
            listed |= {"version": entry.version, "tables": entry.tables, "paused": None, "why": why, "waiting": []}
            found.append({"node_id": name, "state": state} | (reported or listed))
        return found

    async def objects(self, node: str) -> dict[str, Any]:
        """Return the definitions on this node (``here``) and on ``node`` (``there``). Raises NotFoundError."""
        facts = await self._refresh()
        if self._parts.peers is None:
            raise NotRunningError("the node is not connected to the others yet")
        here = [list(each) for each in facts.objects]
        if node == self._status.node_id:
            return {"node": node, "here": here, "there": here, "versions": [facts.version] * 2}
        answered = await self._parts.peers.ask(TOPIC, ASKED.encode(node), CODEC.decode, seconds=ASK_SECONDS, expect=1)
        if not answered.answers:
            raise NotFoundError(
                f"node {node} does not answer", advice="see which do: harmonylite schema status -cluster"
            )
        there = answered.answers[0]
        listed = [[each.kind, each.name, each.sql] for each in there.objects]
        return {"node": node, "here": here, "there": listed, "versions": [facts.version, there.version]}

    async def accept(self) -> dict[str, Any]:
        """Make what waits; return what was made, and what waits still."""
        replica = self._replica()
        if self._parts.engine is None:
            raise NotRunningError("the node is not replicating yet")
        made = await self._thread.run(replica.accept_schema)
        self._facts = None
        await self._refresh()
        return {"made": made, "waiting": self._status.schema_state["waiting"]}

    async def changes(self, limit: int) -> dict[str, Any]:
        """Return the newest schema changes in the streams, the oldest first: who changed what, and when."""
        if not self.streams:
            raise NotRunningError("the node is not connected to the streams yet")
        stream, left_out = self.streams[0], list[PoisonError]()
        info = await stream.info()
        found: list[dict[str, Any]] = []
        async for fragment in change_sets(stream, info.first, info.last, len(self.streams), left_out):
            if fragment.kind not in SECTIONS:
                continue
            about = {"node": fragment.id.node, "at": fragment.stored, "shard": fragment.shard, "seq": fragment.seq}
            try:
                parts = [part for part in next(iter(fragment.decoded()), []) if part.table == SECTION]
            except (PoisonError, StreamError) as error:
                found.append(about | {"changes": [], "reason": str(error)})
                continue
            lines = [dict(zip(part.columns, row, strict=False)) for part in parts for row in part.inserts]
            found.append(
                about | {"changes": [{k: each.get(k) for k in ("kind", "name", "old", "new", "was")} for each in lines]}
            )
        return {"first": info.first, "changes": found[-limit:]}
