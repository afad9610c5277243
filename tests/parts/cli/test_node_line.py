"""A line that only runs the node is read without click, and comes to the same; an idle node holds little."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import click
from hypothesis import given
from hypothesis import strategies as st

from harmonylite.cli.given import Invocation
from harmonylite.cli.run_node import node_line
from tests.parts.fix_nats import PATIENCE, RealNats

WORDS = re.findall(
    r"\S+",
    """-config --config -node-id --node-id -cluster-addr -cluster-peers -cluster-secret-file -leaf-servers -verbose
    --verbose -verbose=true -verbose=false -config=a.toml --node-id=7 -leaf-servers=nats://x,y -node-id= a.toml
    localhost:1 - -- -5 -node_id -help -version -cleanup=false status ---config""",
)

HEAVY = set(
    re.findall(
        r"\S+",
        """click rich rich_click pygments pydantic structlog attr nacl nkeys uvicorn starlette anyio h11
        prometheus_client obstore asyncssh webdav4 httpx harmonylite.client harmonylite.demo harmonylite.doctor""",
    )
)
"""What commands, optional stores, or somebody who asks the node over HTTP need, and an idle node does not."""


def by_click(words: list[str]) -> Invocation | None:
    """Return what click makes of a line that only runs the node, None for any other one."""
    from harmonylite.cli.root import ACTIONS, root

    try:
        context = root.make_context("harmonylite", list(words))
    except (click.ClickException, click.exceptions.Exit):
        return None
    if context._protected_args or context.args or any(context.params[name] for name in ACTIONS):
        return None
    found = Invocation()
    found.take(context.params)
    return found


@given(st.lists(st.sampled_from([*WORDS, ""]), max_size=5))
def test_what_is_read_without_click_comes_to_what_click_makes_of_it(words: list[str]) -> None:
    without = node_line(words)
    if without is not None:
        assert without == by_click(words)


def test_the_usual_lines_need_no_click() -> None:
    line = ["-config", "a.toml", "--node-id=7", "-cluster-addr", "localhost:1", "-cluster-peers=nats://x", "-verbose"]
    found = node_line(line)
    assert found is not None
    assert (found.config, found.verbose) == (Path("a.toml"), True)
    assert node_line([]) == Invocation()


@contextmanager
def notified(folder: Path) -> Iterator[tuple[socket.socket, dict[str, str]]]:
    """Give a socket on which a node says that it is ready, and the environment that asks for it."""
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as sock:
        sock.bind(str(folder / "notify"))
        sock.setblocking(False)
        yield sock, {**os.environ, "NOTIFY_SOCKET": str(folder / "notify")}


async def test_an_idle_node_has_not_imported_what_it_does_not_use(nats: RealNats, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "app.db")) as application:
        application.execute("CREATE TABLE item(id INTEGER PRIMARY KEY)")
    config = tmp_path / "config.toml"
    config.write_text(f'db_path = "{tmp_path}/app.db"\n[nats]\nurls = ["{nats.url}"]\n')
    command = [sys.executable, "-X", "importtime", "-m", "harmonylite", "-config", str(config)]
    with notified(tmp_path) as (sock, environment), (tmp_path / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(*command, stderr=log, env=environment)
        try:
            async with asyncio.timeout(PATIENCE):
                while b"READY=1" not in await asyncio.get_running_loop().sock_recv(sock, 4096):
                    pass
        finally:
            process.terminate()
            await process.wait()
    lines = (tmp_path / "log").read_text(errors="replace").splitlines()
    found = {line.rpartition("|")[2].strip() for line in lines if line.startswith("import time:")}
    assert "harmonylite.replication.engine" in found
    assert HEAVY & found == set()
