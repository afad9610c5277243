"""The checklist's rows: each judges one fact, and says what we recommend and why.

Invariant: pure; a missing fact makes a row "unknown", never "ok".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

from harmonylite.doctor.facts import DiskFacts, Facts, StreamFacts
from harmonylite.doctor.table_rows import autoincrement, keys, left_out, transactions, wal

Level = Literal["ok", "advice", "problem", "unknown"]

CLOCK_SECONDS = 1.0
"""How much clocks may differ. They never decide the order, but the times that people read come from them."""

LEAST_FILES, GOOD_FILES = 1024, 4096
LEAST_FREE, GOOD_FREE = 0.05, 0.15
"""The shares of a volume that must and should be free."""

DAY, HOUR = 86_400.0, 3_600.0
DAYS_BACK = 7
"""Days that the streams should reach back: people notice on Monday a mistake of Friday."""

PASSING = ("tmpfs", "ramfs", "overlay")
"""File systems that lose their content with the machine or the container."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line. ``level``: "advice" is worth considering, a "problem" costs data, time or sleep sooner or later."""

    name: str
    level: Level
    found: str
    recommended: str
    why: str

    def plain(self) -> dict[str, Any]:
        """Return it as JSON-able values."""
        return asdict(self)


def check(facts: Facts) -> list[Row]:
    """Return all rows, in the order in which a person reads them."""
    return [Row(name, *judge(facts)) for name, judge in CHECKS.items()] + [
        Row(f"disk: {disk.what}", *_disk(disk)) for disk in facts.disks
    ]


Judgement = tuple[Level, str, str, str]


def _deployment(facts: Facts) -> Judgement:
    nats = facts.settings.nats
    recommended, why = "an external cluster of 3 servers", "it runs, scales and upgrades independently of the nodes"
    if nats.embedded:
        size = len(nats.cluster_peers) + 1 if nats.cluster_addr else 1
        return "advice", f"embedded, {size} server{'s' if size > 1 else ''}", recommended, why
    servers = facts.nats.servers or len(nats.urls)
    if not facts.nats.servers:
        return "unknown", f"external, {len(nats.urls)} in urls; {facts.nats.error}", recommended, why
    if servers < 3:
        return (
            "advice",
            f"external, {servers} server{'s' if servers > 1 else ''}",
            recommended,
            "one may fail unnoticed",
        )
    if len(nats.urls) < 2:
        return (
            "advice",
            f"external, {servers} servers, 1 in urls",
            "2 or 3 urls",
            "a node starts while that one is down",
        )
    return "ok", f"external, {servers} servers", recommended, why


def _shards(facts: Facts) -> Judgement:
    shards = facts.settings.replication_log.shards
    why = "more writers at a time; the number is fixed, so choose it before the first start"
    return ("ok" if shards >= 4 else "advice"), str(shards), "4 or more where many write", why


def _replicas(facts: Facts) -> Judgement:
    wanted = facts.settings.replication_log.replicas
    recommended, why = "3", "the streams survive the loss of one server, and continue within seconds"
    if not wanted and facts.nats.streams:
        have = min(stream.replicas for stream in facts.nats.streams)
        return ("ok" if have >= 3 else "advice"), f"{have}, as there are servers", recommended, why
    differing = [s for s in facts.nats.streams if s.replicas != wanted]
    if differing:
        found = f"{wanted} configured, stream {differing[0].name} has {differing[0].replicas}"
        return "problem", found, f"{wanted} on every stream", "set update_existing = true once to change the streams"
    if wanted >= 3:
        return "ok", str(wanted), recommended, why
    alone = not wanted or (facts.settings.nats.embedded and not facts.settings.nats.cluster_addr)
    return ("advice" if alone else "problem"), str(wanted) if wanted else "as there are servers", recommended, why


def _storage(facts: Facts) -> Judgement:
    recommended, why = "file (automatic)", "what was acknowledged must survive a restart of NATS"
    if not facts.nats.streams:
        return "unknown", facts.nats.error or "no stream yet", recommended, why
    kinds = sorted({stream.storage for stream in facts.nats.streams})
    return ("ok" if kinds == ["file"] else "problem"), ", ".join(kinds), recommended, why


