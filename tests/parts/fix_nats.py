"""Real nats-servers on ports of their own, in temporary folders, ended by process id."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from harmonylite.jetstream.settings import StreamSettings
from harmonylite.jetstream.streams import ensure_streams
from harmonylite.nats.link import NatsLink
from harmonylite.nats.settings import LinkSettings
from harmonylite.nats_server.binary import find_server
from harmonylite.nats_server.child_process import Child
from harmonylite.status import NodeStatus
from tests.ports import free_port

PATIENCE = 30.0
"""Seconds that anything may take on a busy machine before a test calls it hung."""


async def eventually(holds: Callable[[], bool], what: str = "it") -> None:
    """Return as soon as ``holds``; fail after `PATIENCE`."""
    end = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < end, f"{what} did not happen within {PATIENCE:g} s"
        await asyncio.sleep(0.01)


class RealNats:
    """One nats-server. It keeps port and store over `kill` and `start`. ``extra``: more lines of configuration.

    The port is none that the system would give to somebody else while the server is down.
    """

    def __init__(self, folder: Path, extra: str = "", jetstream: str = "") -> None:
        self.folder = folder
        self.extra = extra
        self.jetstream = jetstream
        self.payload = "8MB"
        self.port = free_port()
        self.child: Child | None = None
        self.log: list[str] = []

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self.child is not None
        return self.child.pid

    async def start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        config = self.folder / "server.conf"
        config.write_text(
            f'listen: "127.0.0.1:{self.port}"\njetstream {{ store_dir: "{self.folder}"\n {self.jetstream} }}\n'
            f"max_payload: {self.payload}\n{self.extra}\n"
        )
        self.child = Child(self.log.append)
        await self.child.start([str(find_server()), "-c", str(config), "--ports_file_dir", str(self.folder)])
        ports = self.folder / f"nats-server_{self.child.pid}.ports"
        await eventually(lambda: bool(self.child and self.child.ended) or ports.exists(), "the start of nats-server")
        assert not self.child.ended, "\n".join(self.log)

    async def stop(self) -> None:
        if self.child is not None and not self.child.ended:
            self.signal(signal.SIGCONT)
            await self.child.stop(10)

    async def kill(self) -> None:
        assert self.child is not None
        self.signal(signal.SIGKILL)
        await self.child.wait()

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    async def freeze(self) -> None:
        """Stop all threads of the server; `thaw` lets them continue."""
        self.signal(signal.SIGSTOP)
        threads = Path(f"/proc/{self.pid}/task")
        await eventually(
            lambda: all(stat.read_text().rpartition(")")[2].split()[0] in "tT" for stat in threads.glob("*/stat"))
        )

    def thaw(self) -> None:
        self.signal(signal.SIGCONT)


NatsFactory = Callable[..., Awaitable[RealNats]]


@pytest.fixture
async def new_nats(tmp_path: Path) -> AsyncIterator[NatsFactory]:
    """Start servers: ``await new_nats(extra, jetstream)``; all are stopped at the end."""
    servers: list[RealNats] = []

    async def start(extra: str = "", jetstream: str = "") -> RealNats:
        server = RealNats(tmp_path / f"nats{len(servers)}", extra, jetstream)
        servers.append(server)
        await server.start()
        return server

    yield start
    for server in servers:
        await server.stop()


@pytest.fixture
async def nats(new_nats: NatsFactory) -> RealNats:
    """One running server with JetStream."""
    return await new_nats()


def quick(*urls: str, ping_seconds: float = 3.0) -> LinkSettings:
    """Settings of a link that tries again quickly, without end.

    With few seconds between pings it also notices a silent server quickly, and takes a slow one for that.
    """
    return LinkSettings(
        urls=urls, connect_retries=0, reconnect_wait=0.05, ping_seconds=ping_seconds, connect_seconds=10
    )


@pytest.fixture
def ping_seconds() -> float:
    """Seconds between two pings of the `link`; a test that freezes the server has fewer."""
    return 3.0


frozen = pytest.mark.parametrize("ping_seconds", [0.3], ids=["few"])
"""Marks a test that has its link notice a frozen server."""


@pytest.fixture
def node_status() -> NodeStatus:
    """The status that the link of the test writes to."""
    return NodeStatus()


@pytest.fixture
async def link(nats: RealNats, node_status: NodeStatus, ping_seconds: float) -> AsyncIterator[NatsLink]:
    """An open link to ``nats``."""
    async with NatsLink(quick(nats.url, ping_seconds=ping_seconds), node_status) as opened:
        yield opened


@pytest.fixture
async def streams(link: NatsLink) -> StreamSettings:
    """Settings of streams that were just made: two shards, many entries."""
    settings = StreamSettings(shards=2, max_entries=100_000)
    await ensure_streams(link, settings)
    return settings
