"""The cluster that a chaos run hurts: three nodes, a nats-server, snapshots in a folder, and the ledger beside them.

Invariant: every choice comes from one `Random`, so that a seed gives the same events again.
"""

from __future__ import annotations

import signal
from random import Random
from typing import Any

from tests.cluster.chaos_ledger import Ledger
from tests.cluster.fix_cluster import Site
from tests.cluster.processes import Node, until, until_equal

NODES = 3
PATIENCE = 240.0
"""Seconds that the cluster may take to come back from everything at once."""


class Cluster:
    """What is hurt, and what all events do."""

    def __init__(self, site: Site, seed: int) -> None:
        self.random = Random(seed)
        self.site = site
        self.ledger = Ledger(site, self.random)
        self.server = site.server()
        self.store = site.folder / "snapshots"
        self.store.mkdir()
        self.settings: dict[str, dict[str, Any]] = {
            "snapshot": {"store": "file", "lease_ttl": "2s", "keep": self.random.choice([2, 5])},
            "snapshot.file": {"path": str(self.store)},
            "replication_log": {
                "max_entries": self.random.choice([48, 120, 65536]),
                "shards": self.random.choice([1, 1, 2]),
            },
            "verify": {"interval": self.random.choice(["0s", "5s"])},
        }
        self.nodes = [site.node(f"n{i}", urls=[self.server.url], sections=self.settings) for i in range(NODES)]

    def write(self) -> None:
        """Commit a few transactions beside every node."""
        for node in self.nodes:
            self.ledger.write(node)

    def some(self) -> Node:
        """Return a node."""
        return self.random.choice(self.nodes)

    def start(self, node: Node) -> None:
        """Start a node unless it runs."""
        if not node.alive:
            node.start()

    def kill(self, node: Node) -> None:
        """Kill -9 a node if it runs."""
        if node.alive:
            node.kill()

    def stop(self, node: Node) -> None:
        """Stop a node if it runs."""
        if node.alive:
            assert node.stop() in (0, -signal.SIGTERM), "it ends well, or has hardly begun"

    def up(self) -> None:
        """Start what is down."""
        if not self.server.alive:
            self.server.start()
        for node in self.nodes:
            self.start(node)

    def ready(self) -> None:
        """Wait until all nodes are ready."""
        for node in self.nodes:
            node.ready(PATIENCE)

    def rest(self, node: Node) -> None:
        """Bring all up, and let everything that ``node`` wrote be in the order, and on all other nodes."""
        self.up()
        self.ready()
        self.published(node)
        until_equal(self.nodes, f"before {node.name} loses files", PATIENCE)

    def published(self, node: Node) -> None:
        """Wait until nothing that a node wrote is pending."""
        until(lambda: node.health().get("pending_rows") == 0, f"{node.name} published all", PATIENCE)
