"""What a node keeps for itself beside the rows costs few pages a commit, and stays bounded."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from statistics import median

import apsw
import pytest

from harmonylite.db.mirror import conflict_journal, mirror_file
from harmonylite.db.mirror.state import set_state
from harmonylite.db.snapshot import save_copy
from harmonylite.db.sqlite.connection import open_file, rows, transaction, value
from harmonylite.model import Position
from tests.parts.db.fix_replicas import PAIRED, Group, Member

HEADER, FRAME = 32, 24
"""Bytes of the write-ahead log before all else, and before each page that a transaction changed (SQLite: walformat)."""


def page_size(file: Path) -> int:
    """Return the bytes of a page of ``file``."""
    with closing(open_file(file, read_only=True)) as connection:
        return int(value(connection, "PRAGMA page_size"))


def pages(file: Path) -> int:
    """Return how many pages the write-ahead log of ``file`` holds, which nobody has begun anew."""
    return (Path(f"{file}-wal").stat().st_size - HEADER) // (page_size(file) + FRAME)


def one_by_one(writer: Member, other: Member, count: int) -> list[tuple[int, int, int]]:
    """Let one row after the other go its way; return the pages of the writer's mirror, and of the other's files."""
    files = (writer.options.mirror, other.options.mirror, other.options.database)
    found = []
    for _ in range(count):
        before = [pages(file) for file in files]
        writer.run("INSERT INTO t(a, b) VALUES ('a row', 1)")
        writer.send()
        writer.receive()
        other.receive()
        a, b, c = (pages(file) - was for file, was in zip(files, before, strict=True))
        found.append((a, b, c))
    return found


def test_a_row_changes_its_own_page_two_more_in_each_mirror_and_one_in_the_other_s_database(group: Group) -> None:
    a, b = group.several(2, PAIRED)
    found = one_by_one(a, b, 60)[10:]
    assert [median(each) for each in zip(*found, strict=True)] == [3, 3, 2]


def test_a_mirror_s_pages_are_half_as_large_as_the_database_s(group: Group, tmp_path: Path) -> None:
    a, b = group.several(2, PAIRED)
    for member in (a, b):
        assert [page_size(file) for file in (member.options.mirror, member.options.database)] == [2_048, 4_096]
    a.run("INSERT INTO t VALUES (1, 'a row', 1)")
    group.settle()
    earlier = tmp_path / "earlier.db"
    with closing(open_file(b.options.mirror)) as mirror:
        mirror.pragma("page_size", 4_096)
        mirror.execute("VACUUM INTO ?", (str(earlier),))
    assert page_size(earlier) == 4_096
    save_copy(earlier, tmp_path / "snapshot.db")
    assert page_size(tmp_path / "snapshot.db") == 2_048, "who starts from it, or is reset to it, has smaller pages"


def test_the_recent_change_sets_stay_bounded(group: Group, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conflict_journal, "RECENT_KEPT", 10)
    monkeypatch.setattr(conflict_journal, "RECENT_STEP", 4)
    a, b = group.several(2, PAIRED)
    one_by_one(a, b, 40)
    for member in (a, b):
        count = value(member.replica.connection, f"SELECT count(*) FROM {conflict_journal.RECENT}")
        assert 10 <= count <= 10 + 4 + 1, "with the newest one"


def test_what_an_earlier_version_kept_elsewhere_comes_along(tmp_path: Path) -> None:
    file = tmp_path / "mirror.db"
    mirror_file.make_mirror(file, "UTF-8")
    connection = open_file(file)
    with transaction(connection, "make an earlier version's tables"):
        mirror_file.prepare(connection, "main")
        mirror_file.set_positions(connection, "main", {s: Position(s, 40 + s, 41 + s, "then") for s in (0, 1)})
        for name in mirror_file.OWN_FACTS:
            connection.execute(f"ALTER TABLE {mirror_file.POSITION} DROP COLUMN {name}")
        connection.execute('CREATE TABLE "__harmonylite__noted"(shard INTEGER PRIMARY KEY, seq INTEGER NOT NULL)')
        connection.execute('INSERT INTO "__harmonylite__noted" VALUES (0, 39), (1, 41)')
        set_state(connection, "main", "settled", 77)
    connection.close()

    connection = apsw.Connection(":memory:")
    connection.execute("ATTACH ? AS mirror", (str(file),))
    for _ in range(2):
        mirror_file.prepare(connection)
        found = rows(connection, f"SELECT shard, seq, noted FROM mirror.{mirror_file.POSITION}")
        assert found == [(0, 40, 39), (1, 41, 41)]
        assert mirror_file.settled(connection) == 77
    assert not rows(connection, "SELECT 1 FROM mirror.sqlite_schema WHERE name LIKE '%noted'")
