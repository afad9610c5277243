"""Metrics for Prometheus, made from `NodeStatus` when a scrape asks for them.

Invariant: between scrapes no work is done here, and nothing is registered globally, so any number of nodes can live in
one process.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from platform import python_version
from typing import TYPE_CHECKING, get_args

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, InfoMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from starlette.responses import Response
from starlette.routing import Route

from harmonylite.errors import ConfigError
from harmonylite.histogram import LATENCY_BOUNDS, Histogram
from harmonylite.peer import PeerState
from harmonylite.status import NodeStatus, State

if TYPE_CHECKING:
    from starlette.requests import Request

COUNTERS = {
    "published_change_sets": "Change sets of this node that came back in the stream's order.",
    "published_rows": "Rows in those change sets.",
    "published_messages": "Messages that carried those change sets.",
    "published_bytes": "Bytes of those messages, as sent.",
    "publish_failures": "Publishes that failed; each is retried.",
    "folded_change_sets": "Change sets of any node folded into the mirror.",
    "folded_rows": "Rows in those change sets.",
    "merged_rows": "Rows of the database that were changed by a merge.",
    "conflicts": "Columns whose local value was overruled, as written to the conflict journal.",
    "captures": "Captures: reads of the log that found something to publish.",
    "looks": "Polls of the log for something to capture.",
    "unread_questions": "Questions of other nodes that this version can't read; they get no answer.",
    "unread_answers": "Answers of other nodes that this version can't read.",
    "dropped_questions": "Questions of other nodes that were dropped, because too many waited or one waited too long.",
    "snapshots_saved": "Snapshots that this node saved.",
    "snapshots_restored": "Snapshots that this node continued from.",
    "verify_runs": "Times that this node compared its database with its mirror periodically.",
    "verify_differences": "Rows that such a comparison, or one of all nodes' mirrors, found to differ.",
    "passed_over_change_sets": "Change sets of this node that were published whole and did not land; their rows are"
    " published again.",
    "given_up_change_sets": "Unfinished change sets that were aborted, by this node or another.",
    "foreign_messages": "Messages in the streams that no node wrote in its own name; they are ignored.",
    "feed_events": "Events of the change feed that this node published and a stream acknowledged.",
}
"""Help of each counter, by its name in `harmonylite.status.Counters`; exposed with ``_total`` behind it."""

NATS_COUNTERS = {
    "reconnects": ("reconnects", "Times that the connection to NATS was re-established."),
    "embedded_restarts": (
        "restarts",
        "Times that the embedded nats-server was restarted after it ended by itself.",
    ),
}
"""The same of the way to NATS: field of `harmonylite.status.NatsStatus`, and help."""

SERVER: dict[str, tuple[str, str]] = {
    "memory_bytes": ("gauge", "Memory that the embedded nats-server uses."),
    "cpu_ratio": ("gauge", "Its recent processor time, 1 for one core."),
    "connections": ("gauge", "Clients that are connected to it now."),
    "cluster_peers": ("gauge", "Other servers of its cluster that it is connected to now."),
    "leaf_links": ("gauge", "Leaf links to other regions that are up now."),
    "subscriptions": ("gauge", "Subscriptions that it serves."),
    "slow_consumers": ("counter", "Clients that it dropped because they did not read."),
    "in_messages": ("counter", "Messages that it received."),
    "in_bytes": ("counter", "Bytes of those messages."),
    "out_messages": ("counter", "Messages that it sent."),
    "out_bytes": ("counter", "Bytes of those messages."),
    "streams": ("gauge", "JetStream streams that it keeps."),
    "consumers": ("gauge", "JetStream consumers on them."),
    "stored_messages": ("gauge", "Messages that it keeps in streams."),
    "stored_bytes": ("gauge", "Bytes that its streams take on disk."),
    "store_limit_bytes": ("gauge", "Bytes that its streams may take on disk (max_file_store)."),
    "api_requests": ("counter", "JetStream API requests that it answered."),
    "api_errors": ("counter", "Those that it answered with an error."),
}
"""Kind and help of each figure in `NodeStatus.server`; exposed with ``nats_server_`` before its name."""

STATES: tuple[str, ...] = get_args(State)
PEER_STATES: tuple[str, ...] = get_args(PeerState)


def metrics_routes(status: NodeStatus, *, namespace: str = "harmonylite", subsystem: str = "") -> list[Route]:
    """Return the routes ``/metrics`` and ``/`` (where the Go edition answers) over ``status``."""
    return scrape_routes(make_registry(status, namespace=namespace, subsystem=subsystem))


def scrape_routes(registry: CollectorRegistry) -> list[Route]:
    """Return the routes over ``registry``."""

    async def scrape(request: Request) -> Response:
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(registry), headers={"content-type": content_type})

    return [Route("/metrics", scrape), Route("/", scrape)]


def make_registry(status: NodeStatus, *, namespace: str = "harmonylite", subsystem: str = "") -> CollectorRegistry:
    """Return a registry of its own with the node's metrics and those of its process.

    :raises ConfigError: ``namespace`` or ``subsystem`` has characters that a metric's name can't have.
    """
    return registry_of(NodeCollector(status, prefix_of(namespace, subsystem)))


def prefix_of(namespace: str, subsystem: str) -> str:
    """Return what each metric's name begins with; raises ConfigError."""
    for key, text in (("namespace", namespace), ("subsystem", subsystem)):
        if not re.fullmatch(r"([a-zA-Z_][a-zA-Z0-9_]*)?", text):
            raise ConfigError(
                f"prometheus.{key} = {text!r} can't be part of a metric's name", advice="use letters, digits and _"
            )
    return "".join(f"{part}_" for part in (namespace, subsystem) if part)


