"""Processes of the benchmark: the children, one nats-server, and nodes; and what the machine says of them.

Invariant: leaving a ``with`` block leaves no process behind.
"""

from __future__ import annotations

import http.client
import json
import os
import platform
import shutil
import socket
import sqlite3
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.child import COUNTED, INDEX, TABLE, connect, written
from harmonylite.demo.member import free_ports

START_SECONDS = 60.0
NATS = """\
listen: 127.0.0.1:{port}
jetstream {{ store_dir: {folder}, sync_interval: always }}
"""
NODE = """\
db_path = {db}
node_id = {number}

[replication_log]
shards = {shards}
replicas = {replicas}
max_entries = {entries}

[nats]
urls = ["nats://127.0.0.1:{nats}"]

[health_check]
enable = true
bind = "127.0.0.1:{http}"

[prometheus]
enable = {metrics}
bind = "127.0.0.1:{http}"
"""


def child(what: str, file: Path, **options: object) -> subprocess.Popen[str]:
    """Start a child of `bench.child`; a watcher is looking when this returns."""
    words = [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.child", what, str(file), *words],
        stdin=subprocess.PIPE if what == "hold" else None,
        stdout=subprocess.PIPE,
        text=True,
    )
    if what != "write":
        assert process.stdout
        process.stdout.readline()
    return process


def result(process: subprocess.Popen[str]) -> dict[str, Any]:
    """Wait for a child and return what it measured."""
    output, _ = process.communicate()
    if process.returncode:
        raise RuntimeError(f"{process.args!r} ended with {process.returncode}")
    answer: dict[str, Any] = json.loads(output)
    return answer


def write(file: Path, **options: object) -> dict[str, Any]:
    """Let an application write, and wait for it."""
    return result(child("write", file, **options))


def make_file(path: Path) -> Path:
    """Make a database with the empty tables; an old one there is removed."""
    for suffix in ("", "-wal", "-shm"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)
    connection = connect(str(path))
    for sql in (TABLE, INDEX, COUNTED):
        connection.execute(sql)
    connection.close()
    return path


@contextmanager
def nats_server(folder: Path) -> Iterator[int]:
    """Run a nats-server that acknowledges what is on disk; gives its port."""
    folder.mkdir(parents=True)
    (port,) = free_ports(1)
    config = folder / "nats.conf"
    config.write_text(NATS.format(port=port, folder=json.dumps(str(folder / "store"))))
    beside = Path(sysconfig.get_path("scripts")) / "nats-server"
    binary = str(beside) if beside.exists() else shutil.which("nats-server") or "nats-server"
    with (folder / "nats.log").open("wb") as log, ended(subprocess.Popen([binary, "-c", str(config)], stderr=log)):
        yield port


