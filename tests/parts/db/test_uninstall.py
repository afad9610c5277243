"""What we put into the application's file is ours by its exact prefix, and a clean-up takes that and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from harmonylite.db.uninstall import cleanup
from harmonylite.errors import DatabaseBusyError, DatabaseError
from tests.parts.db.fix_replicas import Group

LOOKALIKES = ("t_harmonylite_users", "__harmonylite", "xxharmonylitexxlog", "_harmonylite__log", "harmonylite")


def test_a_clean_up_removes_ours_and_leaves_lookalikes(group: Group) -> None:
    ddl = [f'CREATE TABLE "{name}"(id INTEGER PRIMARY KEY, u UNIQUE)' for name in LOOKALIKES]
    ddl += [f'CREATE TRIGGER "{name}_t" AFTER INSERT ON "{name}" BEGIN SELECT 1; END' for name in LOOKALIKES]
    a = group.member(*ddl)
    before = a.run("SELECT type, name, sql FROM sqlite_schema WHERE name NOT LIKE '#_#_harmonylite#_#_%' ESCAPE '#'")
    for name in LOOKALIKES:
        a.run(f'INSERT INTO "{name}" VALUES (1, 2)')
    a.send()
    a.receive()
    a.stop()
    removed = cleanup(a.options.database)
    assert removed
    assert all(name.startswith("__harmonylite__") for name in removed)
    assert a.run("SELECT type, name, sql FROM sqlite_schema") == before
    for name in LOOKALIKES:
        assert a.run(f'SELECT * FROM "{name}"') == [(1, 2)]
    assert cleanup(a.options.database) == []
    a.start()


def test_everything_of_ours_has_our_prefix(group: Group) -> None:
    ddl = "CREATE TABLE t(id INTEGER PRIMARY KEY, u UNIQUE)"
    a = group.member(ddl)
    added = a.run("SELECT name FROM sqlite_schema WHERE tbl_name <> 't' OR type = 'trigger'")
    assert added
    assert all(name.startswith(("__harmonylite__", "sqlite_autoindex___harmonylite__")) for (name,) in added)
    assert a.run("SELECT sql FROM sqlite_schema WHERE name = 't'") == [(ddl,)]


def test_a_file_that_was_cleaned_up_joins_again(group: Group) -> None:
    a, b = group.several(2, "CREATE TABLE t(id INTEGER PRIMARY KEY, v)")
    a.run("INSERT INTO t VALUES (1, 'x')")
    group.settle()
    b.stop()
    cleanup(b.options.database)
    b.run("INSERT INTO t VALUES (2, 'written meanwhile')")
    b.start()
    assert not b.replica.joined
    b.replica.reconcile(first=True)
    assert group.equal("t") == [(1, "x"), (2, "written meanwhile")]


def test_a_name_that_sqlite_does_not_tell_from_ours_is_refused_by_name(group: Group) -> None:
    with pytest.raises(
        DatabaseError, match="__Harmonylite__log has a name that SQLite does not distinguish from ours: rename"
    ):
        group.member('CREATE TABLE "__Harmonylite__log"(id INTEGER PRIMARY KEY)')


def test_a_write_that_takes_too_long_leaves_everything_in_place_and_says_what_to_do(group: Group) -> None:
    a = group.member("CREATE TABLE t(id INTEGER PRIMARY KEY)")
    a.stop()
    before = a.run("SELECT name FROM sqlite_schema")
    a.run("BEGIN IMMEDIATE")
    with pytest.raises(DatabaseBusyError, match="let the application end what it writes, then try again"):
        cleanup(a.options.database, seconds=0)
    a.run("COMMIT")
    assert a.run("SELECT name FROM sqlite_schema") == before
    cleanup(a.options.database)
    assert a.run("SELECT name FROM sqlite_schema") == [("t",)]
    a.start()


def test_every_object_of_ours_stands_in_the_docs_and_every_documented_one_exists(group: Group) -> None:
    a = group.member("CREATE TABLE t(id INTEGER PRIMARY KEY, u UNIQUE)")
    found = {
        re.sub(r"\d+", lambda number: "<N>" if number.start() < 20 else "<M>", str(name))
        for schema in ("main", "mirror")
        for (name,) in a.replica.connection.execute(f"SELECT name FROM {schema}.sqlite_schema").fetchall()
        if str(name).startswith("__harmonylite__")
    }
    documented = set()
    for line in (Path(__file__).parents[3] / "docs" / "architecture.md").read_text(encoding="utf-8").splitlines():
        if line.startswith("| `__harmonylite__"):
            first, *ends = re.findall("`([^`]+)`", line.split("|")[1])
            documented |= {first} | {first.rpartition("_")[0] + end for end in ends}
    assert found == documented
