"""The demo as a newcomer runs it: real nodes, a killed one, and nothing left behind."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import signal
import sys
import time
from asyncio.subprocess import PIPE, STDOUT, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

CHINOOK = Path(__file__).parents[3] / "shared" / "data" / "chinook.sqlite"

pytestmark = pytest.mark.timeout(240)


def _hear_interrupts() -> None:
    """Be as at a terminal: what a shell starts in the background ignores Ctrl-C, and so does all that it starts."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@asynccontextmanager
async def demo(folder: Path, *words: str) -> AsyncIterator[Process]:
    """Run ``harmonylite demo`` with all its temporary files below ``folder``."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "harmonylite",
        "demo",
        *words,
        stdout=PIPE,
        stderr=STDOUT,
        env={**os.environ, "TMPDIR": str(folder), "COLUMNS": "120"},
        preexec_fn=_hear_interrupts,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def processes_of(folder: Path) -> list[str]:
    """Return the command lines of processes that name ``folder``."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue  # it ended while we looked
        if str(folder) in line:
            found.append(line)
    return found


async def gone(folder: Path) -> None:
    """Wait until no process names ``folder``: a server that is killed with its node ends a moment after it."""
    end = time.monotonic() + 60
    while left := processes_of(folder):
        assert time.monotonic() < end, left
        await asyncio.sleep(0.1)


async def told(process: Process) -> str:
    """Return all that the demo says until it ends."""
    output, _ = await process.communicate()
    return output.decode()


async def line_with(process: Process, words: str) -> str:
    """Read on until a line with ``words`` comes; return everything up to it."""
    assert process.stdout
    seen = ""
    while words not in seen:
        line = (await process.stdout.readline()).decode()
        assert line, f"the demo ended before {words!r}:\n{seen}"
        seen += line
    return seen


async def test_the_shop_ends_equal_everywhere_and_nothing_is_left_behind(tmp_path: Path) -> None:
    async with demo(tmp_path, "--exit") as process:
        text = await told(process)
    assert process.returncode == 0, text
    assert "three files, one database" in text
    assert "not ok" not in text
    assert "\x1b" not in text, "piped output is plain"
    await gone(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not CHINOOK.exists(), reason="the sample file is not here")
async def test_a_real_file_is_copied_and_not_touched(tmp_path: Path) -> None:
    file, folder = tmp_path / "chinook.sqlite", tmp_path / "temporary"
    shutil.copyfile(CHINOOK, file)
    folder.mkdir()
    async with demo(folder, str(file), "--exit") as process:
        text = await told(process)
    assert process.returncode == 0, text
    assert "three files, one database" in text
    assert fingerprint(file) == fingerprint(CHINOOK)
    assert sorted(tmp_path.iterdir()) == [file, folder], "no -wal, no log, no node's folder beside the person's file"
    await gone(folder)


@pytest.mark.parametrize("words", ["One row, two writers, different columns", "Ctrl-C"])
async def test_a_signal_ends_the_demo_at_any_time_without_remains(tmp_path: Path, words: str) -> None:
    async with demo(tmp_path) as process:
        before = await line_with(process, words)
        assert len(processes_of(tmp_path)) >= 3, before
        process.send_signal(signal.SIGINT)
        after = await told(process)
    # on a slow machine the story may be over by then, and its end waits for Ctrl-C
    assert process.returncode == (0 if "Ctrl-C" in before + after else 130), after
    assert "Traceback" not in after
    await gone(tmp_path)
    assert list(tmp_path.iterdir()) == []


async def test_a_closed_terminal_ends_the_demo_without_remains(tmp_path: Path) -> None:
    async with demo(tmp_path) as process:
        await line_with(process, "Ctrl-C")
        process.send_signal(signal.SIGHUP)
        await told(process)
    assert process.returncode == 0
    await gone(tmp_path)
    assert list(tmp_path.iterdir()) == []


async def test_no_node_outlives_a_demo_that_is_killed(tmp_path: Path) -> None:
    async with demo(tmp_path) as process:
        await line_with(process, "One row, two writers, different columns")
        assert len(processes_of(tmp_path)) >= 3
        process.kill()
        await process.wait()
    await gone(tmp_path)


async def test_a_file_that_is_not_there_is_refused_at_once(tmp_path: Path) -> None:
    async with demo(tmp_path, str(tmp_path / "missing.db"), "--exit") as process:
        text = await told(process)
    assert process.returncode == 2
    assert "no such file" in text
    assert list(tmp_path.iterdir()) == []


def fingerprint(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
