"""Processes of a test cluster: nodes, NATS servers, applications and cut lines, each with its files in one folder.

Invariant: waiting is for a condition, with a deadline and a sentence about what did not come; what was started is gone
after `aclose`, whatever happened before.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import apsw

from harmonylite.jetstream.embedded import find_server

HERE = Path(__file__).parent
SECONDS = 90.0
"""How long a condition may take to come: the machine may be slow and shared."""

T = TypeVar("T")
Rows = list[tuple[Any, ...]]


def until(condition: Callable[[], T], what: str, seconds: float = SECONDS) -> T:
    """Wait until ``condition`` returns something true; return it. What it last returned is told when it never does."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {what}; last seen: {found!r}"
        time.sleep(0.03)
    return found


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on, outside the range that the system gives away by itself."""
    while True:
        port = random.randint(12_000, 32_000)
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                sock.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


class Running:
    """A child process whose output goes to ``log``, so that nobody has to read it for the child to go on."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.folder = folder
        self.log = folder / f"{name}.log"
        self.process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)

    def spawn(self, command: Sequence[str]) -> None:
        """Start ``command`` in a session of its own."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    @property
    def alive(self) -> bool:
        """True while the process runs."""
        return self.process is not None and self.process.poll() is None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process, not to its children."""
        assert self.process is not None, f"{self.name} was not started"
        self.process.send_signal(number)

    def gone(self, seconds: float = SECONDS) -> int:
        """Wait until the process has ended; return its exit code."""
        assert self.process is not None, f"{self.name} was not started"
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.name} did not end within {seconds:.0f} s") from None

    def kill(self) -> None:
        """Kill -9."""
        self.signal(signal.SIGKILL)
        self.gone()

    def stop(self, seconds: float = 30.0) -> int:
        """SIGTERM; return the exit code."""
        self.signal(signal.SIGTERM)
        return self.gone(seconds)

    def aclose(self) -> None:
        """End the process, gently if it is quick."""
        if self.alive:
            self.signal(signal.SIGCONT)
            self.signal(signal.SIGTERM)
            try:
                self.gone(10)
            except AssertionError:
                self.kill()

    def last_words(self, lines: int = 60) -> str:
        """Return the end of the log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:]) if self.log.exists() else ""


class NatsServer(Running):
    """An external nats-server on ``port``; ``routes``: the cluster ports of all servers, its own among them."""

    def __init__(
        self, name: str, folder: Path, *, cluster: int = 0, routes: Sequence[int] = (), more: str = ""
    ) -> None:
        super().__init__(name, folder)
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
        self.spawn([str(find_server()), "-c", str(self.folder / f"{self.name}.conf")])
        until(self.accepts, f"{self.name} takes connections")

    def accepts(self) -> bool:
        """Tell whether somebody takes connections on its port."""
        assert self.alive, f"{self.name} ended:\n{self.last_words()}"
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        except OSError:
            return False
        return True


class Proxy:
    """A line to ``target`` that can be cut; see `tests/cluster/proxy.py`."""

    def __init__(self, target: int) -> None:
        self.port = free_port()
        self.url = f"nats://127.0.0.1:{self.port}"
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "proxy.py"), str(self.port), str(target)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self._said("listening")

    def order(self, word: str) -> None:
        """Let the line ``pass``, swallow everything (``hole``) or ``reset``."""
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


class Application:
    """A writing process beside one database file; see `tests/cluster/application.py`."""

    def __init__(self, db: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "application.py"), str(db)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self._reader: threading.Thread | None = None
        self.committed = 0
        """The number of the last transaction of a load that is known to be committed."""

    def write(self, *statements: str | tuple[str, Sequence[Any]]) -> int:
        """Commit one transaction; return how many rows it changed."""
        answer = self.ask([[s, []] if isinstance(s, str) else [s[0], list(s[1])] for s in statements])
        assert "rows" in answer, answer
        return int(answer["rows"])

    def ask(self, request: Any) -> Any:
        """Send one request and return the answer."""
        self.send(request)
        assert self._process.stdout
        return json.loads(self._process.stdout.readline() or '{"error": "the application ended"}')

    def send(self, request: Any) -> None:
        """Send one line."""
        assert self._process.stdin
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        self._process.stdin.flush()

    def load(self, name: str, *, pause: float = 0.01, most: int = 0, accounts: int = 4) -> None:
        """Begin to write; `committed` tells how far it is."""
        self.send({"load": name, "pause": pause, "most": most, "accounts": accounts})

        def read() -> None:
            assert self._process.stdout
            for line in self._process.stdout:
                if not line.endswith(b"\n"):
                    return
                found = json.loads(line)
                assert isinstance(found, int) or found == "done", found
                if found == "done":
                    return
                self.committed = found

        self._reader = threading.Thread(target=read, name=f"load of {name}")
        self._reader.start()

    def finish(self) -> int:
        """Wait until a load of ``most`` transactions is done; return how many are committed."""
        assert self._reader is not None
        self._reader.join(SECONDS)
        assert not self._reader.is_alive(), f"the load did not end; it is at {self.committed}"
        return self.committed

    def kill(self) -> int:
        """Kill -9, perhaps in the middle of a transaction; return the last one that is known to be committed."""
        self._process.kill()
        self._process.wait()
        if self._reader is not None:
            self._reader.join()
        self.aclose()
        return self.committed

    def aclose(self) -> None:
        """End it."""
        self._process.kill()
        if self._reader is not None:
            self._reader.join()
        self._process.communicate()


class Node(Running):
    """One HarmonyLite node. ``sections``: its configuration, by section; top-level keys under ``""``."""

    def __init__(
        self, name: str, folder: Path, *, urls: Sequence[str] = (), arguments: Sequence[str] = (),
        sections: Mapping[str, Mapping[str, Any]] | None = None, file: str = "app.db",
    ) -> None:  # fmt: skip
        super().__init__(name, folder)
        self.db = folder / file
        self.port = free_port()
        self.config = folder / f"{name}.toml"
        self.arguments = list(arguments)
        self.sections: dict[str, dict[str, Any]] = {
            "": {"db_path": str(self.db), "node_id": name},
            "nats": {"urls": list(urls), "connect_retries": 0, "reconnect_wait_seconds": 0.2},
            "health_check": {"enable": True, "bind": f"127.0.0.1:{self.port}"},
        }
        for section, keys in (sections or {}).items():
            self.sections.setdefault(section, {}).update(keys)

    def write_config(self) -> None:
        """Write the configuration file."""
        lines = []
        for section, keys in self.sections.items():
            lines += [f"[{section}]"] if section else []
            lines += [f"{key} = {json.dumps(value)}" for key, value in keys.items()]
        self.config.write_text("\n".join(lines) + "\n")

    def start(self) -> None:
        """Start the process; it is not waited for."""
        self.write_config()
        self.spawn([sys.executable, "-m", "harmonylite", "-config", str(self.config), *self.arguments])

    def ready(self, seconds: float = SECONDS) -> None:
        """Wait until the node has caught up and nothing waits."""

        def look() -> bool:
            assert self.alive, f"{self.name} ended with {self.process and self.process.returncode}"
            return self.get("/readyz")[0] == 200

        try:
            until(look, f"{self.name} is ready", seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}; it says {self.get('/readyz')[1]!r}") from None

    def get(self, path: str) -> tuple[int, Any]:
        """Return status and body of an HTTP answer; (0, None) when nobody answers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            text = answer.read().decode()
            return answer.status, json.loads(text) if text.startswith("{") else text
        except (OSError, http.client.HTTPException, ValueError):
            return 0, None
        finally:
            connection.close()

    def health(self) -> dict[str, Any]:
        """Return the health answer's body, {} when there is none."""
        return self.get("/health")[1] or {}

    def status(self, counter: str) -> int:
        """Return a counter of `harmonylite status`, asked as that command asks."""
        control = json.loads((self.folder / "mirror" / self.db.name / "control.json").read_text())
        connection = http.client.HTTPConnection("127.0.0.1", control["port"], timeout=10)
        try:
            connection.request("GET", "/v1/status", headers={"Authorization": f"Bearer {control['token']}"})
            return int(json.loads(connection.getresponse().read())["counters"][counter])
        finally:
            connection.close()

    def waits(self, word: str) -> bool:
        """Tell whether the node says that it waits for something described with ``word``."""
        return any(word in reason for reason in self.health().get("waits", ()))

    def command(self, *words: str, seconds: float = SECONDS) -> tuple[int, str]:
        """Run ``harmonylite`` with this node's configuration; return exit code and output."""
        done = subprocess.run(
            [sys.executable, "-m", "harmonylite", "-config", str(self.config), *words],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=seconds, check=False,
            env={**os.environ, "COLUMNS": "110"},
        )  # fmt: skip
        return done.returncode, done.stdout.decode(errors="replace").rstrip()

    @contextmanager
    def reader(self) -> Iterator[apsw.Connection]:
        """Give a connection that only reads the database; the node is another process, so no lock of its suffers."""
        connection = apsw.Connection(str(self.db), flags=apsw.SQLITE_OPEN_READONLY)
        connection.set_busy_timeout(10_000)
        try:
            yield connection
        finally:
            connection.close()

    def rows(self, sql: str, values: Sequence[Any] = ()) -> Rows:
        """Run one query on the database; [] when the file or the table is not there."""
        try:
            with self.reader() as connection:
                return connection.execute(sql, values).fetchall()
        except (apsw.CantOpenError, apsw.SQLError):
            return []

    def value(self, sql: str, values: Sequence[Any] = ()) -> Any:
        """Return the first value of a query, None when there is none."""
        found = self.rows(sql, values)
        return found[0][0] if found else None

    def content(self) -> dict[str, Rows]:
        """Return the rows of every table of the application's, in one read transaction, sorted."""
        if not self.db.exists():
            return {}
        with self.reader() as connection:
            connection.execute("BEGIN")
            tables = connection.execute(
                "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'table'"
                " AND substr(name, 1, 15) <> '__harmonylite__' AND substr(name, 1, 7) <> 'sqlite_'"
            ).fetchall()
            return {
                str(name): sorted(connection.execute(f'SELECT * FROM "{name}"').fetchall(), key=repr)
                for (name,) in tables
            }

    def pid_of_server(self) -> int:
        """Return the process id of the embedded nats-server."""
        assert self.process is not None
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return next(int(p) for p in children if b"nats-server" in Path(f"/proc/{p}/cmdline").read_bytes())


