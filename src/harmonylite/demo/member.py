"""One node of the demo: its folder, its configuration, its process.

Invariant: the process can't outlive the demo (`harmonylite.nats_server.child_process`).
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import socket
import sys
import time
from asyncio.subprocess import PIPE, STDOUT
from contextlib import ExitStack, suppress
from pathlib import Path

from harmonylite.backoff import Backoff
from harmonylite.client import AsyncClient
from harmonylite.demo.files import Application
from harmonylite.errors import ConfigError, HarmonyLiteError, NotAnsweringError, NotRunningError
from harmonylite.nats_server.child_process import Child

START_SECONDS = 60.0
"""Seconds until a node must be ready."""

PORTS = range(10_000, 12_000)
"""Ports for nodes and servers: below those that Linux (32,768), macOS and Windows (49,152) give to connections."""

STOP_SECONDS = 15.0
"""Seconds that a node has to publish pending rows and end, before it is killed."""

CONFIG = """\
# Written by `harmonylite demo`: node {number} of three on this machine.
db_path = {db}
node_id = {number}

[replication_log]
replicas = 3

[health_check]
enable = true
bind = "127.0.0.1:{http}"

[prometheus]
enable = true
bind = "127.0.0.1:{http}"
"""


class Member(Child):
    """Node ``number`` with its files in ``folder``. ``http`` and ``cluster``: its ports; ``peers``: the others."""

    def __init__(self, number: int, folder: Path, file_name: str, *, http: int, cluster: int, peers: list[int]) -> None:
        super().__init__(self._write)
        self.number = number
        self.name = f"node {number}"
        self.folder = folder
        self.db = folder / file_name
        self.config = folder / f"node{number}-config.toml"
        self.log = folder / f"node{number}.log"
        self.url = f"http://127.0.0.1:{http}/"
        self.application = Application(self.name, self.db)
        self.client = AsyncClient(self.db, seconds=2.0)
        self._http = http
        self._command = [sys.executable, "-m", "harmonylite", "-config", str(self.config)]
        self._cluster = {
            "-cluster-addr": f"127.0.0.1:{cluster}",
            "-cluster-peers": ",".join(f"nats://127.0.0.1:{peer}/" for peer in peers),
            "-cluster-secret-file": str(folder.parent / "cluster.secret"),
        }

    def _write(self, line: str) -> None:
        with self.log.open("a", encoding="utf-8") as log:
            print(line, file=log)

    async def run(self) -> None:
        """Write the configuration and start the process; its output goes to the log."""
        text = CONFIG.format(number=self.number, db=json.dumps(str(self.db)), http=self._http)
        self.config.write_text(text, encoding="utf-8")
        await self.start([*self._command, *(word for flag in self._cluster.items() for word in flag)])

    async def ready(self, seconds: float = START_SECONDS) -> float:
        """Wait until the node has caught up; return the seconds that it took. Raises HarmonyLiteError."""
        started, said, backoff = time.monotonic(), "", Backoff(first=0.05, most=0.2)
        while time.monotonic() - started < seconds:
            self.expect_running()
            with suppress(NotRunningError, NotAnsweringError):
                report = await self.client.status()
                if report.ready:
                    return time.monotonic() - started
                said = "; ".join(report.waits)
            await asyncio.sleep(backoff.failed(time.monotonic()))
        reason = f"was not ready within {seconds:.0f} s: {said or 'it does not answer'}"
        raise HarmonyLiteError(f"{self.name} {reason}", advice=f"see {self.log}:\n{self._last_lines()}")

    def expect_running(self) -> None:
        """Raise HarmonyLiteError with the end of the log if the process has ended."""
        if self.ended:
            raise HarmonyLiteError(f"{self.name} has ended", advice=f"its last lines:\n{self._last_lines()}")

    def _last_lines(self) -> str:
        return "\n".join(list(self.lines)[-12:])

    async def kill(self) -> None:
        """Kill -9, and wait until the process is gone."""
        self.signal(signal.SIGKILL)
        if self.pid:
            await self.wait()

    async def command(self, *words: str) -> tuple[int, str]:
        """Run ``harmonylite`` with this node's configuration; return exit code and output."""
        environment = {**os.environ, "COLUMNS": "110"}
        process = await asyncio.create_subprocess_exec(
            *self._command, *words, stdin=asyncio.subprocess.DEVNULL, stdout=PIPE, stderr=STDOUT, env=environment
        )
        output, _ = await process.communicate()
        return process.returncode or 0, output.decode(errors="replace").rstrip()


def free_ports(count: int) -> list[int]:
    """Return unused ports of 127.0.0.1, all different. Raises ConfigError if there are not so many.

    The system gives none of `PORTS` to a connection. One that it chose here might be in use before the node listens.
    """
    found: list[int] = []
    with ExitStack() as stack:
        for port in random.sample(PORTS, len(PORTS)):
            if len(found) == count:
                break
            one = stack.enter_context(socket.socket())
            with suppress(OSError):
                one.bind(("127.0.0.1", port))
                found.append(port)
    if len(found) < count:
        raise ConfigError(f"only {len(found)} of the ports {PORTS[0]} to {PORTS[-1]} are free, the demo needs {count}")
    return found
