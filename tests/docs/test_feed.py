"""The clients in docs/feed.md hear of changes, as they are written there."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from tests.parts.fix_nats import PATIENCE, RealNats
from tests.parts.replication.fix_nodes import Running, write

PAGE = Path(__file__).parents[2] / "docs" / "feed.md"
HARMONYLITE = f"{sys.executable} -m harmonylite"
CLIENTS = {"python": [sys.executable, "-c"], "js": ["node", "--input-type=module", "-e"], "sh": ["sh", "-c"]}


def block(language: str, number: int = 0) -> str:
    found: list[str] = re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return found[number]


@pytest.mark.parametrize("language", CLIENTS)
async def test_each_client_hears_of_a_change(nats: RealNats, tmp_path: Path, language: str) -> None:
    needed = {"js": ["node"], "sh": ["jq"]}.get(language, [])
    if any(shutil.which(tool) is None for tool in needed):
        pytest.skip(f"{needed} is not here")
    node = Running(tmp_path, "here", nats.url)
    await node.start()
    text = block(language).replace("/data/mirror/app.db", str(node.database.parent / "mirror" / "app.db"))
    text = text.replace("harmonylite ", f"{HARMONYLITE} -config {node.config} ").replace("jq -c", "jq --unbuffered -c")
    client = await asyncio.create_subprocess_exec(
        *CLIENTS[language], text, stdout=asyncio.subprocess.PIPE, env=dict(os.environ), start_new_session=True
    )
    assert client.stdout is not None
    try:
        async with asyncio.timeout(3 * PATIENCE):
            while not node.node._feeds._readers:
                assert client.returncode is None
                await asyncio.sleep(0.01)
            write(node.database, "INSERT INTO item VALUES('one')")
            line = (await client.stdout.readline()).decode()
    finally:
        with suppress(ProcessLookupError):
            os.killpg(client.pid, 15)
        await client.communicate()
        await node.stop()
    assert all(word in line for word in ("here", "insert", "item", "one")), line


async def test_the_position_of_a_write_can_be_waited_for(nats: RealNats, tmp_path: Path) -> None:
    node = Running(tmp_path, "here", nats.url)
    await node.start()
    text = block("sh", 2).replace("harmonylite ", f"{HARMONYLITE} -config {node.config} ")
    text = text.replace("-timeout 5", f"-timeout {PATIENCE:.0f}")
    client = await asyncio.create_subprocess_exec("sh", "-ec", text, stdout=asyncio.subprocess.PIPE)
    said, _ = await client.communicate()
    await node.stop()
    assert client.returncode == 0
    assert said.startswith(b"0:")


async def test_the_command_in_the_docs_writes_down_what_changed(nats: RealNats, tmp_path: Path) -> None:
    if shutil.which("jq") is None:
        pytest.skip("['jq'] is not here")
    node = Running(tmp_path, "here", nats.url)
    await node.start()
    write(node.database, "INSERT INTO item VALUES('one')")
    text = block("sh", 1).replace("harmonylite tail", f"{HARMONYLITE} -config {node.config} tail -limit 1")
    client = await asyncio.create_subprocess_exec("sh", "-ec", text, cwd=tmp_path)
    code = await asyncio.wait_for(client.wait(), 3 * PATIENCE)
    await node.stop()
    assert (code, (tmp_path / "changed.txt").read_text()) == (0, "item\n")
    assert (tmp_path / "feed.position").read_text().startswith("0:")
