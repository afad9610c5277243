"""Tests keep their files in memory where that has room, and on the disk where it hasn't, or somebody says so."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from tests import scratch


@pytest.fixture
def usual(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", tempfile.tempdir)
    monkeypatch.setattr(scratch, "available", lambda: 1 << 40)


@pytest.mark.usefixtures("usual")
def test_temporary_files_are_made_in_memory_where_it_has_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TMPDIR", raising=False)
    scratch.choose(os.environ, tmp_path, room=1)
    assert tempfile.gettempdir() == str(tmp_path)
    monkeypatch.delenv("TMPDIR")


@pytest.mark.usefixtures("usual")
def test_temporary_files_are_where_tmpdir_says() -> None:
    environment = {"TMPDIR": "/elsewhere"}
    scratch.choose(environment, Path("/dev/shm"), room=0)
    assert environment == {"TMPDIR": "/elsewhere"}


@pytest.mark.usefixtures("usual")
def test_memory_that_is_short_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment: dict[str, str] = {}
    scratch.choose(environment, tmp_path, room=1 << 60)
    scratch.choose(environment, tmp_path / "absent", room=0)
    monkeypatch.setattr(scratch, "available", lambda: 99)
    scratch.choose(environment, tmp_path, room=100)
    assert environment == {}


def test_what_the_system_has_to_give_is_read_from_meminfo(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemFree: 1 kB\nMemAvailable:       3 kB\n")
    assert scratch.available(tmp_path / "meminfo") == 3 * 1024
    assert scratch.available(tmp_path / "absent") == 0
