"""A page of the documentation as a program: its files are written, its commands run, on ports and folders of a test.

Invariant: what runs is the page's own text; only hosts' ports and folders are exchanged, and what a test says it adds.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import apsw

from tests.cluster.processes import SECONDS, Running, environment, until
from tests.ports import free_port

DOCS = Path(__file__).parents[2] / "docs"
FOLDERS = ("/data", "/etc/harmonylite", "/mnt")
CURL = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1]).read().decode())"
"""What the page's `curl URL` does, for a machine that has none."""

_ADDRESS = re.compile(r"\b(localhost|127\.0\.0\.1|0\.0\.0\.0|nats-server-(\d)):(\d{4})\b")
_LONG = re.compile(r"nats-server -c \S+|harmonylite -config \S+(?: -cluster-\w+ \S+)*(?: nats serve)?$")


@dataclass(frozen=True)
class Block:
    """A fenced block. ``heading``: the one above it; ``name``: the file that its first line names, "" for none."""

    heading: str
    language: str
    text: str
    name: str


def blocks(page: Path) -> list[Block]:
    """Return all fenced blocks of a page."""
    found, heading = [], ""
    for match in re.finditer(
        r"^#+ (?P<head>[^\n]+)$|^```(?P<lang>\w*)\n(?P<text>.*?)^```$", page.read_text(), re.M | re.S
    ):
        if match["head"]:
            heading = match["head"]
            continue
        first = match["text"].partition("\n")[0]
        name = first.removeprefix("# ") if re.fullmatch(r"# \S+\.(toml|conf)", first) else ""
        found.append(Block(heading, match["lang"], match["text"], name))
    return found


class Guide:
    """One page at work in ``folder``. What it starts is ended by `aclose`."""

    def __init__(self, page: str, folder: Path) -> None:
        self.blocks = blocks(DOCS / page)
        self.folder = folder
        self.running: list[Running] = []
        self._ports: dict[str, int] = {}
        self._health: dict[str, int] = {}
        programs = folder / "bin"
        programs.mkdir()
        python = shlex.quote(sys.executable)
        shims = {"harmonylite": f'{python} -m harmonylite "$@"'}
        if shutil.which("curl") is None:
            shims["curl"] = f'{python} -c {shlex.quote(CURL)} "$@"'
        for name, command in shims.items():
            (programs / name).write_text(f"#!/bin/sh\nexec {command}\n")
            (programs / name).chmod(0o755)
        path = os.pathsep.join([str(programs), str(Path(sys.executable).parent), os.environ["PATH"]])
        self._environment = {**environment(), "PATH": path}

    def port(self, address: str) -> int:
        """Return the port that means ``host:port`` of the page; all names of one host have the same."""
        match = _ADDRESS.fullmatch(address)
        assert match, address
        return self._port(match[2] or "1", match[3])

    def _port(self, machine: str, port: str) -> int:
        return self._ports.setdefault(f"{machine}:{port}", free_port())

    def here(self, text: str) -> str:
        """Return ``text`` of the page with the test's ports and folders."""

        def address(match: re.Match[str]) -> str:
            host = match[1] if not match[2] else "127.0.0.1"
            return f"{host}:{self._port(match[2] or '1', match[3])}"

        text = _ADDRESS.sub(address, text)
        text = re.sub(r"monitor_port = (\d+)", lambda m: f"monitor_port = {self._port('1', m[1])}", text)
        for folder in FOLDERS:
            text = re.sub(rf"(?<![\w/]){folder}(?=/)", f"{self.folder}{folder}", text)
        return text

    def file(self, name: str, **exchanged: str) -> Path:
        """Write the file ``name`` of the page, with ``exchanged`` pieces of its text; a node's also gets health."""
        (block,) = (block for block in self.blocks if block.name == name)
        text = block.text
        for old, new in exchanged.items():
            assert old in text, f"{name} has no {old}"
            text = text.replace(old, new)
        return self.write(name, text)

    def write(self, name: str, text: str) -> Path:
        """Write a file in the page's manner."""
        path = Path(self.here(name)) if name.startswith("/") else self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".toml"):
            port = self._health.setdefault(name, free_port())
            text = f'{text}\n[health_check]\nenable = true\nbind = "127.0.0.1:{port}"\n'
            for database in re.findall(r'^db_path = "(.+)"', self.here(text), re.M):
                make_shop(Path(database))
        path.write_text(self.here(text))
        return path

    def commands(self, heading: str) -> list[str]:
        """Return the command lines below ``heading``."""
        texts = [block.text for block in self.blocks if block.heading == heading and block.language == "bash"]
        return [line for text in texts for line in text.splitlines() if line]

    def run(self, heading: str) -> list[str]:
        """Run the commands below ``heading`` in their order; return what those said that end by themselves."""
        return [said for line in self.commands(heading) if (said := self.command(line)) is not None]

    def command(self, line: str, code: int = 0) -> str | None:
        """Run one command line.

        Start it and return None where it runs permanently, else wait and return what it said.
        """
        words = shlex.split(self.here(line))
        if _LONG.fullmatch(line):  # it runs until it is ended
            process = Running(f"run{len(self.running)}", self.folder)
            with process.log.open("ab") as log:
                process.process = subprocess.Popen(
                    words,
                    cwd=self.folder,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=self._environment,
                    start_new_session=True,
                )
            self.running.append(process)
            if words[0] == "nats-server":
                process.logged("Server is ready")
            return None
        done = subprocess.run(
            words,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=SECONDS,
            check=False,
            env=self._environment,
        )
        said = done.stdout.decode(errors="replace")
        assert done.returncode == code, f"{line}: exit code {done.returncode}\n{said}"
        return said

    def ready(self, name: str) -> None:
        """Wait until the node with the configuration ``name`` is ready."""
        try:
            until(lambda: self.asked(name).endswith("200"), f"the node of {name} is ready")
        except AssertionError as error:
            raise AssertionError(f"{error}; it says {self.asked(name)}\n{self.last_words()}") from None

    def asked(self, name: str) -> str:
        """Return what the node with the configuration ``name`` says of its readiness, and the HTTP status behind it."""
        connection = HTTPConnection("127.0.0.1", self._health[name], timeout=SECONDS)
        try:
            connection.request("GET", "/readyz")
            answer = connection.getresponse()
            return f"{answer.read().decode()}{answer.status}"
        except (OSError, HTTPException) as error:
            return str(error)
        finally:
            connection.close()

    def last_words(self) -> str:
        """Return the ends of all logs."""
        return "\n".join(f"--- {process.name}\n{process.last_words(30)}" for process in self.running)

    def stop(self) -> None:
        """End what runs."""
        for process in self.running:
            process.ask_to_end()
        for process in reversed(self.running):
            process.aclose()
        self.running = []


def make_shop(path: Path) -> None:
    """Make a small database where there is none."""
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = apsw.Connection(str(path))
    connection.execute("PRAGMA journal_mode = wal").fetchall()
    connection.execute("CREATE TABLE item (id TEXT PRIMARY KEY, n INTEGER)")
    connection.close()


def write_row(path: Path, key: str) -> None:
    """Commit one row as an application would; the node is another process."""
    connection = apsw.Connection(str(path))
    connection.set_busy_timeout(60_000)
    connection.execute("INSERT INTO item VALUES (?, 1)", (key,))
    connection.close()


def keys(path: Path) -> set[str]:
    """Return the keys of all rows."""
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    connection.set_busy_timeout(60_000)
    try:
        return {str(key) for (key,) in connection.execute("SELECT id FROM item")}
    finally:
        connection.close()
