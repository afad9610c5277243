"""NATS servers of a test cluster, and lines to them that can be cut.

Invariant: a server takes connections when `start` returns, and a line is unchanged ordered to be when `order` returns.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from harmonylite.nats_server.binary import find_server
from tests.cluster.processes import HERE, Running, until
from tests.ports import free_port


def older_server() -> Path:
    """Return the nats-server of requirements-older-nats.txt, which servers are upgraded from."""
    found = Path(sys.prefix) / "older-nats/bin/nats-server"
    assert found.is_file(), f"no {found}: `make venv` puts the older nats-server there"
    return found


class NatsServer(Running):
    """An external nats-server on ``port``; ``routes``: the cluster ports of all servers, its own among them.

    ``program``: which nats-server the next start runs.
    """

    def __init__(
        self, name: str, folder: Path, *, cluster: int = 0, routes: Sequence[int] = (), more: str = ""
    ) -> None:
        super().__init__(name, folder)
        self.program = find_server()
        self.port = free_port()
        self.url = f"nats://127.0.0.1:{self.port}"
        urls = ", ".join(f"nats://127.0.0.1:{route}" for route in routes)
        block = f'cluster {{ name: test, listen: "127.0.0.1:{cluster}", routes: [{urls}] }}\n' if cluster else ""
        (folder / f"{name}.conf").write_text(
            f'server_name: {name}\nlisten: "127.0.0.1:{self.port}"\n{block}{more}\n'
            f"jetstream {{ store_dir: {json.dumps(str(folder / name))}, sync_interval: always }}\n"
        )

    def start(self) -> None:
        """Start it and wait until it takes connections."""
        self.spawn([str(self.program), "-c", str(self.folder / f"{self.name}.conf")])
        until(self.accepts, f"{self.name} takes connections")

    def accepts(self) -> bool:
        """Return whether somebody takes connections on its port."""
        assert self.alive, f"{self.name} ended:\n{self.last_words()}"
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        except OSError:
            return False
        return True

    def version(self) -> str:
        """Return the version that it tells every client."""
        with socket.create_connection(("127.0.0.1", self.port), 60) as line, line.makefile("rb") as told:
            return str(json.loads(told.readline().removeprefix(b"INFO "))["version"])


class Proxy:
    """A line to ``target`` that can be cut; see `tests/cluster/proxy.py`."""

    def __init__(self, target: int) -> None:
        self.port = free_port()
        self.url = f"nats://127.0.0.1:{self.port}"
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "proxy.py"), str(self.port), str(target)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._said("listening")

    def order(self, word: str) -> None:
        """Let the line ``pass``, swallow everything (``hole``), swallow answers (``deaf``) or ``reset``."""
        assert self._process.stdin
        self._process.stdin.write(f"{word}\n")
        self._process.stdin.flush()
        self._said(word)

    def _said(self, word: str) -> None:
        assert self._process.stdout
        assert self._process.stdout.readline().strip() == word

    def aclose(self) -> None:
        """End it."""
        self._process.kill()
        self._process.communicate()
