"""Processes of a test cluster: what all of them have in common, and nodes; each with its files in one folder.

Invariant: waiting is for a condition, with a deadline and a sentence about what did not come; what was started is gone
after `aclose`, whatever happened before.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import apsw

from tests.cluster.proc import read_or_nothing, runs, states
from tests.ports import free_port

HERE = Path(__file__).parent
SECONDS = 90.0
"""How long a condition may take to come: the machine may be slow and shared."""
ANSWERS_WITHIN = 20.0
"""Seconds in which a node answers over HTTP, also one whose machine is busy with other tests."""

BYTECODE = HERE.parents[1] / ".pytest_cache" / "bytecode"
"""Where the processes keep their compiled modules, wherever this one is told to: a cluster starts many."""

T = TypeVar("T")
Rows = list[tuple[Any, ...]]


def until(condition: Callable[[], T], what: str, seconds: float = SECONDS) -> T:
    """Wait until ``condition`` returns something true; return it. What it last returned is told when it never does."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {what}; last seen: {found!r}"
        time.sleep(0.03)
    return found


def environment() -> dict[str, str]:
    """Return the environment of a process of the cluster: wide lines, and compiled modules kept."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "PYTHONPYCACHEPREFIX": str(BYTECODE), "COLUMNS": "110"}


class Running:
    """A child process whose output goes to ``log``, so that nobody has to read it for the child to continue."""

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
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env=environment(),
            )

    @property
    def alive(self) -> bool:
        """True while the process runs."""
        return self.process is not None and self.process.poll() is None

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self.process is not None, f"{self.name} was not started"
        return self.process.pid

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
        """Kill -9, and wait until its children, which end with it, have let go of their files and ports."""
        children = self.children() if self.alive else []
        self.signal(signal.SIGKILL)
        self.gone()
        until(lambda: not any(map(runs, children)), f"the children of {self.name} end with it")

    def children(self) -> list[int]:
        """Return the process ids of the children now."""
        tasks = Path(f"/proc/{self.pid}/task").glob("*/children")
        return [int(pid) for text in map(read_or_nothing, tasks) for pid in text.split()]

    def stop(self, seconds: float = SECONDS) -> int:
        """SIGTERM; return the exit code."""
        self.signal(signal.SIGTERM)
        return self.gone(seconds)

    def ask_to_end(self) -> None:
        """Send SIGTERM, also to a process that is frozen; harmless when it has ended."""
        if self.alive:
            self.signal(signal.SIGCONT)
            self.signal(signal.SIGTERM)

    def aclose(self) -> None:
        """End the process that was asked to, gently if it is quick."""
        if self.alive:
            try:
                self.gone(10)
            except AssertionError:
                self.kill()

    def logged(self, text: str) -> None:
        """Wait until ``text`` is in the log: a node logs what it does a moment after it is done, a wait much later."""
        until(lambda: text in self.log.read_text(errors="replace"), f"{self.name} logs {text!r}")

    def last_words(self, lines: int = 60) -> str:
        """Return the end of the log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:]) if self.log.exists() else ""


