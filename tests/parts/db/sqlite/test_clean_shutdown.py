"""What a clean stop notes of its files counts for one start, and only for files that nobody has touched."""

from __future__ import annotations

import os
from pathlib import Path

import apsw
import pytest

from harmonylite.db.sqlite.clean_shutdown import NOTE, note, taken


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    found = [tmp_path / "app.db", tmp_path / "mirror.db"]
    for file in found:
        connection = apsw.Connection(str(file))
        connection.pragma("journal_mode", "wal")
        connection.execute("CREATE TABLE t (a); INSERT INTO t VALUES (1)")
        connection.close()
    return found


def test_files_that_rested_are_known_once(tmp_path: Path, files: list[Path]) -> None:
    assert taken(tmp_path) == set()
    note(tmp_path, files)
    assert taken(tmp_path) == set(files)
    assert taken(tmp_path) == set(), "a start that ends in a crash leaves nothing noted"
    note(tmp_path, files[:1])
    assert taken(tmp_path) == {files[0]}


def test_a_file_that_was_written_to_or_replaced_or_is_gone_did_not_rest(tmp_path: Path, files: list[Path]) -> None:
    app, mirror = files
    note(tmp_path, files)
    connection = apsw.Connection(str(app))
    connection.execute("INSERT INTO t VALUES (2)")
    assert taken(tmp_path) == {mirror}, "also while it is in the write-ahead log only"
    connection.close()
    note(tmp_path, files)
    copy = tmp_path / "copy"
    copy.write_bytes(mirror.read_bytes())
    os.utime(copy, ns=(mirror.stat().st_atime_ns, mirror.stat().st_mtime_ns))
    copy.replace(mirror)
    assert taken(tmp_path) == {app}
    note(tmp_path, files)
    app.unlink()
    assert taken(tmp_path) == {mirror}
    note(tmp_path, files)
    app.write_bytes(b"")
    assert taken(tmp_path) == {mirror}


def test_reading_it_changes_nothing(tmp_path: Path, files: list[Path]) -> None:
    note(tmp_path, files)
    connection = apsw.Connection(str(files[0]))
    connection.execute("SELECT * FROM t").fetchall()
    assert taken(tmp_path) == set(files)
    connection.close()


@pytest.mark.parametrize("text", ["", "[]", '{"/x": 1}', "null", "\udcff".encode("utf-8", "surrogatepass").hex()])
def test_a_note_that_can_not_be_read_says_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / NOTE).write_text(text)
    assert taken(tmp_path) == set()
    assert not (tmp_path / NOTE).exists()