def equal(nodes: Sequence[Node]) -> bool:
    """Tell whether the nodes' databases hold the same rows now."""
    first = nodes[0].content()
    return bool(first) and all(node.content() == first for node in nodes[1:])


def differences(nodes: Sequence[Node]) -> str:
    """Say in which tables the nodes differ, with a few rows of each."""
    contents = [node.content() for node in nodes]
    found = []
    for name in sorted({name for content in contents for name in content}):
        for node, content in zip(nodes[1:], contents[1:], strict=True):
            here, there = set(map(repr, contents[0].get(name, []))), set(map(repr, content.get(name, [])))
            if here != there:
                only = f"only {nodes[0].name} {sorted(here - there)[:3]}, only {node.name} {sorted(there - here)[:3]}"
                found.append(f"{name}: {only}")
    return "\n".join(found)


def until_equal(nodes: Sequence[Node], what: str = "", seconds: float = SECONDS) -> dict[str, Rows]:
    """Wait until all nodes hold the same rows; return them."""
    try:
        until(lambda: equal(nodes), f"{', '.join(node.name for node in nodes)} are equal {what}", seconds)
    except AssertionError as error:
        raise AssertionError(f"{error}\n{differences(nodes)}") from None
    return nodes[0].content()


def agree(nodes: Sequence[Node]) -> None:
    """Wait until `harmonylite verify` says on every node that all agree."""
    for node in nodes:
        code, text = node.command("verify", "-timeout", "20")
        assert code == 0, f"{node.name}: {text}"
