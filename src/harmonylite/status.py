"""What the parts of a node report: one small object that health, metrics, the page and the CLI all read.

Invariant: writers only assign plain values and never wait; readers take `NodeStatus.report` and never reach further.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from harmonylite.errors import StreamError
from harmonylite.histogram import Histogram
from harmonylite.peer import Peer
from harmonylite.progress import BEHIND_SECONDS, Pace, ShardStatus
from harmonylite.wakeup import Wakeup

State = Literal["starting", "ok", "waiting", "failed", "stopped"]

SCHEMA_WARNINGS = {
    "other_identities": "{} give tables other identities than this node; configure the same everywhere",
    "other_affinities": (
        "{} declare columns with other affinities than this node: one value may have two types and compare unlike;"
        " `harmonylite schema diff NODE` shows which, declare them alike everywhere"
    ),
}
"""Warnings of `NodeStatus.schema_state`, with the nodes that they are of."""
LEFT_OUT = "skipped on this node by `harmonylite skip`: {}; `harmonylite verify -repair` compares and repairs"
"""The warning about messages, each as shard:sequence, that the mirror lacks."""

NATS = "nats"
"""The part that keeps the connection to NATS."""

SHOWN_AFTER = 5.0
"""Seconds after which a sentence on what is waited for also says for how long."""


class PartEvent(NamedTuple):
    """What happened to a part: ``text`` names values of ``fields`` as ``%(name)s``."""

    text: str
    fields: Mapping[str, object]
    warning: bool

    @property
    def sentence(self) -> str:
        """The text with its values."""
        return self.text % self.fields


@dataclass(slots=True)
class Part:
    """State of one part. ``reason``: why it waits or failed, a sentence for a person; "" when all is well.

    ``behind``: the part whose trouble this one's wait may only be a consequence of, "" = none. ``events``: those that
    the wait log has not logged yet.
    """

    name: str
    state: State = "starting"
    reason: str = ""
    since: float = field(default_factory=time.monotonic)
    behind: str = ""
    events: list[PartEvent] = field(default_factory=list)

    def set(self, state: State, reason: str = "", behind: str = "") -> None:
        """Enter ``state``; the time of entering is kept while the state stays the same, whatever the reasons were."""
        if state != self.state:
            self.since = time.monotonic()
        self.state, self.reason, self.behind = state, reason, behind

    @property
    def stuck(self) -> bool:
        """True while it waits or has failed."""
        return self.state in ("waiting", "failed")

    def ok(self) -> None:
        """Everything works."""
        self.set("ok")

    def waiting(self, reason: str, error: BaseException | None = None) -> None:
        """It can't continue now, but will by itself when ``reason`` is gone. ``error``: shows whether NATS is the
        reason.
        """
        while error is not None and not isinstance(error, StreamError):
            error = error.__cause__
        self.set("waiting", reason, NATS if error is not None else "")

    def failed(self, reason: str) -> None:
        """It needs a person."""
        self.set("failed", reason)

    def event(self, text: str, *, warning: bool = False, **fields: object) -> None:
        """Have the wait log write ``text``, within a second; the state stays.

        ``fields``: what ``text`` names as ``%(name)s``; without any it is taken literally.
        """
        if not fields:
            text, fields = "%(what)s", {"what": text}
        self.events.append(PartEvent(text, fields, warning))

    def sentence(self) -> str:
        """Return what is waited for or failed, and for how long once that is worth a word."""
        seconds = time.monotonic() - self.since
        return f"{self.name}: {self.reason}" + (f" (for {seconds:.0f} s)" if seconds >= SHOWN_AFTER else "")


@dataclass(slots=True)
class Counters:
    """What was done since the process started. All only grow."""

    published_change_sets: int = 0
    published_rows: int = 0
    published_messages: int = 0
    published_bytes: int = 0
    publish_failures: int = 0
    folded_change_sets: int = 0
    folded_rows: int = 0
    merged_rows: int = 0
    conflicts: int = 0
    captures: int = 0
    looks: int = 0
    unread_questions: int = 0
    unread_answers: int = 0
    dropped_questions: int = 0
    snapshots_saved: int = 0
    snapshots_restored: int = 0
    verify_runs: int = 0
    verify_differences: int = 0
    passed_over_change_sets: int = 0
    given_up_change_sets: int = 0
    foreign_messages: int = 0
    feed_events: int = 0


@dataclass(slots=True)
class NatsStatus:
    """The way to NATS, which all databases of a process share. Fields as in `NodeStatus`; ``url``: of the server that
    the link leads to; ``reconnects``: times that it was made again; ``restarts``: of the embedded server.
    """

    connected: bool = False
    url: str = ""
    figures: dict[str, float] = field(default_factory=dict)
    servers: str = ""
    reconnects: int = 0
    restarts: int = 0


def _of_nats(name: str) -> Any:
    """Return a property of `NodeStatus` that is a field of its `NatsStatus`."""
    return property(lambda status: getattr(status.nats, name), lambda status, value: setattr(status.nats, name, value))


@dataclass(slots=True)
class NodeStatus:
    """Everything that a node says of itself.

    ``pending_rows``: rows whose key is logged and not published and ordered yet. ``held_rows``: rows of the mirror held
    back from the database. ``unfinished_change_sets``: of others and its own, in the streams without their last message
    on every shard, as counted once a second. ``last_*``: seconds since the epoch, 0 = never. ``caught_up``: every shard
    was folded to its end at least once since the start and is not lagging now. ``waits_for_schema``: what comes next
    needs a table or column that the database does not have. ``comes_back``: the database was opened as a file that is
    older than what this node knew, a backup for example: until it has caught up, no one is to write on top of it.
    ``server``: figures of the embedded nats-server by name, as last read; empty without one. ``servers``: a sentence on
    which servers of its cluster are here. ``schema_state``: see `harmonylite.node.schemas`. ``schema``: digest of the
    replicated tables and their columns. ``page``: where others reach this node's page, "" = nowhere. ``snapshot_at``:
    when the newest snapshot was saved, 0 = none is known. ``verified``: when this node was last compared, and what came
    of it. ``peers``: the other nodes, by id. ``joined``: the database has been part of the cluster since the start.
    ``progress``: what is carried to or from the store of snapshots now, bytes so far, and bytes in all. ``behind``:
    which part always depends on which other one. ``elsewhere``: parts that are logged for all databases at once.
    """

    node_id: str = ""
    version: str = ""
    db_path: str = ""
    started_wall: float = field(default_factory=time.time)
    started: float = field(default_factory=time.monotonic)
    parts: dict[str, Part] = field(default_factory=dict)
    shards: dict[int, ShardStatus] = field(default_factory=dict)
    peers: dict[str, Peer] = field(default_factory=dict)
    counters: Counters = field(default_factory=Counters)
    latency: Histogram = field(default_factory=Histogram)
    lock_hold: Histogram = field(default_factory=Histogram)
    poll_time: Histogram = field(default_factory=Histogram)
    capture_time: Histogram = field(default_factory=Histogram)
    db_connected: bool = False
    nats: NatsStatus = field(default_factory=NatsStatus)
    schema: str = ""
    page: str = ""
    verified: tuple[float, str] = (0.0, "")
    snapshot_at: float = 0.0
    cdc_installed: bool = False
    comes_back: bool = False
    tables: tuple[str, ...] = ()
    warnings: dict[str, str] = field(default_factory=dict)
    stream_warnings: tuple[str, ...] = ()
    pending_rows: int = 0
    held_rows: int = 0
    left_out: tuple[str, ...] = ()
    unfinished_change_sets: int = 0
    joined: bool = False
    caught_up: bool = False
    waits_for_schema: bool = False
    schema_state: dict[str, Any] = field(default_factory=dict)
    last_replicated: float = 0.0
    last_published: float = 0.0
    stopping: bool = False
    region: dict[str, Any] = field(default_factory=dict)
    progress: tuple[str, int, int] | None = None
    pace: Pace = field(default_factory=Pace)
    behind: dict[str, str] = field(default_factory=dict)
    elsewhere: tuple[str, ...] = ()
    moved: Wakeup = field(default_factory=Wakeup)
    """Notified when positions moved, and when the node caught up."""

    def begin(self) -> None:
        """Forget how the node was that ran before over the same files; counters only grow."""
        self.parts, self.shards, self.behind, self.elsewhere = {}, {}, {}, ()
        self.joined = self.caught_up = self.comes_back = self.waits_for_schema = self.stopping = False
        self.started, self.started_wall = time.monotonic(), time.time()

    def share(self, nats: NodeStatus, parts: tuple[str, ...]) -> None:
        """Show the process's way to NATS, of which ``nats`` says all, as this database's own."""
        self.nats = nats.nats
        self.elsewhere = parts
        self.parts |= {name: nats.part(name) for name in parts}
        self.behind |= nats.behind

    nats_connected = _of_nats("connected")
    nats_server = _of_nats("url")
    server = _of_nats("figures")
    servers = _of_nats("servers")

    def part(self, name: str) -> Part:
        """Return the part called ``name``, made on first use."""
        if name not in self.parts:
            self.parts[name] = Part(name)
        return self.parts[name]

    def shard(self, shard: int) -> ShardStatus:
        """Return the state of ``shard``, made on first use."""
        if shard not in self.shards:
            self.shards[shard] = ShardStatus(shard)
        return self.shards[shard]

    @property
    def all_warnings(self) -> dict[str, str]:
        """What a person should check, by topic: tables, and streams whose settings are not the configured ones."""
        streams = {"streams": "; ".join(self.stream_warnings)} if self.stream_warnings else {}
        skips = {"skip": LEFT_OUT.format(", ".join(self.left_out))} if self.left_out else {}
        region = {"region": self.region["note"]} if self.region.get("note") else {}
        return dict(sorted({**self.warnings, **self._of_schema(), **streams, **region, **skips}.items()))

    def _of_schema(self) -> dict[str, str]:
        found = {key: self.schema_state.get(key) for key in SCHEMA_WARNINGS}
        return {key: SCHEMA_WARNINGS[key].format(", ".join(nodes)) for key, nodes in found.items() if nodes}

    @property
    def waits(self) -> list[str]:
        """What the node waits for or failed at: one sentence a cause, in order of the parts' names."""
        return [
            self.sentence(part) for _, part in sorted(self.parts.items()) if part.stuck and self.cause(part) is part
        ]

    def cause(self, part: Part) -> Part:
        """Return the part whose trouble is the reason of the wait of ``part``; it may be that one itself."""
        found = part
        while (before := self.parts.get(part.behind or self.behind.get(part.name, ""))) is not None:
            found = before if before.stuck else found
            part = before
        return found

    def sentence(self, part: Part) -> str:
        """Return the sentence of ``part``, and which other parts wait because of it."""
        others = [p.name for _, p in sorted(self.parts.items()) if p is not part and p.stuck and self.cause(p) is part]
        return part.sentence() + (f"; waiting for it: {', '.join(others)}" if others else "")

    @property
    def left(self) -> int:
        """Messages in all shards' streams that are not folded yet."""
        return sum(shard.lag for shard in self.shards.values())

    @property
    def catching_up(self) -> dict[str, Any] | None:
        """While the node is behind and nothing is in its way: how many ``messages`` are left, and for how many
        ``seconds`` at the present pace (None: not known yet). None otherwise.
        """
        left, merging = self.left, self.parts.get("merge")
        late = not self.caught_up or any(s.lag_seconds > BEHIND_SECONDS for s in self.shards.values())
        if not left or not late or (merging is not None and merging.state in ("waiting", "failed")):
            return None
        seconds = self.pace.seconds(left, time.monotonic())
        return {"messages": left, "seconds": None if seconds is None else round(seconds, 1)}

    @property
    def healthy(self) -> bool:
        """True when database, triggers and NATS are there, no part failed and none waits for over 15 seconds."""
        there = self.db_connected and self.cdc_installed and self.nats_connected
        return there and not self._stuck and not self.stopping

    @property
    def starting(self) -> bool:
        """True when the node is not healthy because it has not joined yet, and nothing is wrong."""
        return not (self.healthy or self.joined or self._stuck or self.stopping)

    @property
    def _stuck(self) -> bool:
        now = time.monotonic()
        return any(p.state == "failed" or (p.state == "waiting" and now - p.since > 15.0) for p in self.parts.values())

    @property
    def ready(self) -> bool:
        """True when healthy, caught up and nothing waits."""
        return self.healthy and self.caught_up and not self.waits

    def report(self) -> dict[str, Any]:
        """Return the whole as JSON-able values: the one shape that health, status and the page share."""
        now = time.monotonic()
        return {
            "status": "healthy" if self.healthy else "starting" if self.starting else "unhealthy",
            "ready": self.ready,
            "node_id": self.node_id,
            "version": self.version,
            "db_path": self.db_path,
            "uptime_seconds": round(now - self.started, 3),
            "db_connected": self.db_connected,
            "nats_connected": self.nats_connected,
            "nats_server": self.nats_server,
            "server": dict(self.server),
            "cdc_installed": self.cdc_installed,
            "tables_tracked": len(self.tables),
            "tables": list(self.tables),
            "schema": self.schema,
            "last_replicated_event_timestamp": self.last_replicated,
            "last_published_event_timestamp": self.last_published,
            "caught_up": self.caught_up,
            "catching_up": self.catching_up,
            "pending_rows": self.pending_rows,
            "held_rows": self.held_rows,
            "left_out_messages": len(self.left_out),
            "unfinished_change_sets": self.unfinished_change_sets,
            "foreign_messages": self.counters.foreign_messages,
            "progress": list(self.progress) if self.progress is not None else None,
            "shards": [
                {
                    "shard": s.shard,
                    "position": s.position,
                    "last": s.last,
                    "lag_messages": s.lag,
                    "lag_seconds": round(s.lag_seconds, 3),
                }
                for _, s in sorted(self.shards.items())
            ],
            "peers": [peer.report(now) for _, peer in sorted(self.peers.items())],
            "parts": {
                name: {"state": p.state, "reason": p.reason, "seconds": round(now - p.since, 1)}
                for name, p in sorted(self.parts.items())
            },
            "schema_state": self.schema_state,
            **({"region": self.region} if self.region else {}),
            "waits": self.waits,
            "warnings": self.all_warnings,
            "counters": {name: getattr(self.counters, name) for name in Counters.__slots__}
            | {"reconnects": self.nats.reconnects, "embedded_restarts": self.nats.restarts},
        }
