"""Run a node from a program in Python: `Config` and `Node`, which `harmonylite` exports.

Invariant: the node is a child process. Two SQLite libraries in one process break each other's file locks, and the
application's file is open in this one; so nothing here opens the database. The child never outlives its program.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from os import PathLike
from pathlib import Path
from signal import SIGKILL, SIGTERM
from typing import TYPE_CHECKING, Any, Final, TypedDict, Unpack

from harmonylite.backoff import Backoff
from harmonylite.client import AsyncClient, Client
from harmonylite.config.load import load_given
from harmonylite.errors import ConfigError, FencedError, HarmonyLiteError, NotRunningError
from harmonylite.identity import folder_for
from harmonylite.nats_server.child_process import guarded
from harmonylite.resource import Resource
from harmonylite.web.control_file import read_control_file

if TYPE_CHECKING:
    pass

log = logging.getLogger("harmonylite")

START_SECONDS: Final = 60.0
"""How long a node may take until it answers."""
STOP_SECONDS: Final = 15.0
"""How long a node may take to publish what is committed and end, before it is killed."""
FINAL: Final = (0, ConfigError.exit_code, FencedError.exit_code)
"""Exit codes after which a node isn't restarted: it ended by itself, or a restart would end the same way."""

Section = Mapping[str, Any]


class Keys(TypedDict, total=False):
    """The keys at the top of the configuration file, and its tables (docs/configuration.md)."""

    db_path: str | PathLike[str]
    node_id: str
    publish: bool
    replicate: bool
    capture_batch_rows: int
    checkpointer: bool
    cleanup_interval: int | str
    sleep_timeout: int | str
    polling_interval: int | str
    seq_map_path: str
    snapshot: Section
    replication_log: Section
    nats: Section
    tables: Section
    extensions: Section
    schema: Section
    logging: Section
    prometheus: Section
    health_check: Section
    page: Section
    merge: Section
    feed: Section
    verify: Section


class Config:
    """A node's configuration: a file, keys given here, or both; keys win over ``HARMONYLITE_…`` variables and the file.

    ``Config("node.toml")``, ``Config(db_path="app.db", nats={"urls": ["nats://127.0.0.1:4222"]})``: tables of the file
    are mappings. Everything is checked at once.

    :raises ConfigError: the file can't be read, or anything is wrong; it lists all faults.
    """

    def __init__(self, file: str | PathLike[str] | None = None, /, **keys: Unpack[Keys]) -> None:
        self._given = json.dumps({"file": None if file is None else os.fspath(file), "keys": keys}, default=os.fspath)
        self._settings = load_given(self._given)

    @property
    def db_path(self) -> Path:
        """The database, as an absolute path."""
        return self._settings.db_path

    def __repr__(self) -> str:
        """Name only the database: other keys may hold secrets."""
        return f"Config(db_path={str(self.db_path)!r})"


class Node(Resource):
    """A node that runs as long as an ``async with`` does, beside this program's database.

    Entering starts it and returns once it answers. It may still be catching up then: ``await node.client.wait()`` if
    you need the database first. Leaving publishes what is committed, if NATS is reachable, and stops it. A node that
    ends otherwise is restarted after a growing pause; the database can be read and written meanwhile.

    One node serves one database: of several worker processes only one can enter. Run `harmonylite` beside those.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self._process: asyncio.subprocess.Process | None = None
        self._supervisor: asyncio.Task[int] | None = None

    @property
    def db_path(self) -> Path:
        """The database, as an absolute path."""
        return self._config.db_path

    @cached_property
    def client(self) -> AsyncClient:
        """The client of this node: status, position, wait, changes, conflicts."""
        return AsyncClient(self.db_path)

    @cached_property
    def blocking(self) -> Client:
        """The same for code that isn't asynchronous, such as a thread's."""
        return Client(self.db_path)

    @property
    def running(self) -> bool:
        """True while the node's process runs."""
        return self._process is not None and self._process.returncode is None

    async def open(self) -> None:
        """Start the node; return once it answers.

        :raises HarmonyLiteError: it ended, with its exit code, or did not answer in time. Its log, on standard error,
            says why.
        """
        try:
            await self._start()
            await self._answers()
        except BaseException:
            await self._end()
            raise
        self._supervisor = asyncio.create_task(self._supervise(), name="node beside the database")

    async def aclose(self) -> None:
        """End the node. Safe to call twice."""
        supervisor, self._supervisor = self._supervisor, None
        if supervisor is not None:
            supervisor.cancel()
            await asyncio.wait([supervisor])
        await self._end()

    async def ended(self) -> int:
        """Return the exit code of a node that ended and isn't restarted: 0 after ``sleep_timeout``, 2 for a faulty
        configuration, 8 where another process publishes under its id.
        """
        if self._supervisor is None:
            raise NotRunningError("the node was not started")
        return await asyncio.shield(self._supervisor)

    async def _start(self) -> None:
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("NOTIFY_", "WATCHDOG_"))
        }
        self._process = await asyncio.create_subprocess_exec(
            *guarded(_command()),
            stdin=asyncio.subprocess.PIPE,
            env=environment,
            process_group=0,  # a Ctrl-C at the terminal is for the program, which ends its node in order
        )
        assert self._process.stdin is not None
        # Not by arguments or variables: other users see those, and the configuration may hold secrets.
        self._process.stdin.write(self._config._given.encode())
        self._process.stdin.close()

    async def _answers(self) -> None:
        assert self._process is not None
        end, backoff = time.monotonic() + START_SECONDS, Backoff(first=0.05, most=0.5)
        while time.monotonic() < end:
            if self._process.returncode is not None:
                error = HarmonyLiteError(
                    f"the node of {self.db_path} ended at once, with exit code {self._process.returncode}",
                    advice="its last lines on standard error say why",
                )
                error.exit_code = self._process.returncode
                raise error
            with suppress(NotRunningError):
                if read_control_file(folder_for(self.db_path)).pid == self._process.pid:
                    return
            await asyncio.sleep(backoff.failed(time.monotonic()))
        raise HarmonyLiteError(f"the node of {self.db_path} did not answer within {START_SECONDS:.0f} s")

    async def _supervise(self) -> int:
        """Start the node again whenever it ends; return the exit code of one that is not to be started again."""
        backoff = Backoff(first=1.0, most=30.0, calm=60.0)
        while True:
            assert self._process is not None
            code = await self._process.wait()
            if code in FINAL:
                log.warning(
                    "not restarting the node of %(database)s: it ended with exit code %(exit_code)d",
                    {"database": self.db_path, "exit_code": code},
                )
                return code
            pause = backoff.failed(time.monotonic())
            log.error(
                "restarting the node of %(database)s in %(seconds).0f s: it ended with exit code %(exit_code)d",
                {"database": self.db_path, "exit_code": code, "seconds": pause},
            )
            await asyncio.sleep(pause)
            await self._start()

    async def _end(self) -> None:
        process = self._process
        if process is None:
            return
        for number, seconds in ((SIGTERM, STOP_SECONDS), (SIGKILL, None)):
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    process.send_signal(number)
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await process.wait()
                    return


def _command() -> Sequence[str]:
    return [sys.executable, "-m", "harmonylite.hosted"]
