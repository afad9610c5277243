"""A node writes reals into indexes as the application's SQLite library does, though its own has other digits."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import apsw
import pytest

from harmonylite.db.mirror.file_facts import remembered_digits
from harmonylite.db.sqlite import real_digits
from harmonylite.db.sqlite.connection import reading
from harmonylite.db.sqlite.real_digits import NEWER, OLDER, OWN, SINCE, digits_of, digits_there, use
from tests.parts.db.fix_replicas import Group, Member, copied

REALS = [0.1 + 0.2, 1e15, 1 / 3, 434.99999999999994, 19.99, -0.1 - 0.2, 2.5]
TABLE = "CREATE TABLE t(id INTEGER PRIMARY KEY, r REAL, a)"
KINDS = {
    "index on an expression": "CREATE INDEX i ON t(r || '')",
    "unique index on an expression": "CREATE UNIQUE INDEX i ON t(CAST(r AS TEXT))",
    "partial index": "CREATE INDEX i ON t(id) WHERE length(r || '') < 8",
    "index on a generated column": "ALTER TABLE t ADD COLUMN g TEXT AS (r || '') VIRTUAL; CREATE INDEX i ON t(g)",
}
STORED = "CREATE TABLE t(id INTEGER PRIMARY KEY, r REAL, a, g TEXT AS ('=' || r) STORED)"

older = pytest.mark.skipif(
    sqlite3.sqlite_version_info >= (3, 53), reason="this Python's SQLite library is none that writes 15 digits"
)


def by_older(path: Path, sql: str, *bindings: list[Any]) -> list[list[Any]]:
    """Run statements with Python's own library, in a process of its own, as applications do; return the rows."""
    program = (
        "import json, sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=30);"
        " given = json.loads(sys.argv[3]); c.execute('PRAGMA journal_mode = wal');"
        " found = c.executemany(sys.argv[2], given) if given else ("
        " c.execute(sys.argv[2]) if sys.argv[2].startswith(('SELECT', 'PRAGMA')) else c.executescript(sys.argv[2]));"
        " print(json.dumps(found.fetchall() if not given else []))"
    )
    command = [sys.executable, "-c", program, str(path), sql, json.dumps(bindings)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, f"{sql}: {done.stderr}"
    return list(json.loads(done.stdout))


def sound(member: Member) -> None:
    """The application's library finds every row through every index."""
    assert by_older(member.options.database, "PRAGMA integrity_check") == [["ok"]], member.options.node


def made_by_older(group: Group, *ddl: str) -> Member:
    """Add a member whose file an application with an older library made."""
    return group.member(begin=partial(by_older, sql=";".join(ddl)))


@older
@pytest.mark.parametrize("kind", KINDS)
def test_what_another_node_wrote_is_in_every_index_of_an_older_library(group: Group, tmp_path: Path, kind: str) -> None:
    a, b = (made_by_older(group, TABLE, KINDS[kind]) for _ in "ab")
    by_older(a.options.database, "INSERT INTO t(r, a) VALUES (?, ?)", *([value, value] for value in REALS))
    group.settle()
    sound(b)
    by_older(b.options.database, "UPDATE t SET r = r * 3 WHERE id % 2; DELETE FROM t WHERE id % 3 = 0")
    group.settle()
    sound(a)
    b.stop()
    b.start()  # what it wrote itself says nothing of the application's library
    by_older(a.options.database, "INSERT INTO t(r, a) VALUES (?, 'more')", *([value / 7] for value in REALS))
    group.settle()
    sound(b)
    group.equal("t")  # bit for bit: only texts have digits
    made = copied(a, tmp_path / "copy")
    assert by_older(made, "PRAGMA integrity_check") == [["ok"]]


@older
def test_a_generated_column_has_one_text_on_every_node(group: Group, tmp_path: Path) -> None:
    a, b = (made_by_older(group, STORED) for _ in "ab")
    by_older(a.options.database, "INSERT INTO t(r) VALUES (?)", *([value] for value in REALS))
    group.settle()
    found = [by_older(member.options.database, "SELECT id, g FROM t ORDER BY id") for member in (a, b)]
    assert found[0] == found[1] == by_older(copied(a, tmp_path / "copy"), "SELECT id, g FROM t ORDER BY id")
    assert [1, "=0.3"] in found[0]


@older
def test_an_application_that_comes_after_the_node_is_noticed(group: Group) -> None:
    a, b = group.member(), group.member()
    assert [digits_of(member.replica.connection) for member in (a, b)] == [NEWER, NEWER]
    for member in (a, b):
        by_older(member.options.database, TABLE + ";" + KINDS["index on an expression"])
    group.settle()
    by_older(a.options.database, "INSERT INTO t(r) VALUES (?)", *([value] for value in REALS))
    group.settle()
    sound(b)


def stamped(path: Path, version: int) -> None:
    """Have a closed file say which library wrote it."""
    with path.open("r+b") as file:
        file.seek(96)
        file.write(version.to_bytes(4))


@pytest.mark.parametrize(
    ("version", "digits"), [(3_007_000, OLDER), (SINCE - 1, OLDER), (SINCE, NEWER), (OWN, NEWER), (0, NEWER)]
)
def test_the_digits_are_those_of_the_library_that_wrote_the_file(group: Group, version: int, digits: int) -> None:
    def begin(path: Path) -> None:
        with closing(apsw.Connection(str(path))) as connection:
            connection.pragma("journal_mode", "wal")
            connection.execute(TABLE)
        stamped(path, version)

    member = group.member(begin=begin)
    assert digits_of(member.replica.connection) == digits
    member.run("CREATE TABLE more(id INTEGER PRIMARY KEY)")
    member.replica.reinstall()
    member.stop()
    member.start()
    assert digits_of(member.replica.connection) == digits
    with reading(member.options.mirror) as mirror:
        assert remembered_digits(mirror, "main") == digits


def test_a_start_looks_once_who_wrote_the_file(group: Group, monkeypatch: pytest.MonkeyPatch) -> None:
    member = group.member(TABLE)
    looks: list[apsw.Connection] = []

    def look(connection: apsw.Connection) -> int:
        looks.append(connection)
        return digits_there(connection)

    member.stop()
    monkeypatch.setattr(real_digits, "digits_there", look)
    member.start()
    assert looks == [member.replica.connection]
    member.replica.reinstall()
    assert len(looks) == 2, "a migration may come with another library"


@pytest.mark.parametrize("configured", [OLDER, NEWER])
def test_what_is_configured_counts(group: Group, configured: int) -> None:
    def begin(path: Path) -> None:
        with closing(apsw.Connection(str(path))) as connection:
            connection.execute(TABLE)
        stamped(path, SINCE if configured == OLDER else SINCE - 1)

    member = group.member(begin=begin, real_digits=configured)
    member.run("CREATE TABLE more(id INTEGER PRIMARY KEY)")
    member.replica.reinstall()
    assert digits_of(member.replica.connection) == configured


def test_frames_of_the_log_before_say_nothing(tmp_path: Path) -> None:
    """SQLite overwrites a log that it has checkpointed from its start; what is behind the new end is still there."""
    path = tmp_path / "app.db"
    with closing(apsw.Connection(str(path))) as connection:
        connection.pragma("journal_mode", "wal")
        connection.pragma("wal_autocheckpoint", 0)
        for number in range(5):
            connection.execute(f"CREATE TABLE t{number}(a)")
        connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_RESTART)
        connection.execute("INSERT INTO t0 VALUES (1)")
        log = path.with_name("app.db-wal")
        whole = log.read_bytes()
        frames = range(32, len(whole), 24 + 4096)
        older = [
            at for at in frames if whole[at : at + 4] == (1).to_bytes(4) and whole[at + 8 : at + 16] != whole[16:24]
        ]
        with log.open("r+b") as file:
            for at in older:
                file.seek(at + 24 + 96)
                file.write((SINCE - 1).to_bytes(4))
        assert older
        assert digits_there(connection) == 0


def test_no_file_that_says_nothing_is_an_error(tmp_path: Path) -> None:
    with closing(apsw.Connection(str(tmp_path / "empty.db"))) as connection:
        assert digits_there(connection) == 0
        use(connection, 0)
        assert digits_of(connection) == NEWER
