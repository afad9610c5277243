"""docs/tutorial.md from its first line to its last, as one shell runs it; and the SQL of docs/keys.md."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import uuid
from contextlib import closing, suppress
from pathlib import Path

import apsw
import pytest

from harmonylite.nats_server.binary import find_server
from tests.needs import programs
from tests.ports import free_ports

ROOT = Path(__file__).parents[2]
TUTORIAL = (ROOT / "docs" / "tutorial.md").read_text()
BLOCKS = re.findall(r"```sh\n(.*?)```", TUTORIAL, re.DOTALL)
PATIENCE = 240.0
CURL = programs("curl", package="curl")


def script() -> str:
    """Return the page's blocks as one script that names each block before it runs."""
    text = "set -e\n" + "".join(f"echo '== {number}'\n{block}" for number, block in enumerate(BLOCKS))
    for known, port in zip((4222, 8001, 8002), free_ports(3), strict=True):
        text = text.replace(str(known), str(port))
    return text


def follow(folder: Path, place: Path) -> None:
    """Run the page in ``folder`` with the commands in ``place``, and look at what it says."""
    (folder / "examples").symlink_to(ROOT / "examples")
    bash = shutil.which("bash")
    assert bash is not None
    own = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    environment = {**own, "PATH": f"{place}:{os.environ['PATH']}"}
    with subprocess.Popen(
        [bash, "-c", script()],
        cwd=folder,
        env=environment,
        text=True,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as shell:
        try:
            said, _ = shell.communicate(timeout=PATIENCE + 60)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(shell.pid, signal.SIGKILL)
    assert shell.returncode == 0, said
    parts = re.split(r"^== \d+\n", said, flags=re.MULTILINE)[1:]
    assert "buy milk" in parts[1]
    assert "buy milk" in parts[3]
    assert "buy bread" in parts[4]
    assert "buy oat milk" in parts[5]
    assert "buy two bottles of milk" in parts[5]
    assert parts[6].count("buy eggs") == 2
    kept = [text for text in ("buy oat milk", "buy two bottles of milk") if parts[6].count(text) == 2]
    assert len(kept) == 1, parts[6]
    assert "buy oat milk" in parts[7]
    assert "buy two bottles of milk" in parts[7]
    assert ", 1)" in parts[8]
    assert "agree" in parts[9]
    assert not (folder / "tutorial").exists()


@pytest.mark.timeout(400)
@CURL.mark
def test_the_tutorial_runs_as_it_is_written(tmp_path: Path) -> None:
    place = tmp_path / "bin"
    place.mkdir()
    (place / "nats-server").symlink_to(find_server())
    source = f"PYTHONPATH={shlex.quote(os.pathsep.join(sys.path))}"
    for name, words in {"harmonylite": f"{source} {sys.executable} -m harmonylite", "python": sys.executable}.items():
        (place / name).write_text(f'#!/bin/sh\nexec env {words} "$@"\n')
        (place / name).chmod(0o755)
    follow(tmp_path, place)


def test_the_keys_in_plain_sql_are_uuids_of_version_7() -> None:
    (sql,) = re.findall(r"```sql\n(.*?)```", (ROOT / "docs" / "keys.md").read_text(), re.DOTALL)
    table, insert = sql.split(";\n")[:2]
    with closing(apsw.Connection(":memory:")) as connection:
        connection.execute(table)
        before = time.time()
        made = [uuid.UUID(str(row[0])) for _ in range(200) for row in connection.execute(insert).fetchall()]
    assert {(each.version, each.variant) for each in made} == {(7, uuid.RFC_4122)}
    assert len(set(made)) == 400
    assert all(before - 0.01 <= (each.int >> 80) / 1000 <= time.time() for each in made)
