"""Long work is followed: by a bar in a terminal (a real pseudo-terminal), by lines elsewhere, by nothing with -json."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harmonylite.cli import progress_bar
from harmonylite.cli.progress_bar import WorkProgress, followed
from harmonylite.errors import StreamError
from tests.parts.cli.fix_cli import NodeDouble

SAVED = {"name": "snapshot-1", "bytes": 300, "positions": {"0": 7}}
SECONDS = 60.0


def in_terminal(command: list[str], enough: bytes, release: list[bool]) -> tuple[int, bytes]:
    """Run ``command`` with a terminal as its standard error; once that shows ``enough``, set ``release``.

    Return exit code and all that was shown.
    """
    outer, inner = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100"}
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=inner, env=environment
    )
    os.close(inner)
    shown, end = b"", time.monotonic() + SECONDS
    try:
        while time.monotonic() < end:
            if not select.select([outer], [], [], 0.1)[0]:
                continue
            try:
                more = os.read(outer, 65536)
            except OSError:  # Linux says so when the last one has closed its end
                break
            shown += more
            if enough in shown:
                release.append(True)
            if not more:
                break
        return process.wait(SECONDS), shown
    finally:
        process.kill()
        process.wait()
        os.close(outer)


def command(config_file: Path, *words: str) -> list[str]:
    return [sys.executable, "-m", "harmonylite", "-config", str(config_file), "snapshot", "save", *words]


@pytest.fixture
def saving(node: NodeDouble) -> list[bool]:
    """Let the double save for as long as the returned list is empty; it is 150 of 300 kB far meanwhile."""
    release: list[bool] = []

    def save() -> dict[str, object]:
        end = time.monotonic() + SECONDS
        while not release and time.monotonic() < end:
            time.sleep(0.01)
        return SAVED

    node.answers["/v1/snapshot"] = (200, save)
    node.answers["/v1/status"] = (200, {"progress": ["saving snapshot-1", 150_000, 300_000]})
    return release


def test_a_terminal_shows_a_bar_that_is_gone_at_the_end(config_file: Path, saving: list[bool]) -> None:
    code, shown = in_terminal(command(config_file), b"150.0/300.0 kB", saving)
    assert code == 0
    assert saving, "the bar was seen while the work continued"
    text = shown.decode()
    assert "saving snapshot-1" in text
    assert "\N{BOX DRAWINGS HEAVY HORIZONTAL}" * 5 in text
    assert text.rindex("\x1b[2K") > text.rindex("kB"), "the line is cleared at last"


def test_json_in_a_terminal_is_followed_by_nothing(config_file: Path, saving: list[bool]) -> None:
    saving.append(True)
    assert in_terminal(command(config_file, "-json"), b"", saving) == (0, b"")


def test_without_a_terminal_there_are_lines(
    config_file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress_bar, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(progress_bar, "LINE_SECONDS", 0.03)
    asked: list[int] = []

    def progress() -> list[object] | None:
        asked.append(len(asked))
        if len(asked) == 2:
            raise StreamError("nobody answers for a moment")
        return None if len(asked) == 1 else ["fetching\x1b[31m it", 150_000, 300_000]

    def work() -> dict[str, object]:
        end = time.monotonic() + SECONDS
        while len(asked) < 30 and time.monotonic() < end:
            time.sleep(0.01)
        return {"done": True}

    begun = time.monotonic()
    assert followed(WorkProgress(work, progress), silent=False) == {"done": True}
    lines = capsys.readouterr().err.splitlines()
    assert 0 < len(lines) <= (time.monotonic() - begun) / progress_bar.LINE_SECONDS
    assert set(lines) == {"fetching\N{REPLACEMENT CHARACTER}[31m it: 150,000 of 300,000 bytes"}
    followed(WorkProgress(lambda: {}, progress), silent=True)
    assert capsys.readouterr().err == ""
