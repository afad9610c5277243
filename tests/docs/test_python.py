"""docs/python.md: its programs run as they are written there, and its reference is what the docstrings say."""

from __future__ import annotations

import asyncio
import re
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest

from tests.docs.api_reference import MARK, PAGE, PUBLIC, names, reference
from tests.parts.fix_nats import PATIENCE, RealNats
from tests.parts.replication.fix_nodes import Running, write


def block(number: int) -> str:
    found: list[str] = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return found[number]


async def test_the_client_in_the_docs_asks_a_node(nats: RealNats, tmp_path: Path) -> None:
    node = Running(tmp_path, "here", nats.url, "CREATE TABLE orders(id TEXT PRIMARY KEY, note TEXT)")
    await node.start()
    write(node.database, "INSERT INTO orders VALUES('a', 'new')")
    text = block(0).replace("/data/app.db", str(node.database)).replace("seconds=5", f"seconds={PATIENCE}")
    program = await asyncio.create_subprocess_exec(sys.executable, "-c", text, stdout=asyncio.subprocess.PIPE)
    assert program.stdout is not None
    try:
        async with asyncio.timeout(3 * PATIENCE):
            said = ""
            while "insert" not in said:
                line = (await program.stdout.readline()).decode()
                assert line
                said += line
    finally:
        program.kill()
        await program.communicate()
        await node.stop()
    assert "here insert {'id': 'a'} {'id': 'a', 'note': 'new'}" in said


async def test_the_application_in_the_docs_runs_its_node(nats: RealNats, tmp_path: Path) -> None:
    database = tmp_path / "app.db"
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("CREATE TABLE item(id TEXT PRIMARY KEY)")
    text = block(1).replace("/data/app.db", str(database)).replace("nats://127.0.0.1:4222", nats.url)
    text += """
from fastapi.testclient import TestClient
with TestClient(app) as client:
    print(client.post("/items/one").status_code, client.get("/health").json(), flush=True)
"""
    program = await asyncio.create_subprocess_exec(sys.executable, "-c", text, stdout=asyncio.subprocess.PIPE)
    said, _ = await asyncio.wait_for(program.communicate(), 3 * PATIENCE)
    assert said.decode() == "200 {'replicating': True}\n"


def test_the_reference_is_what_the_docstrings_say() -> None:
    assert PAGE.read_text().partition(MARK)[2] == reference(), "python -m tests.docs.api_reference writes it"


@pytest.mark.parametrize("module", PUBLIC)
def test_every_public_name_has_a_docstring(module: str) -> None:
    found = names(module)
    assert [name for name, value in found if callable(value) and not value.__doc__] == []
    assert found
