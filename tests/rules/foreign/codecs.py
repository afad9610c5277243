"""Every codec of the package, a good value of each, and what its values are used for."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from typing import Any

import msgspec
from rich.console import Console

import harmonylite
from harmonylite.changes import skipped
from harmonylite.changes.epochs import newest, relation
from harmonylite.changes.failover import beginning
from harmonylite.cli.region_command import described
from harmonylite.cli.status_view import render, render_cluster
from harmonylite.db.sqlite import overwriting
from harmonylite.errors import ConfigError, ForeignError
from harmonylite.foreign import Codec
from harmonylite.identity import Record
from harmonylite.jetstream import object_store, stream_metadata
from harmonylite.jetstream.regions import failover_streams
from harmonylite.model import StreamInfo
from harmonylite.nats_server import monitoring, open_ports, server_files
from harmonylite.node import anti_entropy, claim, peer_reports, presence, registry, schemas
from harmonylite.node import failover_controller as siblings
from harmonylite.peer import Peer
from harmonylite.recovery import peer_messages as lineages
from harmonylite.recovery import schema_resync
from harmonylite.recovery.failover import failback_owner
from harmonylite.replication import majority
from harmonylite.snapshots import lease, manifest, requests
from harmonylite.status import NodeStatus
from harmonylite.web.control_file import ControlFile


def every_codec() -> dict[str, Codec[Any]]:
    """Return all codecs that modules of the package hold, by what they are for."""
    found: dict[int, Codec[Any]] = {}
    for module in pkgutil.walk_packages(harmonylite.__path__, "harmonylite."):
        if not module.name.endswith("__main__"):
            values = vars(importlib.import_module(module.name)).values()
            found |= {id(value): value for value in values if isinstance(value, Codec)}
    named = {codec.what: codec for codec in found.values()}
    assert len(named) == len(found), "two codecs are called the same"
    return named


INFO = StreamInfo(0, 1, 40, "here", 40, (("before", 7),))
SNAPSHOT = manifest.Snapshot(
    "snapshot-00000000000000000001-abcdef",
    "n1",
    {0: 5},
    {0: 6},
    {0: "here"},
    "ab" * 32,
    9,
    1.5,
    ["snapshot-0-a"],
    30,
    "c",
    "h",
    True,
)
ANSWER = lineages.PeerState("n1", True, "h", {0: ("here", 5), 1: ("there", 6)}, 3)
STREAM = {
    "config": {
        "name": "s-0",
        "subjects": ["c.0.*"],
        "max_msgs": 5,
        "num_replicas": 3,
        "metadata": {
            stream_metadata.ORDER: "here",
            stream_metadata.FORKS: '[["before",7]]',
            stream_metadata.MOVES: "2",
            stream_metadata.LEFT_FOR: "a",
        },
        "mirror": {"name": "s-0", "external": {"api": "$JS.home.API"}},
    },
    "created": "2026-01-01T00:00:00Z",
    "state": {"messages": 3, "first_seq": 1, "last_seq": 3, "num_deleted": 0, "subjects": {"c.0.n": 3}},
    "cluster": {"leader": "a", "replicas": [{"name": "b", "offline": True}]},
}
MONITORING = {
    "server_name": "a",
    "mem": 5,
    "cpu": 1.5,
    "config": {"max_storage": 9},
    "api": {"total": 1, "errors": 0},
    "meta_cluster": {"cluster_size": 3, "quorum_needed": 2, "leader": "", "replicas": [{"name": "b"}]},
}


def _report() -> dict[str, Any]:
    status = NodeStatus(node_id="n1", version="1", region={"region": "b", "primary": "a", "reachable": True})
    status.shard(0).last = 9
    status.part("nats").waiting("why")
    status.peers["n2"] = Peer("n2", "up", seen=1.0)
    return status.report()


GOOD: dict[str, list[Any]] = {
    "the description of a snapshot": [SNAPSHOT],
    "the lease": [lease.Holder("n1", "s"), lease.Holder()],
    "the pointer to who brings a failover home": [failback_owner.FailbackClaim("n1", {0: 5}, {0: ("here", 7)})],
    "at which position a node is": [ANSWER],
    "a request for a snapshot": [requests.Request("n1", "nats", "snapshot-1", True, ["n2"])],
    "an answer to a request for a snapshot": [requests.Reply("n1", "nats", "snapshot-1", True)],
    "the node whose schema is asked for": ["n1"],
    "the schema of a node": [schemas.NodeSchema("ab", 3, [schemas.SchemaObject("table", "t", "CREATE TABLE t(a)")])],
    "the position of the feed": ["0:4711@1f0c2d3e,1:7"],
    "the list of nodes": [registry.NodeList({"n1": registry.ListedNode("ab", "h", "1", 1.5)}, {"n2": 2.5})],
    "the node that was forgotten": ["n2"],
    "the node whose entry changed": ["n2"],
    "who runs under a node id": [claim.Running("n1", "s", "h", 77, "/data/app.db", 1.5, 2.5)],
    "the session that asks for a node id": ["18a-0f"],
    "where a node is stuck": [schema_resync.SchemaWait("n1", "h", "0123", {0: 5})],
    "the name of a node that can help": ["n1"],
    "the name of a node": ["n1"],
    "a sibling's lineage": [siblings.Sibling("n1", "b", False, {0: ("here", 5, 6)})],
    "which mirrors deviate": [anti_entropy.Deviation(["n1"], ["n2", "n3"], {0: 5})],
    "what is remembered of a message that was left out": [
        skipped.LeftOut(0, 5, "here", 1.5, "why", "n1/s/1", {"t": 2}, {"t": ["1", "2"]})
    ],
    "a heartbeat": [presence.Heartbeat("n1", "s", 3.0, lag_seconds=1.5, version="1", host="h")],
    "the report of a node": [_report()],
    "a digest of a mirror": [majority.Digest("n1", {"t": "ab"}, {0: 5}, lacks=1, schema={"table t": "ab"})],
    "a question for a digest": [("n1/s-verify/1", 27.0)],
    "an answer of JetStream": [STREAM, {"error": {"code": 404, "err_code": 10059, "description": "no"}}, {"seq": 5}],
    "the description of an object": [object_store.Stored("x", "abc", 5, 1, "SHA-256=ab=", False)],
    "the earlier identities of an order": [[("before", 7)]],
    "where a failover begins": [failover_streams.FailoverRecord("ab12", 1.5, {0: ("here", 5, 4)})],
    "an answer of the monitoring port": [MONITORING],
    "the greeting of a NATS server": [open_ports.Greeting(True, False)],
    "what the embedded server's folder says of itself": [server_files.ServerFile("n1", "ab")],
    "the login of the embedded server": [server_files._Login("u", "p")],
    "the ports of the embedded server": [{"nats": ["nats://127.0.0.1:4222"]}],
    "the kept identity of the node": [Record("n1", "ab", "cd")],
    "how the database's file was when it was last looked at": [
        overwriting.Noted(4096, b"12345678", 5, 5, b"SQLite format 3\0")
    ],
    "what the last stop noted": [{"/data/app.db": [[1, 2, 3, 4], [0, 0, 0, 0]], "/data/gone": None}],
    "the control file": [ControlFile(4000, "token", 77)],
    "the body": [{"repair": True, "seconds": 5.0}],
    "an argument": [100, ["a", "b"]],
    "the node's answer": [{"nodes": [_report()]}, {"error": "no", "exit_code": 6}, {"agree": True, "positions": {}}],
    "where earlier histories were left": [{"": {0: ("here", 5)}, "h": {}}],
    "the blocks of a change set": [[(b"\x90", False)]],
}
"""Good values of every codec, by what it is for."""


def _stands(answer: lineages.PeerState) -> None:
    mine, other = ANSWER.lineage(), answer.lineage()
    relation(mine, other)
    relation(other, mine)
    newest([("me", mine), (answer.node, other)])


def _fits(snapshot: manifest.Snapshot) -> None:
    manifest.fits(snapshot, [INFO])
    manifest.is_behind(snapshot, SNAPSHOT)
    manifest.encode(msgspec.structs.replace(SNAPSHOT, older=[*snapshot.older, snapshot.name]))


def _shown(report: dict[str, Any]) -> None:
    console = Console(quiet=True, width=100)
    console.print(render_cluster([report, *peer_reports.unreadable(["", report["node_id"]]).values()]))
    console.print(render(report))
    described(report.get("region") or {})


def _role(answer: dict[str, Any]) -> None:
    try:
        stream_metadata.role_of(answer.get("config") or {}, str(answer.get("created")))
    except (ConfigError, ForeignError):
        return


def _figures(found: dict[str, Any]) -> None:
    try:
        monitoring._values(found, found)
    except ForeignError:
        return
    monitoring._cluster_problem(found.get("meta_cluster") or {}, "a", {"b"})


USES: dict[str, Callable[[Any], object]] = {
    "the description of a snapshot": _fits,
    "at which position a node is": _stands,
    "the report of a node": _shown,
    "a sibling's lineage": lambda s: beginning({0: ("here", 5)}, {s.node: s.positions, "me": {}}),
    "an answer of JetStream": _role,
    "an answer of the monitoring port": _figures,
    "the pointer to who brings a failover home": lambda c: INFO.same(*(c.upto or {}).get(0, ("?", 0))),
}
"""What is done with decoded values; whatever can be decoded can be used."""

__all__ = ["GOOD", "USES", "every_codec"]
