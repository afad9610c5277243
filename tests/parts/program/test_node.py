"""A node that a program runs: a process of its own, that comes and goes with the program."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest

from harmonylite import Config, Node
from harmonylite.client import ConfigError, HarmonyLiteError, NotRunningError
from harmonylite.config import Settings
from harmonylite.config.section import Key
from harmonylite.program import Keys
from tests.parts.fix_nats import PATIENCE, RealNats, eventually

OFF = {"enable": False}


def config(nats: RealNats, database: Path, name: str = "here") -> Config:
    return Config(db_path=database, node_id=name, nats={"urls": [nats.url]}, health_check=OFF, prometheus=OFF)


def make(database: Path, *statements: str) -> list[tuple[object, ...]]:
    """Run as the application: with the SQLite library that this program has, while the node runs."""
    with closing(sqlite3.connect(database, isolation_level=None, timeout=60)) as connection:
        return [row for sql in statements for row in connection.execute(sql).fetchall()]


async def test_two_nodes_of_one_program_replicate(nats: RealNats, tmp_path: Path) -> None:
    one, two = tmp_path / "one" / "app.db", tmp_path / "two" / "app.db"
    for database in (one, two):
        database.parent.mkdir()
    make(one, "CREATE TABLE item(id TEXT PRIMARY KEY)")
    async with Node(config(nats, one, "one")) as here, Node(config(nats, two, "two")) as there:
        await there.client.wait(seconds=PATIENCE)
        make(one, "INSERT INTO item VALUES('written')")
        await there.client.wait(await here.client.position(seconds=PATIENCE), seconds=PATIENCE)
        assert make(two, "SELECT id FROM item") == [("written",)]
        assert (await asyncio.to_thread(here.blocking.status)).node_id == "one"
    assert not here.running
    with pytest.raises(NotRunningError):
        await here.client.status()


async def test_a_node_that_dies_is_started_again(nats: RealNats, tmp_path: Path) -> None:
    make(tmp_path / "app.db", "CREATE TABLE item(id TEXT PRIMARY KEY)")
    async with Node(config(nats, tmp_path / "app.db")) as node:
        before = node._process
        assert before is not None
        os.kill(before.pid, signal.SIGKILL)
        await eventually(lambda: node._process is not before and node.running, "another start")
        async with asyncio.timeout(PATIENCE):
            while True:
                try:
                    assert (await node.client.status()).node_id == "here"
                    break
                except HarmonyLiteError:
                    await asyncio.sleep(0.05)


async def test_a_node_that_cannot_start_says_so_and_leaves_nothing(nats: RealNats, tmp_path: Path) -> None:
    node = Node(Config(db_path=tmp_path / "app.db", extensions={"python": "no_such_module:setup"}))
    with pytest.raises(HarmonyLiteError, match="exit code"):
        await node.open()
    assert not node.running


async def test_one_that_runs_already_keeps_the_second_out(nats: RealNats, tmp_path: Path) -> None:
    make(tmp_path / "app.db", "CREATE TABLE item(id TEXT PRIMARY KEY)")
    async with Node(config(nats, tmp_path / "app.db")):
        with pytest.raises(HarmonyLiteError, match="ended at once"):
            await Node(config(nats, tmp_path / "app.db")).open()


async def test_the_node_does_not_outlive_its_program(nats: RealNats, tmp_path: Path) -> None:
    make(tmp_path / "app.db", "CREATE TABLE item(id TEXT PRIMARY KEY)")
    text = f"""
import asyncio
from harmonylite import Config, Node
async def main():
    config = Config(db_path={str(tmp_path / "app.db")!r}, nats={{"urls": [{nats.url!r}]}})
    async with Node(config) as node:
        print(node._process.pid, flush=True)
        await asyncio.Event().wait()
asyncio.run(main())
"""
    program = await asyncio.create_subprocess_exec(sys.executable, "-c", text, stdout=asyncio.subprocess.PIPE)
    assert program.stdout is not None
    async with asyncio.timeout(PATIENCE):
        pid = int(await program.stdout.readline())
    program.kill()
    await program.wait()
    await eventually(lambda: not _alive(pid), "the node's end")


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_faulty_configuration_is_told_whole_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as told:
        Config(db_path=tmp_path / "app.db", nats={"urls": ["ftp://here"], "conect_retries": 3})
    assert "Config: nats.urls" in str(told.value)
    assert "did you mean nats.connect_retries" in str(told.value)


def test_keys_win_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "node.toml"
    file.write_text('db_path = "there.db"\nnode_id = "file"\n')
    assert Config(file, db_path=tmp_path / "here.db").db_path == tmp_path / "here.db"
    assert Config(str(file)).db_path.name == "there.db"


def test_secrets_are_not_shown(tmp_path: Path) -> None:
    assert "hunter2" not in repr(
        Config(db_path=tmp_path / "app.db", nats={"user_name": "u", "user_password": "hunter2"})
    )


def test_every_key_of_the_configuration_has_a_type_here() -> None:
    fields = Settings.known
    assert list(Keys.__annotations__) == list(fields)
    tables = {name for name, field in fields.items() if not isinstance(field, Key)}
    assert {name for name, kind in Keys.__annotations__.items() if "Section" in str(kind)} == tables
