"""Two regions of nodes with embedded servers, joined by leaf links that can be cut and made slow."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.application import TABLES
from tests.cluster.fix_cluster import Site, make
from tests.cluster.processes import Node
from tests.cluster.servers import Proxy
from tests.ports import free_port

SECRET = "leaf-link-password"


@dataclass
class Regions:
    """Region ``a``, the primary region at first, and region ``b``.

    ``lines``: the ways from ``b`` to ``a``, one a node of ``a``.
    """

    a: list[Node] = field(default_factory=list)
    b: list[Node] = field(default_factory=list)
    lines: list[Proxy] = field(default_factory=list)

    @property
    def nodes(self) -> list[Node]:
        """All nodes."""
        return [*self.a, *self.b]

    def cut(self, way: str = "hole") -> None:
        """Cut every line; see `tests/cluster/proxy.py`."""
        for line in self.lines:
            line.order(way)


def build(
    site: Site, each: int = 1, *, replicas: int = 1, sections: dict[str, dict[str, Any]] | None = None
) -> Regions:
    """Return two regions of ``each`` nodes, not started, every leaf link through a proxy."""
    found = Regions()
    leaf_ports = [free_port() for _ in range(each)]
    found.lines = [site.proxy(port) for port in leaf_ports]
    for region in ("a", "b"):
        routes = [free_port() for _ in range(each)]
        for i in range(each):
            name = f"{region}{i + 1}"
            nats: dict[str, Any] = {
                "region": region,
                "primary_region": "a",
                "user_name": "regions",
                "user_password": SECRET,
            }
            if region == "a":
                nats["leaf_addr"] = f"127.0.0.1:{leaf_ports[i]}"
            else:
                nats["leaf_servers"] = [line.url for line in found.lines]
            if each > 1:
                nats["cluster_addr"] = f"127.0.0.1:{routes[i]}"
                nats["cluster_peers"] = [f"nats://127.0.0.1:{port}/" for j, port in enumerate(routes) if j != i]
            more: dict[str, dict[str, Any]] = {"nats": nats, "replication_log": {"replicas": replicas}}
            for section, keys in (sections or {}).items():
                more.setdefault(section, {}).update(keys)
            node = Node(name, site.folder / name, sections=more)
            site.running.insert(0, node)  # the primary region is ended last, so that nobody has to wait for it
            make(node.db, TABLES)
            (found.a if region == "a" else found.b).append(node)
    return found


@pytest.fixture
def region_site(tmp_path: Path) -> Iterator[Site]:
    """A place for one test, without a server of its own."""
    place = Site(tmp_path)
    yield place
    place.aclose()
