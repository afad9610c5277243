"""A file made from a snapshot is the same file to its application, in what its tables don't say, too."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import apsw
import pytest

from harmonylite.db.snapshot import (
    begin_hidden,
    fill,
    pour,
    save_copy,
    seal,
)
from harmonylite.db.sqlite.deadline import Deadline
from harmonylite.schema.sql import is_private
from tests.parts.db.fix_replicas import Group, Member, copied

COUNTED = "CREATE TABLE t(id INTEGER PRIMARY KEY AUTOINCREMENT, v)"

NUMBERS = "WITH RECURSIVE c(n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM c WHERE n < 500) SELECT n FROM c"


def facts(path: Path) -> dict[str, Any]:
    """Return what an application may ask of a file."""
    names = ("user_version", "application_id", "page_size", "auto_vacuum", "encoding")
    with closing(apsw.Connection(str(path))) as connection:
        found: dict[str, Any] = {name: connection.pragma(name) for name in names}
        tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        for table in ("sqlite_sequence", "sqlite_stat1"):
            if table in tables:
                listed = connection.execute(f"SELECT * FROM {table}").fetchall()
                found[table] = sorted((row for row in listed if not is_private(str(row[0]))), key=repr)
        found["other statistics"] = "sqlite_stat4" in tables
    return found


def made(group: Group, pragmas: Sequence[str], *ddl: str) -> Member:
    """Add the first member, whose application set ``pragmas`` before anything else."""

    def set_all(connection: apsw.Connection) -> None:
        if str(connection.filename).endswith("a/app.db"):
            for each in pragmas:
                connection.execute(f"PRAGMA {each}")

    apsw.connection_hooks.append(set_all)
    try:
        member = group.member(*ddl)
    finally:
        apsw.connection_hooks.remove(set_all)
    return member


@pytest.mark.parametrize(
    "pragmas",
    [
        (),
        ("page_size = 8192",),
        ("page_size = 512", "auto_vacuum = 1"),
        ("page_size = 65536", "auto_vacuum = 2"),
        ("encoding = 'UTF-16le'", "page_size = 1024"),
    ],
)
def test_header_and_layout_are_the_same(group: Group, tmp_path: Path, pragmas: Sequence[str]) -> None:
    a = made(group, (*pragmas, "user_version = 17", f"application_id = {0x47504B47}"), COUNTED)
    a.run("INSERT INTO t(v) VALUES ('x')")
    group.settle()
    assert facts(copied(a, tmp_path / "copy")) == facts(a.options.database)


@pytest.mark.parametrize("number", [0, 1, -1, 2**31 - 1, -(2**31)])
def test_numbers_that_the_application_sets_later_are_taken_over(group: Group, tmp_path: Path, number: int) -> None:
    a = made(group, ("user_version = 5",), COUNTED)
    a.run(f"PRAGMA user_version = {number}")
    a.run(f"PRAGMA application_id = {number}")
    group.settle()
    found = facts(copied(a, tmp_path / "copy"))
    assert (found["user_version"], found["application_id"]) == (number, number)


def test_a_key_that_was_given_out_and_deleted_is_not_given_out_again(group: Group, tmp_path: Path) -> None:
    a = group.member(COUNTED, "CREATE TABLE empty(id INTEGER PRIMARY KEY AUTOINCREMENT)")
    a.run("INSERT INTO t(v) VALUES (1), (2), (3)")
    group.settle()
    a.run("DELETE FROM t WHERE id > 1")
    a.run("INSERT INTO empty VALUES (41)")
    a.run("DELETE FROM empty")
    group.settle()
    a.replica.statistics.renew(a.replica.connection, a.replica.tables.values())
    copy = copied(a, tmp_path / "copy")
    with closing(apsw.Connection(str(copy))) as connection:
        assert connection.execute("INSERT INTO t(v) VALUES (4) RETURNING id").fetchall() == [(4,)]
        assert connection.execute("INSERT INTO empty DEFAULT VALUES RETURNING id").fetchall() == [(42,)]


def test_what_analyze_found_out_is_there(group: Group, tmp_path: Path) -> None:
    a = group.member(COUNTED, "CREATE INDEX t_v ON t(v)")
    a.run(f"INSERT INTO t(v) SELECT n % 7 FROM ({NUMBERS})")
    a.run("ANALYZE")
    a.run("DROP TABLE IF EXISTS sqlite_stat4")
    group.settle()
    copy = copied(a, tmp_path / "copy")
    assert facts(copy)["sqlite_stat1"] == [("t", "t_v", "500 72")]
    assert facts(copy) == facts(a.options.database)
    a.run(f"INSERT INTO t(v) SELECT n FROM ({NUMBERS})")
    a.run("ANALYZE")
    group.settle()
    a.replica.statistics.renew(a.replica.connection, a.replica.tables.values())
    assert facts(copied(a, tmp_path / "later"))["sqlite_stat1"] == facts(a.options.database)["sqlite_stat1"]


def test_an_empty_file_keeps_its_page_size_and_gets_the_rest(group: Group, tmp_path: Path) -> None:
    a = made(group, ("page_size = 8192", "user_version = 17"), COUNTED)
    given = tmp_path / "given"
    given.mkdir()
    options = replace(a.options, database=given / "app.db", folder=given / "mirror")
    with closing(apsw.Connection(str(options.database))) as connection:
        connection.execute("PRAGMA page_size = 1024")
        connection.execute("VACUUM")
    snapshot = given / "snapshot.db"
    save_copy(a.options.mirror, snapshot)
    replica = begin_hidden(options, snapshot, Deadline(), into=options.database)
    building = replica.options.database
    fill(replica, Deadline())
    seal(replica)
    pour(building, options.database)
    found = facts(options.database)
    assert (found["page_size"], found["user_version"]) == (1024, 17)