def _compression(facts: Facts) -> Judgement:
    on = facts.settings.replication_log.compress
    return ("ok" if on else "advice"), "on" if on else "off", "on", "less on the network and on disk"


def _history(facts: Facts) -> Judgement:
    wanted = facts.settings.replication_log.max_entries
    why = "a node that was away for longer than these last needs a snapshot"
    differing = [s for s in facts.nats.streams if s.max_entries != wanted and (s.max_entries or wanted)]
    if differing:
        found = f"{wanted} configured, stream {differing[0].name} keeps {differing[0].max_entries or 'all'}"
        return "problem", found, f"{wanted} on every stream", "set update_existing = true once to change the streams"
    return ("ok" if wanted == 0 or wanted >= 10_000 else "advice"), str(wanted or "all"), "10,000 or more", why


def _going_back(facts: Facts) -> Judgement:
    """Judge how many days the streams reach back at this cluster's rate, by the shard that reaches least."""
    recommended, why = f"{DAYS_BACK} days", "`snapshot restore -at` and `history` reach as far back as the streams"
    paces = [(each, pace) for each in facts.nats.streams if (pace := _a_day(each))]
    if not paces:
        return "unknown", facts.nats.error or "less than an hour of writes so far", recommended, why
    stream, pace = max(paces, key=lambda found: found[1] / (found[0].max_entries or float("inf")))
    reached = f"{(stream.last_at - stream.first_at) / DAY:.1f} days so far, at {pace:,.0f} messages a day"
    if not stream.max_entries:
        return "ok", f"{reached}; all are kept", recommended, why
    days = stream.max_entries / pace
    found = f"{days:,.1f} days: {stream.max_entries:,} messages ({reached})"
    if days >= DAYS_BACK:
        return "ok", found, recommended, why
    wanted = -(-round(DAYS_BACK * pace) // 1000) * 1000
    return "advice", found, f"{recommended}: max_entries = {wanted}", f"{why}; change it with update_existing = true"


def _a_day(stream: StreamFacts) -> float:
    """Return the messages per day of a stream, 0.0 if it is too young."""
    seconds = stream.last_at - stream.first_at
    return (stream.messages - 1) / seconds * DAY if stream.messages > 1 and seconds >= HOUR else 0.0


def _access(facts: Facts) -> Judgement:
    nats = facts.settings.nats
    why = "anyone who reaches NATS without a password can read and change all data"
    if nats.insecure:
        return "problem", "insecure = true", "user_name and user_password, and TLS", why
    secured = bool(nats.user_name or nats.seed_file or nats.creds_file or nats.token.get_secret_value())
    secured |= any("@" in url.get_secret_value() for url in nats.urls) or nats.tls_cert_file is not None
    if nats.embedded and nats.server_config is not None and not secured:
        return "advice", "as server_config says", "credentials before it leaves this machine", why
    if nats.embedded and not secured:
        if nats.cluster_secret_file is not None:
            return "advice", "routes with the cluster's secret, no TLS", "TLS where routes leave this machine", why
        found = "loopback only, generated password" + (" and cluster secret" if nats.cluster_addr else "")
        return "ok", found, "credentials before it leaves this machine", why
    if not secured:
        return "problem", "no credentials", "a user, an NKey or a .creds file", why
    encrypted = nats.tls_ca_file is not None or any(u.get_secret_value().startswith("tls://") for u in nats.urls)
    if not encrypted:
        return "advice", "credentials, no TLS", "tls:// and tls_ca_file", "who listens on the wire reads all data"
    return "ok", "credentials and TLS", "credentials and TLS", why


def _secret_files(facts: Facts) -> Judgement:
    recommended, why = "readable by the node's user alone", "who reads the file is let in as this node: chmod 600"
    if facts.exposed:
        return "advice", f"others can read {', '.join(facts.exposed)}", recommended, why
    return "ok", "no other user can read keys and seeds", recommended, why


def _clock(facts: Facts) -> Judgement:
    recommended = f"within {CLOCK_SECONDS:g} s"
    why = "no conflict is decided by clocks, but latencies, times in the journal and certificates are"
    if not facts.nats.streams:
        return "unknown", facts.nats.error or "no stream to ask", recommended, why
    off = facts.nats.clock_offset
    found = f"{abs(off):.2f} s {'behind' if off > 0 else 'ahead of'} the NATS server"
    return ("ok" if abs(off) <= CLOCK_SECONDS else "problem"), found, recommended, why


def _descriptors(facts: Facts) -> Judgement:
    files = facts.descriptors
    level: Level = "problem" if files < LEAST_FILES else "advice" if files < GOOD_FILES else "ok"
    why = "files and connections of node and server count; LimitNOFILE= in a systemd unit, ulimit -n elsewhere"
    return level, f"{files:,}", f"{GOOD_FILES:,} or more", why


def _running(facts: Facts) -> Judgement:
    why = "a node that waits says for what; `harmonylite status` shows more"
    if facts.report is None:
        return "unknown", "no node runs here", "running and ready", "some rows need the running node"
    if facts.report.get("ready"):
        return "ok", "ready", "ready", why
    waits = "; ".join(facts.report.get("waits") or []) or "not caught up yet"
    return "problem", waits, "ready", why


def _nodes(facts: Facts) -> Judgement:
    recommended, why = "3 or more, all answering", "data lives on as long as one node does"
    if not facts.nodes:
        return "unknown", "no node runs here" if facts.report is None else "it does not say", recommended, why
    silent = sorted(str(node["node_id"]) for node in facts.nodes if node.get("status") == "unknown")
    if silent:
        return "problem", f"{len(facts.nodes)}, silent: {', '.join(silent)}", recommended, why
    return ("ok" if len(facts.nodes) >= 3 else "advice"), str(len(facts.nodes)), recommended, why


def _schemas(facts: Facts) -> Judgement:
    recommended, why = "the same on every node", "a value of another type or identity is another one on that node"
    if facts.report is None or not facts.report.get("schema_state"):
        return "unknown", "no node runs here" if facts.report is None else "it does not say yet", recommended, why
    schema = facts.report["schema_state"]
    unlike = {what: schema.get(f"other_{what}") for what in ("identities", "affinities")}
    found = "; ".join(f"other {what}: {', '.join(map(str, nodes))}" for what, nodes in unlike.items() if nodes)
    return ("problem" if found else "ok"), found or "the same types and identities", recommended, why


def _disk(disk: DiskFacts) -> Judgement:
    part = disk.free / disk.total if disk.total else 0.0
    found = f"{disk.free / 1e9:,.1f} GB free ({part:.0%}) on {disk.kind or 'an unknown file system'}, {disk.path}"
    recommended, why = f"{GOOD_FREE:.0%} free, on a disk that lasts", "without room applications can't write either"
    if disk.kind in PASSING:
        return "problem", found, recommended, f"{disk.kind} goes when the machine or container does"
    level: Level = "problem" if part < LEAST_FREE else "advice" if part < GOOD_FREE else "ok"
    return level, found, recommended, why


CHECKS: dict[str, Callable[[Facts], Judgement]] = {
    "node": _running,
    "nodes": _nodes,
    "schemas": _schemas,
    "deployment": _deployment,
    "shards": _shards,
    "replicas": _replicas,
    "storage": _storage,
    "compression": _compression,
    "history": _history,
    "going back in time": _going_back,
    "access": _access,
    "secret files": _secret_files,
    "clock": _clock,
    "file descriptors": _descriptors,
    "WAL mode": wal,
    "transactions": transactions,
    "tables without keys": keys,
    "autoincrement keys": autoincrement,
    "tables left out": left_out,
}


def problems(rows: list[Row]) -> Iterator[Row]:
    """Yield the rows that need action."""
    return (row for row in rows if row.level == "problem")
