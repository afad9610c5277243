"""One process with many databases: what a further one that rests costs, and how commands find the right one."""

from __future__ import annotations

import http.client
import json
import sys
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import apsw
import pytest

from tests.cluster.proc import read_or_nothing
from tests.cluster.processes import Running, until
from tests.ports import free_port

pytestmark = pytest.mark.timeout(300)

MOST_MB = 3.0
"""Memory that a further database which rests may cost, in the node and its nats-server together."""
COMMAND = [sys.executable, "-m", "harmonylite"]


class Process(Running):
    """A process with ``count`` databases of one table each, and an embedded server."""

    def __init__(self, folder: Path, count: int) -> None:
        super().__init__(f"of-{count}", folder / f"of-{count}")
        self.port = free_port()
        self.names = [f"db{number}" for number in range(count)]
        text = f'[health_check]\nenable = true\nbind = "127.0.0.1:{self.port}"\n'
        for name in self.names:
            with closing(apsw.Connection(str(self.file(name)))) as connection:
                connection.execute("PRAGMA journal_mode = wal; CREATE TABLE item(id TEXT PRIMARY KEY)").fetchall()
            text += f'[[database]]\nname = "{name}"\ndb_path = {json.dumps(str(self.file(name)))}\n'
        self.config = self.folder / "config.toml"
        self.config.write_text(text)

    def file(self, name: str) -> Path:
        return self.folder / f"{name}.db"

    def start(self) -> None:
        self.spawn([*COMMAND, "-config", str(self.config)])
        until(lambda: get(self.port, "/readyz") == 200, "all databases are caught up")

    def ask(self, name: str, *words: str) -> tuple[int, str]:
        asking = Running(f"ask-{name}", self.folder)
        asking.log.unlink(missing_ok=True)
        asking.spawn([*COMMAND, "-config", str(self.config), *(("-database", name) if name else ()), *words])
        return asking.gone(), asking.log.read_text()

    @property
    def memory(self) -> float:
        """Megabytes that the process and its server hold."""
        children = list(map(str, self.children()))
        return sum(rss(pid) for pid in (str(self.pid), *children, *grandchildren(children)))


def get(port: int, path: str) -> int:
    """Return the status of an answer, 0 where nobody answers."""
    with (
        suppress(OSError, http.client.HTTPException),
        closing(http.client.HTTPConnection("127.0.0.1", port, timeout=5)) as connection,
    ):
        connection.request("GET", path)
        return connection.getresponse().status
    return 0


def grandchildren(pids: list[str]) -> list[str]:
    return [found for pid in pids for found in read_or_nothing(Path(f"/proc/{pid}/task/{pid}/children")).split()]


def rss(pid: str) -> float:
    lines = read_or_nothing(Path(f"/proc/{pid}/status")).splitlines()
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS")), 0.0)


def least(process: Process) -> float:
    """Return the least memory of two seconds: what a start needs for a moment is given back."""
    end, found = time.monotonic() + 2, process.memory
    while time.monotonic() < end:
        time.sleep(0.1)
        found = min(found, process.memory)
    return found


def test_a_further_database_that_rests_costs_little(tmp_path: Path) -> None:
    held: dict[int, float] = {}

    def little(process: Process) -> bool:
        held[10] = least(process)
        return held[10] - held[2] <= 8 * MOST_MB

    for count in (2, 10):
        process = Process(tmp_path, count)
        try:
            process.start()
            if count == 2:
                held[2] = least(process)
                commands_find_the_database(process)
            else:
                until(lambda: little(process), f"a further database costs {MOST_MB} MB at most; {held}")  # noqa: B023
            process.process.terminate()  # type: ignore[union-attr]
            assert process.gone() == 0, process.log.read_text()
        finally:
            if process.alive:
                process.kill()
    print(f"a further database: {(held[10] - held[2]) / 8:.2f} MB", held)


def commands_find_the_database(process: Process) -> None:
    code, said = process.ask("", "status")
    assert (code, "has 2 databases" in said, "name one with -database: db0, db1" in said) == (2, True, True), said
    code, said = process.ask("db1", "status", "-json")
    report: dict[str, Any] = json.loads(said)
    assert (code, report["db_path"]) == (0, str(process.file("db1")))
    code, said = process.ask("db2", "status")
    assert (code, "no [[database]] is named db2" in said) == (2, True), said