def registry_of(collector: Collector) -> CollectorRegistry:
    """Return a registry of its own with what ``collector`` finds and the metrics of this process."""
    registry = CollectorRegistry()
    registry.register(collector)
    ProcessCollector(registry=registry)
    return registry


class NodeCollector(Collector):
    """Everything that `NodeStatus` holds, each metric labelled with ``node_id``. ``prefix`` begins each name."""

    def __init__(self, status: NodeStatus, prefix: str) -> None:
        self._status = status
        self._prefix = prefix

    def describe(self) -> list[Metric]:
        """Return nothing: no other collector in this registry has these names."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield every metric of the node with its present value."""
        yield from self._known()
        yield from self._state()
        yield from self._shards()
        yield from self._peers()
        yield from self._region()
        yield from self._server()
        counts = {name: (text, getattr(self._status.counters, name)) for name, text in COUNTERS.items()}
        counts |= {name: (text, getattr(self._status.nats, which)) for name, (which, text) in NATS_COUNTERS.items()}
        for name, (text, value) in counts.items():
            counter = CounterMetricFamily(self._prefix + name, text, labels=["node_id"])
            counter.add_metric([self._status.node_id], value)
            yield counter
        yield self._histogram(
            "commit_to_applied_seconds",
            "Time from a commit on the node that made it until it is merged here, by both nodes' clocks.",
            self._status.latency,
        )
        yield self._histogram(
            "lock_hold_seconds", "Time that a merge held the database's write lock.", self._status.lock_hold
        )

    def _known(self) -> Iterator[Metric]:
        """Yield the four names that dashboards for the Go edition use."""
        status, counters = self._status, self._status.counters
        # Without _total a counter can't be called one; rate() works on it all the same.
        published = Metric(self._prefix + "published", "Rows published; the same as published_rows_total.", "unknown")
        published.add_sample(self._prefix + "published", {"node_id": status.node_id}, counters.published_rows)
        yield published
        yield self._gauge(
            "pending_publish",
            "Rows changed here whose change set is not in the stream's order yet.",
            status.pending_rows,
        )
        yield self._histogram("count_changes", "Time of a poll for something to capture.", status.poll_time)
        yield self._histogram("scan_changes", "Time of a capture: log, rows, comparison.", status.capture_time)

    def _state(self) -> Iterator[Metric]:
        status = self._status
        waiting = len(status.schema_state.get("waiting", ()))
        info = InfoMetricFamily(self._prefix + "build", "Versions of HarmonyLite and of Python.")
        info.add_metric([], {"node_id": status.node_id, "version": status.version, "python": python_version()})
        yield info
        for name, text, value in (
            ("healthy", "1 when healthy, as the health path answers.", status.healthy),
            ("ready", "1 when healthy, caught up and nothing waits.", status.ready),
            (
                "caught_up",
                "1 when every shard was read to its end since the start, and none lags now.",
                status.caught_up,
            ),
            ("waits", "Causes that the node waits for or failed at; health has them as sentences.", len(status.waits)),
            ("left_out_messages", "Messages that this node lacks because of `harmonylite skip`.", len(status.left_out)),
            (
                "newest_snapshot_timestamp_seconds",
                "When the newest snapshot was saved, 0 for none; its age is time() minus this.",
                status.snapshot_at,
            ),
            ("last_verified_timestamp_seconds", "When this node was last compared, 0 for never.", status.verified[0]),
            ("db_connected", "1 when the database is open.", status.db_connected),
            ("nats_connected", "1 when connected to NATS.", status.nats_connected),
            ("cdc_installed", "1 when the capture triggers are in place.", status.cdc_installed),
            ("schema_mismatch_paused", "1 while merging is paused for a schema change.", status.waits_for_schema),
            (
                "schema_waiting",
                "Schema changes of other nodes that wait here.",
                waiting,
            ),
            ("tables_tracked", "Tables that are replicated.", len(status.tables)),
            ("held_rows", "Rows of the mirror held back from the database by a unique index.", status.held_rows),
            (
                "unfinished_change_sets",
                "Change sets of which the streams hold some messages and not the last of every shard yet.",
                status.unfinished_change_sets,
            ),
            ("warnings", "Warnings for the operator; health lists them.", len(status.all_warnings)),
            ("start_time_seconds", "When the node started, seconds since the epoch.", status.started_wall),
            (
                "last_replicated_timestamp_seconds",
                "When a change set of another node was last merged, seconds since the epoch, 0 for never.",
                status.last_replicated,
            ),
            (
                "last_published_timestamp_seconds",
                "When a change set of this node was last published, seconds since the epoch, 0 for never.",
                status.last_published,
            ),
        ):
            yield self._gauge(name, text, float(value))
        parts = GaugeMetricFamily(
            self._prefix + "part_state",
            "1 for the state that a part of the node is in.",
            labels=["node_id", "part", "state"],
        )
        for name, part in sorted(status.parts.items()):
            for state in STATES:
                parts.add_metric([status.node_id, name, state], float(part.state == state))
        yield parts

    def _shards(self) -> Iterator[Metric]:
        for name, text, field in (
            ("shard_lag_messages", "Messages of the shard's stream that are not folded yet.", "lag"),
            ("shard_lag_seconds", "Age of the oldest of those messages, 0 when caught up.", "lag_seconds"),
            ("shard_position", "Sequence up to which the shard's stream is folded.", "position"),
            ("shard_last_sequence", "Last sequence of the shard's stream, as last reported.", "last"),
        ):
            gauge = GaugeMetricFamily(self._prefix + name, text, labels=["node_id", "shard"])
            for shard, state in sorted(self._status.shards.items()):
                gauge.add_metric([self._status.node_id, str(shard)], getattr(state, field))
            yield gauge

    def _peers(self) -> Iterator[Metric]:
        """Yield whether heartbeats of the other nodes come; nothing of a peer while this node can't know."""
        peers = [peer.report(time.monotonic()) for _, peer in sorted(self._status.peers.items())]
        known = [peer for peer in peers if peer["state"] != "unknown"]
        reported = [peer for peer in peers if peer["silent_seconds"] is not None]
        own = self._status.schema
        states = GaugeMetricFamily(
            self._prefix + "peers", "Other nodes, by whether their heartbeats come in.", labels=["node_id", "state"]
        )
        for state in PEER_STATES:
            states.add_metric([self._status.node_id, state], sum(peer["state"] == state for peer in peers))
        yield states
        for name, text, values in (
            (
                "peer_up",
                "1 while heartbeats of the other node come in, 0 when they stopped.",
                {peer["node_id"]: peer["state"] == "up" for peer in known},
            ),
            (
                "peer_silent_seconds",
                "Time since the last heartbeat of the other node.",
                {peer["node_id"]: peer["silent_seconds"] for peer in reported},
            ),
            (
                "peer_last_heard_timestamp_seconds",
                "When its last heartbeat came, by this node's clock, seconds since the epoch.",
                {peer["node_id"]: peer["last_heard"] for peer in reported},
            ),
            (
                "peer_healthy",
                "1 when it was healthy, as its last heartbeat gave it.",
                {peer["node_id"]: peer["healthy"] for peer in reported},
            ),
            (
                "peer_ready",
                "1 when it was ready, as its last heartbeat gave it.",
                {peer["node_id"]: peer["ready"] for peer in reported},
            ),
            (
                "peer_schema_same",
                "1 when it replicates the same tables with the same columns.",
                {peer["node_id"]: peer["schema"] == own for peer in reported if peer["schema"] and own},
            ),
            (
                "peer_lag_messages",
                "Messages that it had not folded, as its last heartbeat gave it.",
                {peer["node_id"]: peer["lag_messages"] for peer in reported},
            ),
            (
                "peer_pending_rows",
                "Rows that were pending there, as its last heartbeat gave it.",
                {peer["node_id"]: peer["pending_rows"] for peer in reported},
            ),
            (
                "peer_lag_seconds",
                "Lag of the other node, as its last heartbeat gave it.",
                {peer["node_id"]: peer["lag_seconds"] for peer in reported},
            ),
        ):
            gauge = GaugeMetricFamily(self._prefix + name, text, labels=["node_id", "peer"])
            for node, value in values.items():
                gauge.add_metric([self._status.node_id, node], float(value))
            yield gauge

    def _region(self) -> Iterator[Metric]:
        """Yield how far the primary region is; nothing where there are no regions."""
        region = self._status.region
        for name, text, key in (
            ("region_primary_reachable", "1 while the primary region answers.", "reachable"),
            ("region_primary_round_trip_seconds", "Time of a question to it and back.", "round_trip_seconds"),
            ("region_failover", "1 while the node is in a failover of its region.", "failover"),
            ("region_copy_behind", "Messages that the region's own copies of the streams lack.", "copy_behind"),
        ):
            if key in region:
                gauge = GaugeMetricFamily(self._prefix + name, text, labels=["node_id", "region", "primary"])
                gauge.add_metric([self._status.node_id, region["region"], region["primary"]], float(region[key]))
                yield gauge

    def _server(self) -> Iterator[Metric]:
        """Yield the embedded nats-server's figures; nothing where the node uses other servers."""
        for name, value in self._status.server.items():
            kind, text = SERVER[name]
            family = CounterMetricFamily if kind == "counter" else GaugeMetricFamily
            metric = family(f"{self._prefix}nats_server_{name}", text, labels=["node_id"])
            metric.add_metric([self._status.node_id], value)
            yield metric

    def _gauge(self, name: str, text: str, value: float) -> Metric:
        gauge = GaugeMetricFamily(self._prefix + name, text, labels=["node_id"])
        gauge.add_metric([self._status.node_id], value)
        return gauge

    def _histogram(self, name: str, text: str, histogram: Histogram) -> Metric:
        buckets, seen = [], 0
        for bound, count in zip((*map(str, LATENCY_BOUNDS), "+Inf"), histogram.counts, strict=True):
            seen += count
            buckets.append((bound, seen))
        family = HistogramMetricFamily(self._prefix + name, text, labels=["node_id"])
        family.add_metric([self._status.node_id], buckets, histogram.total)
        return family
