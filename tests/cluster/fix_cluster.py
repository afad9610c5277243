"""A place for clusters of real processes, ended by itself, whose logs are shown when a test fails."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

import apsw
import pytest

from tests.cluster.application import TABLES
from tests.cluster.processes import Node, Running
from tests.cluster.servers import NatsServer, Proxy
from tests.cluster.writing import Application
from tests.ports import free_port

R = TypeVar("R", bound=Running)


class Site:
    """Starts processes in ``folder`` and ends them all in `aclose`."""

    def __init__(self, folder: Path, server: NatsServer | None = None) -> None:
        self.folder = folder
        self.running: list[Running] = []
        self._shared = server
        self._stack = ExitStack()
        self._prefix = os.urandom(4).hex()

    def server(self, name: str = "nats", *, more: str = "") -> NatsServer:
        """Return a nats-server of this site's own, started."""
        server = self._keep(NatsServer(name, self.folder / name, more=more))
        server.start()
        return server

    def servers(self, count: int, *, program: Path | None = None) -> list[NatsServer]:
        """Return a cluster of nats-servers, started. ``program``: another nats-server than the one that nodes run."""
        routes = [free_port() for _ in range(count)]
        found = [
            self._keep(NatsServer(f"nats{i}", self.folder / f"nats{i}", cluster=port, routes=routes))
            for i, port in enumerate(routes, start=1)
        ]
        for server in found:
            server.program = program or server.program
            server.start()
        return found

    def node(
        self,
        name: str,
        *,
        urls: Sequence[str] = (),
        sections: Mapping[str, Mapping[str, Any]] | None = None,
        tables: str | None = TABLES,
        folder: Path | None = None,
        file: str = "app.db",
    ) -> Node:
        """Return a node, not started. Without ``urls`` it uses the shared server, on subjects of this site's own.

        ``tables``: what its database is made with, None for no database. ``file``: the database's name.
        """
        more: dict[str, dict[str, Any]] = {"nats": {}}
        if not urls:
            assert self._shared is not None, "this site has no shared server"
            urls = [self._shared.url]
        more["nats"] |= {"subject_prefix": f"s{self._prefix}", "stream_prefix": f"s{self._prefix}"}
        for section, keys in (sections or {}).items():
            more.setdefault(section, {}).update(keys)
        node = self._keep(Node(name, folder or self.folder / name, urls=urls, sections=more, file=file))
        if tables is not None:
            make(node.db, tables)
        return node

    def embedded(self, count: int, *, replicas: int, tables: str = TABLES, folder: Path | None = None) -> list[Node]:
        """Return nodes with embedded servers in one cluster, not started, as the guide's command lines make them."""
        ports = [free_port() for _ in range(count)]
        nodes = []
        for i, port in enumerate(ports, start=1):
            peers = ",".join(f"nats://127.0.0.1:{other}/" for other in ports if other != port)
            node = Node(
                f"node{i}",
                (folder or self.folder) / f"node{i}",
                arguments=["-cluster-addr", f"127.0.0.1:{port}", "-cluster-peers", peers],
                sections={"replication_log": {"replicas": replicas}},
            )
            make(node.db, tables)
            nodes.append(self._keep(node))
        return nodes

    def application(self, node: Node | Path, *statements: str) -> Application:
        """Return a writing process beside a node's database, or any file; see `Application`."""
        application = Application(node if isinstance(node, Path) else node.db, *statements)
        self._stack.callback(application.aclose)
        return application

    def proxy(self, target: int) -> Proxy:
        """Return a line that can be cut."""
        proxy = Proxy(target)
        self._stack.callback(proxy.aclose)
        return proxy

    def _keep(self, process: R) -> R:
        self.running.append(process)
        return process

    def logs(self) -> Iterator[tuple[str, str]]:
        """Yield names and the ends of logs."""
        for process in self.running:
            yield process.name, process.last_words()

    def aclose(self) -> None:
        """End everything: applications, nodes, servers."""
        self._stack.close()
        servers = [process for process in self.running if isinstance(process, NatsServer)]
        for group in ([process for process in self.running if process not in servers], servers):
            for process in group:
                process.ask_to_end()
            for process in group:
                process.aclose()


def make(path: Path, tables: str) -> None:
    """Make a database file as an application would."""
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = apsw.Connection(str(path))
    connection.execute(tables)
    connection.close()


def start(nodes: Sequence[Node]) -> None:
    """Start all and wait until all are ready."""
    for node in nodes:
        node.start()
    for node in nodes:
        node.ready()


@pytest.fixture(scope="session")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """One external nats-server for all tests that don't hurt it; each test has subjects of its own."""
    server = NatsServer("shared", tmp_path_factory.mktemp("shared-nats"))
    server.start()
    yield server
    server.ask_to_end()
    server.aclose()


@pytest.fixture
def site(tmp_path: Path, shared_server: NatsServer) -> Iterator[Site]:
    """A place for one test."""
    place = Site(tmp_path, shared_server)
    yield place
    place.aclose()


@pytest.fixture(scope="module")
def module_site() -> Iterator[Site]:
    """A place for all tests of one module; each of them leaves everything running and well."""
    with tempfile.TemporaryDirectory(prefix="harmonylite-test-") as folder:
        place = Site(Path(folder))
        yield place
        place.aclose()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, None]:
    """Show the ends of the logs of every process of a test that failed."""
    report = (yield).get_result()
    if report.failed:
        for found in getattr(item, "funcargs", {}).values():
            if isinstance(found, Site):
                report.sections += [(f"end of the log of {name}", text) for name, text in found.logs()]
