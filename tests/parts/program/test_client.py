"""What a program in Python asks a node, waiting and with asyncio: the answers are the same, the errors have types."""

from __future__ import annotations

import asyncio
import math
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, closing
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from harmonylite.client import (
    AsyncClient,
    Client,
    ConfigError,
    Entry,
    NotAnsweringError,
    NotFoundError,
    NotRunningError,
    PositionError,
    WaitTimeoutError,
)
from tests.parts.fix_nats import PATIENCE, RealNats, eventually
from tests.parts.replication.fix_nodes import Running, write

Ask = Callable[..., Awaitable[Any]]
VALUES = "CREATE TABLE v(id TEXT PRIMARY KEY, a, b, c, d, e)"


@pytest.fixture
async def node(nats: RealNats, tmp_path: Path) -> AsyncIterator[Running]:
    node = Running(tmp_path, "here", nats.url, VALUES)
    await node.start()
    yield node
    await node.stop()


@pytest.fixture(params=["blocking", "nonblocking"])
def ask(request: pytest.FixtureRequest, node: Running) -> Ask:
    """Ask by a method's name; the blocking client on a thread, as the node runs in this loop."""

    async def asked(name: str, *args: Any, **more: Any) -> Any:
        if request.param == "nonblocking":
            return await getattr(AsyncClient(node.database), name)(*args, **more)
        return await asyncio.to_thread(getattr(Client(node.database), name), *args, **more)

    return asked


async def test_a_node_says_how_it_is(node: Running, ask: Ask) -> None:
    report = await ask("status")
    assert (report.node_id, report.caught_up, report.pending_rows) == ("here", True, 0)
    assert report.report["db_path"] == str(node.database)


async def test_a_position_is_waited_for(node: Running, ask: Ask) -> None:
    write(node.database, "INSERT INTO item VALUES('one')")
    position = await ask("position", seconds=PATIENCE)
    assert await ask("wait", position, seconds=PATIENCE)
    assert await ask("wait", seconds=PATIENCE)
    assert await ask("conflicts", table="item") == []


@pytest.mark.parametrize(
    ("name", "args", "more", "error"),
    [
        ("wait", ["0:999"], {"seconds": 0.2}, WaitTimeoutError),
        ("wait", ["no position"], {}, ConfigError),
        ("wait", ["0:1@00000000"], {}, PositionError),
    ],
)
async def test_a_refusal_has_a_type(
    ask: Ask, name: str, args: list[str], more: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        await ask(name, *args, **more)


async def entries(node: Running, *, blocking: bool, start: str, table: str = "", count: int = 1) -> list[Entry]:
    """Return the next ``count`` entries with changes."""
    if blocking:

        def read() -> list[Entry]:
            with closing(Client(node.database).changes(start, table=table)) as feed:  # type: ignore[type-var]
                return list(islice((entry for entry in feed if entry.changes), count))

        return await asyncio.to_thread(read)
    found = []
    async with aclosing(AsyncClient(node.database).changes(start, table=table)) as feed:
        async for entry in feed:
            found += [entry] if entry.changes else []
            if len(found) == count:
                break
    return found


@pytest.mark.parametrize("blocking", [True, False])
async def test_changes_come_with_the_values_of_sqlite(node: Running, blocking: bool) -> None:
    start = await AsyncClient(node.database).position(seconds=PATIENCE)
    write(node.database, "INSERT INTO v VALUES('k', 9223372036854775807, 9e999, x'00ff', NULL, CAST(x'ff41' AS TEXT))")
    async with asyncio.timeout(PATIENCE):
        (entry,) = await entries(node, blocking=blocking, start=start)
    (change,) = entry.changes
    assert (entry.origin, change.table, change.kind, dict(change.key)) == ("here", "v", "insert", {"id": "k"})
    told = {**change.after}
    assert (told["a"], told["b"], told["c"], told["d"]) == (2**63 - 1, math.inf, b"\x00\xff", None)
    assert str(told["e"]).encode("utf-8", "surrogateescape") == b"\xffA"


@pytest.mark.parametrize("blocking", [True, False])
async def test_a_transaction_of_many_rows_comes_in_parts_and_a_table_alone(node: Running, blocking: bool) -> None:
    start = await AsyncClient(node.database).position(seconds=PATIENCE)
    rows = "WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1500) SELECT 'r' || i, i, 0, 0, 0, 0 FROM n"
    write(node.database, "INSERT INTO item VALUES('one')", f"INSERT INTO v {rows}")
    async with asyncio.timeout(PATIENCE):
        one, two = await entries(node, blocking=blocking, start=start, table="v", count=2)
    assert (one.position, len(one.changes), len(two.changes)) == (None, 1000, 500)
    assert two.position is not None


@pytest.mark.parametrize("blocking", [True, False])
async def test_a_feed_that_is_refused_says_why(node: Running, blocking: bool) -> None:
    with pytest.raises(NotFoundError, match="did you mean item"):
        await entries(node, blocking=blocking, start="now", table="itm")


@pytest.mark.parametrize("blocking", [True, False])
async def test_a_feed_of_a_node_that_stops_ends_with_an_error(node: Running, blocking: bool) -> None:
    reading = asyncio.create_task(entries(node, blocking=blocking, start="now"))
    await eventually(lambda: bool(node.node._feeds._readers), "the reader")
    await node.stop()
    with pytest.raises((NotAnsweringError, NotRunningError)):
        await reading


async def test_without_a_node_the_error_says_so(tmp_path: Path) -> None:
    with pytest.raises(NotRunningError, match="no running node"):
        await AsyncClient(tmp_path / "app.db").status()
    with pytest.raises(NotRunningError, match="no running node"):
        await asyncio.to_thread(Client(tmp_path / "app.db").status)


def test_the_client_brings_no_second_sqlite_library() -> None:
    """Not even the module: nothing in the application's process can then open its file with another library."""
    text = "import harmonylite, harmonylite.client, sys; harmonylite.Node; sys.exit('apsw' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", text], check=False).returncode == 0
