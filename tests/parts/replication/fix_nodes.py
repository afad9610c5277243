"""Whole nodes in one process, each on a database of its own with one table."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import closing
from pathlib import Path

import apsw

from harmonylite.config import load
from harmonylite.jetstream.shard import JetStreamShard
from harmonylite.node.control import Control
from harmonylite.node.node import NodeRuntime
from harmonylite.replication.engine import Engine
from harmonylite.wire import KIND_CHANGES, VERSION, Envelope, TableBlock, encode_block, encode_envelope, encode_tables
from tests.parts.fix_nats import eventually


def write(database: Path, *statements: str) -> None:
    """Commit as an application would, with a connection of its own of the one SQLite library in this process."""
    with closing(apsw.Connection(str(database))) as connection:
        connection.set_busy_timeout(10_000)
        for statement in statements:
            connection.execute(statement).fetchall()


def items(database: Path) -> list[str]:
    with closing(apsw.Connection(str(database))) as connection:
        connection.set_busy_timeout(10_000)
        return [str(key) for (key,) in connection.execute("SELECT id FROM item ORDER BY id")]


class Running:
    """A node on a database of its own with one empty table, and whatever else ``ddl`` makes; ``more``: lines of its
    configuration.
    """

    def __init__(self, folder: Path, name: str, url: str, *ddl: str, more: str = "") -> None:
        self.database = folder / name / "app.db"
        self.database.parent.mkdir()
        write(self.database, "PRAGMA journal_mode = wal", "CREATE TABLE item(id TEXT PRIMARY KEY)", *ddl)
        self.config = folder / f"{name}.toml"
        self.config.write_text(
            f'db_path = {json.dumps(str(self.database))}\nnode_id = "{name}"\n[nats]\nurls = ["{url}"]\n'
            "[health_check]\nenable = false\n[prometheus]\nenable = false\n" + more
        )
        self.node = NodeRuntime(load(self.config))
        self.task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self.task = asyncio.create_task(self.node.run())
        await eventually(lambda: self.node.status_object.caught_up or bool(self.task and self.task.done()), "start")
        assert not self.task.done(), self.task

    async def stop(self) -> None:
        if self.task is not None:
            self.node.stop()
            task, self.task = self.task, None
            await task

    async def restart(self) -> None:
        """Stop, and start a new process's worth of it on the same files."""
        await self.stop()
        self.node = NodeRuntime(load(self.config))
        await self.start()

    @property
    def engine(self) -> Engine:
        """What replicates."""
        assert self.node._parts.engine is not None
        return self.node._parts.engine

    @property
    def asked(self) -> Control:
        """What a person asks."""
        return self.node._control

    async def says(self, message: Envelope) -> int:
        """Have the writer that ``message`` names publish it; return its sequence."""
        regional = self.node._parts.regional
        assert regional is not None
        shard = JetStreamShard(regional.link, regional.streams, message.shards[0], message.node)
        return await shard.publish(encode_envelope(message), message_id=str(message.id))


def change_set(node: str, number: int, *tables: TableBlock, session: str = "s", body: bytes | None = None) -> Envelope:
    """Return a change set of one message on shard 0; ``body``: instead of ``tables``."""
    made = encode_block([encode_tables(table) for table in tables], compress=False)[0] if body is None else body
    return Envelope(VERSION, KIND_CHANGES, node, session, number, 0, False, True, [0], time.time(), {}, False, made)
