"""One node of the demo: its folder, its configuration, its process.

Invariant: a process that was started here is gone when `Member.aclose` returns, whatever happened before.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import signal
import socket
import sys
import time
from asyncio.subprocess import PIPE, Process
from pathlib import Path

from harmonylite.demo.application import Application
from harmonylite.errors import HarmonyLiteError
from harmonylite.nats_server.child_process import guarded

START_SECONDS = 60.0
"""How long a node may take until it is ready, in seconds."""

STOP_SECONDS = 15.0
"""How long a node may take to publish what is pending and end, in seconds, before it is killed."""

POLL_SECONDS = 0.05
"""Between two looks at a node that is starting, in seconds."""

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


class Member:
    """Node ``number`` with its files in ``folder``. ``http`` and ``cluster``: its ports; ``peers``: the others'."""

    def __init__(self, number: int, folder: Path, file_name: str, *, http: int, cluster: int, peers: list[int]) -> None:
        self.number = number
        self.name = f"node {number}"
        self.folder = folder
        self.db = folder / file_name
        self.config = folder / f"node{number}-config.toml"
        self.log = folder / f"node{number}.log"
        self.url = f"http://127.0.0.1:{http}/"
        self._http = http
        self._arguments = [
            "-config",
            str(self.config),
            "-cluster-addr",
            f"127.0.0.1:{cluster}",
            "-cluster-peers",
            ",".join(f"nats://127.0.0.1:{peer}/" for peer in peers),
            "-cluster-secret-file",
            str(folder.parent / "cluster.secret"),
        ]
        self._process: Process | None = None
        self.application = Application(self.name, self.db)

    @property
    def pid(self) -> int | None:
        """The node's process id, None when it isn't running."""
        return self._process.pid if self._process and self._process.returncode is None else None

    def prepare(self) -> None:
        """Write the configuration."""
        text = CONFIG.format(number=self.number, db=json.dumps(str(self.db)), http=self._http)
        self.config.write_text(text, encoding="utf-8")

    async def start(self) -> None:
        """Start the process. Its output goes to a file, so that nobody has to read it for the node to continue."""
        with self.log.open("ab") as log:
            # A session of its own: Ctrl-C at the terminal reaches the demo only, which then ends its nodes in order.
            self._process = await asyncio.create_subprocess_exec(
                *guarded([sys.executable, "-m", "harmonylite", *self._arguments]),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    async def ready(self, seconds: float = START_SECONDS) -> float:
        """Wait until the node has caught up; return how many seconds that took.

        :raises HarmonyLiteError: it ended, or was not ready within ``seconds``.
        """
        started, said = time.monotonic(), ""
        while time.monotonic() - started < seconds:
            self.expect_running()
            status, said = await asyncio.to_thread(self._readiness)
            if status == 200:
                return time.monotonic() - started
            await asyncio.sleep(POLL_SECONDS)
        raise HarmonyLiteError(
            f"{self.name} was not ready within {seconds:.0f} s: {said or 'it does not answer'}",
            advice=f"see {self.log}:\n{self.last_words()}",
        )

    def _readiness(self) -> tuple[int, str]:
        """Return status and text of `/readyz`; (0, "") when nobody answers."""
        connection = http.client.HTTPConnection("127.0.0.1", self._http, timeout=2.0)
        try:
            connection.request("GET", "/readyz")
            response = connection.getresponse()
            return response.status, response.read().decode(errors="replace").strip()
        except (OSError, http.client.HTTPException):
            return 0, ""
        finally:
            connection.close()

    def expect_running(self) -> None:
        """Raise HarmonyLiteError with the end of the log when the process has ended."""
        if self.pid is None:
            raise HarmonyLiteError(f"{self.name} has ended", advice=f"its last words:\n{self.last_words()}")

    def last_words(self, lines: int = 12) -> str:
        """Return the end of the node's log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:]) if self.log.exists() else ""

    async def gone(self) -> None:
        """Wait until the process has ended by itself or by another's hand."""
        if self._process is not None:
            await self._process.wait()

    async def kill(self) -> None:
        """Kill -9, and wait until the process is gone."""
        await self._end(signal.SIGKILL)

    async def aclose(self) -> None:
        """Ask the node to end, and kill it when it doesn't within `STOP_SECONDS`. Safe to call twice."""
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await self._end(signal.SIGTERM)
        except TimeoutError:
            await self._end(signal.SIGKILL)

    async def _end(self, how: signal.Signals) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(how)
            await self._process.wait()

    async def command(self, *words: str) -> tuple[int, str]:
        """Run ``harmonylite`` with this node's configuration; return exit code and output, as a person would see it."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "harmonylite",
            "-config",
            str(self.config),
            *words,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={**os.environ, "COLUMNS": "110"},
        )
        output, _ = await process.communicate()
        return process.returncode or 0, output.decode(errors="replace").rstrip()


def free_ports(count: int) -> list[int]:
    """Return ports of 127.0.0.1 that nobody listens on now; all are held at once, so they differ."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]
