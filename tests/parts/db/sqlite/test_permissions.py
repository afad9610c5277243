"""A file that this user may not use is told with what to do about it."""

from __future__ import annotations

from pathlib import Path

import apsw
import pytest

from harmonylite.db.sqlite.connection import NO_RIGHTS, mapped, open_file
from harmonylite.errors import DatabaseError


def test_a_file_that_is_not_there_or_can_not_be_opened(tmp_path: Path) -> None:
    with pytest.raises(DatabaseError, match="unable to open database file") as caught:
        open_file(tmp_path / "none.db")
    assert caught.value.advice == NO_RIGHTS


def test_a_file_that_can_not_be_written(tmp_path: Path) -> None:
    apsw.Connection(str(tmp_path / "a.db")).close()
    connection = open_file(tmp_path / "a.db", read_only=True)
    with pytest.raises(DatabaseError, match="attempt to write a readonly database") as caught, mapped("write"):
        connection.execute("CREATE TABLE t(x)")
    connection.close()
    assert caught.value.advice == NO_RIGHTS