@contextmanager
def ended(process: subprocess.Popen[Any]) -> Iterator[None]:
    """End ``process`` when the block is left: politely, then not."""
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def installed() -> dict[str, str]:
    """Return the environment of a node that is installed: its bytecode is kept, so that no start compiles it again."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


@dataclass
class Node:
    """A node over ``db``. ``nats``: the server's port; ``entries``: messages that a stream keeps; ``replicas``: on how
    many servers; ``metrics``: served, too, when it's "true"; ``more``: text that its
    configuration ends with.
    """

    number: int
    db: Path
    nats: int
    shards: int = 1
    entries: int = 100_000
    replicas: int = 1
    http: int = field(default_factory=lambda: free_ports(1)[0])
    process: subprocess.Popen[bytes] | None = None
    metrics: str = "false"
    more: str = ""

    def config(self) -> str:
        """Return the text of its configuration file."""
        named = {
            name: getattr(self, name) for name in ("number", "shards", "nats", "http", "entries", "replicas", "metrics")
        }
        return NODE.format(db=json.dumps(str(self.db)), **named) + self.more

    @contextmanager
    def running(self, seconds: float = START_SECONDS) -> Iterator[float]:
        """Start it and wait until it is ready; gives the monotonic time of the start."""
        config = self.db.with_suffix(".toml")
        config.write_text(self.config())
        started = time.monotonic()
        with self.db.with_suffix(".log").open("ab") as log:
            command = [sys.executable, "-m", "harmonylite", "-config", str(config)]
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=installed())
            with ended(self.process):
                self._until_ready(started + seconds)
                yield started

    @contextmanager
    def unasked(self) -> Iterator[float]:
        """Start it with the default configuration but for file and NATS; gives the seconds until it is ready.

        It says so as to systemd (sd_notify(3)): nobody asks over HTTP, for what answers is started then.
        """
        config = self.db.with_suffix(".toml")
        config.write_text(f'db_path = {json.dumps(str(self.db))}\n[nats]\nurls = ["nats://127.0.0.1:{self.nats}"]\n')
        notify = self.db.with_suffix(".notify")
        notify.unlink(missing_ok=True)
        with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as sock:
            sock.bind(str(notify))
            sock.settimeout(START_SECONDS)
            started = time.monotonic()
            with self.db.with_suffix(".log").open("ab") as log:
                command = [sys.executable, "-m", "harmonylite", "-config", str(config)]
                environment = installed() | {"NOTIFY_SOCKET": str(notify)}
                self.process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
                with ended(self.process):
                    while b"READY=1" not in sock.recv(4096):
                        pass
                    yield time.monotonic() - started

    def _until_ready(self, deadline: float) -> None:
        assert self.process
        while self.ask("/livez")[0] != 200 or not self.ask("/health")[1].get("caught_up"):
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"node {self.number} did not become ready; see {self.db.with_suffix('.log')}")
            time.sleep(0.02)

    def ask(self, path: str) -> tuple[int, dict[str, Any]]:
        """Return status and JSON of one GET; (0, {}) when nobody answers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.http, timeout=5)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            body = response.read()
        except (OSError, http.client.HTTPException):
            return 0, {}
        finally:
            connection.close()
        with suppress(ValueError):
            found: dict[str, Any] = json.loads(body)
            return response.status, found
        return response.status, {}

    def until_quiet(self, seconds: float = 300.0) -> None:
        """Wait until everything that was written is published, and nothing has been for a moment."""
        quiet, deadline = 0, time.monotonic() + seconds
        while quiet < 3:
            if time.monotonic() > deadline:
                raise RuntimeError(f"node {self.number} still has pending rows: {self.ask('/health')[1]}")
            time.sleep(0.1)
            health = self.ask("/health")[1]
            caught_up = all(not shard["lag_messages"] for shard in health.get("shards", [{"lag_messages": 1}]))
            quiet = quiet + 1 if health.get("pending_rows") == 0 and caught_up else 0

    def cpu_seconds(self) -> float:
        """Return the CPU time that the process has used, its nats-server (if any) not counted."""
        assert self.process
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def written(self) -> int:
        """Return how many bytes the process has written to files, its nats-server (if any) not counted."""
        assert self.process
        return written(self.process.pid)

    def memory_mb(self, what: str = "VmRSS") -> float:
        """Return the resident memory in MB of 10^6 bytes; ``VmHWM`` is its peak."""
        assert self.process
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith(f"{what}:"):
                return int(line.split()[1]) * 1024 / 1e6
        raise RuntimeError(f"the kernel tells no {what}")


def describe(folder: Path) -> dict[str, object]:
    """Return what a reader must know of this machine: no names, only what bears on the figures."""
    return {
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "fsync_ms": round(fsync_ms(folder), 3),
    }


def fsync_ms(folder: Path, times: int = 50) -> float:
    """Return the median time of writing 4 KB and syncing it, in milliseconds."""
    taken, file = [], folder / "fsync.probe"
    with file.open("wb") as handle:
        for _ in range(times):
            started = time.perf_counter()
            handle.write(b"x" * 4096)
            handle.flush()
            os.fsync(handle.fileno())
            taken.append(time.perf_counter() - started)
    file.unlink()
    return sorted(taken)[times // 2] * 1000