class Node(Running):
    """One HarmonyLite node. ``sections``: its configuration, by section; top-level keys under ``""``."""

    def __init__(
        self,
        name: str,
        folder: Path,
        *,
        urls: Sequence[str] = (),
        arguments: Sequence[str] = (),
        sections: Mapping[str, Mapping[str, Any]] | None = None,
        file: str = "app.db",
    ) -> None:
        super().__init__(name, folder)
        self.db = folder / file
        self.port = free_port()
        self.config = folder / f"{name}.toml"
        self.arguments = list(arguments)
        self.sections: dict[str, dict[str, Any]] = {
            "": {"db_path": str(self.db), "node_id": name},
            "nats": {"urls": list(urls), "connect_retries": 0, "reconnect_wait": 0.2},
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
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=ANSWERS_WITHIN)
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

    def ask(self, method: str, path: str, arguments: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return the answer of the node's control API."""
        control = json.loads((self.folder / "mirror" / self.db.name / "control.json").read_text())
        connection = http.client.HTTPConnection("127.0.0.1", control["port"], timeout=SECONDS)
        headers = {"Authorization": f"Bearer {control['token']}", "Content-Type": "application/json"}
        try:
            connection.request(method, path, json.dumps(arguments) if arguments else None, headers)
            return dict(json.loads(connection.getresponse().read()))
        finally:
            connection.close()

    def sent(self) -> None:
        """Wait until everything that was committed in the database so far is in the order, and back from there.

        No count of pending rows says so: it is of the last capture, which may have been before the commit.
        """
        until(lambda: "position" in self.ask("GET", "/v1/position?seconds=60"), f"what {self.name} wrote is in order")

    def status(self, counter: str) -> int:
        """Return a counter of `harmonylite status`."""
        return int(self.ask("GET", "/v1/status")["counters"][counter])

    def waits(self, word: str) -> bool:
        """Return whether the node says that it waits for something described with ``word``."""
        return any(word in reason for reason in self.health().get("waits", ()))

    def command(self, *words: str, seconds: float = SECONDS) -> tuple[int, str]:
        """Run ``harmonylite`` with this node's configuration; return exit code and output."""
        done = subprocess.run(
            [sys.executable, "-m", "harmonylite", "-config", str(self.config), *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=seconds,
            check=False,
            env=environment(),
        )
        return done.returncode, done.stdout.decode(errors="replace").rstrip()

    @contextmanager
    def reader(self) -> Iterator[apsw.Connection]:
        """Give a connection that only reads the database; the node is another process, so no lock of its suffers."""
        connection = apsw.Connection(str(self.db), flags=apsw.SQLITE_OPEN_READONLY)
        connection.set_busy_timeout(60_000)
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
        """Return the rows of every table of the application's, in one read transaction, sorted; {} without a file."""
        try:
            with self.reader() as connection:
                connection.execute("BEGIN")
                tables = connection.execute(
                    "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'table'"
                    " AND substr(name, 1, 15) <> '__harmonylite__' AND substr(name, 1, 7) <> 'sqlite_'"
                ).fetchall()
                return {str(name): sorted(exact(connection, str(name)), key=repr) for (name,) in tables}
        except apsw.CantOpenError:  # it may also go while it is opened
            return {}

    def pid_of_server(self) -> int:
        """Return the process id of the embedded nats-server."""

        def server() -> int:
            found = (p for p in self.children() if "nats-server" in read_or_nothing(Path(f"/proc/{p}/cmdline")))
            return next(found, 0)

        return until(server, f"{self.name} has a nats-server")

    def freeze(self) -> None:
        """Stop the process where it is, until SIGCONT; not while it holds the lock that applications write under."""

        def frozen() -> bool:
            self.signal(signal.SIGSTOP)
            until(lambda: states(self.pid) <= {"T", "t"}, f"{self.name} is frozen")
            connection = apsw.Connection(str(self.db))
            try:
                connection.execute("BEGIN IMMEDIATE; ROLLBACK")
            except apsw.BusyError:
                self.signal(signal.SIGCONT)
                return False
            finally:
                connection.close()
            return True

        until(frozen, f"{self.name} holds no lock")


def exact(connection: apsw.Connection, table: str) -> Rows:
    """Return the rows of a table; text that is not UTF-8 comes with its bytes as lone surrogates."""
    try:
        return connection.execute(f'SELECT * FROM "{table}"').fetchall()
    except UnicodeDecodeError:
        pass
    names = [name for (name,) in connection.execute("SELECT name FROM pragma_table_info(?)", [table])]
    shown = ", ".join(
        f"""typeof("{n}") = 'text', iif(typeof("{n}") = 'text', CAST("{n}" AS BLOB), "{n}")""" for n in names
    )
    return [
        tuple(
            value.decode(errors="surrogateescape") if is_text else value
            for is_text, value in zip(row[::2], row[1::2], strict=True)
        )
        for row in connection.execute(f'SELECT {shown} FROM "{table}"')
    ]


def equal(nodes: Sequence[Node]) -> dict[str, Rows]:
    """Return the rows that the nodes' databases all hold now, {} where they differ."""
    first = nodes[0].content()
    return first if first and all(node.content() == first for node in nodes[1:]) else {}


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
        return until(lambda: equal(nodes), f"{', '.join(node.name for node in nodes)} are equal {what}", seconds)
    except AssertionError as error:
        raise AssertionError(f"{error}\n{differences(nodes)}") from None


def agree(nodes: Sequence[Node]) -> None:
    """Let every node verify, asked as `harmonylite verify` asks; all must find that all agree.

    What is equal need not be ready: a node that has just got the last row answers no other one's question yet.
    """
    for node in nodes:
        node.ready()
    for node in nodes:
        found = verified(node)
        assert found.get("agree"), f"{node.name}: {found}"


def verified(node: Node) -> dict[str, Any]:
    """Return what a node's verify finds, once it can ask the others and all answer: a question that meets a link just
    when it is made again is lost.
    """
    found: dict[str, Any] = {}

    def asked() -> bool:
        found.clear()
        found.update(node.ask("POST", "/v1/verify", {"repair": False, "seconds": 20}))
        return not found.get("error") and not found.get("silent")

    try:
        until(asked, f"{node.name} can verify, and all answer", 2 * SECONDS)
    except AssertionError as error:
        raise AssertionError(f"{error}; it says {found}") from None
    return found
