"""Tables that use what only the application has: replicated where they can be, else they alone are left out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import apsw
import pytest

from harmonylite.db.repair import damage
from harmonylite.db.snapshot import begin_database, fill_database, install_mirror, save_copy
from harmonylite.db.sqlite.deadline import Deadline
from harmonylite.schema.sql import is_private
from tests.parts.db.fix_replicas import Group, Member

ALL_THE_SAME = {
    "a collation of a plain column": "CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT COLLATE unicase)",
    "a CHECK constraint": "CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT CHECK (is_ok(v)))",
    "a CHECK of the table": (
        "CREATE TABLE t(id INT, k TEXT COLLATE NOCASE, v TEXT, PRIMARY KEY (k, id), CHECK (is_ok(k) AND is_ok(v)))"
    ),
    "a default": "CREATE TABLE t(id INTEGER PRIMARY KEY AUTOINCREMENT, v TEXT DEFAULT (norm('A')))",
    "STRICT": "CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT NOT NULL CHECK (is_ok(v)), r REAL) STRICT",
    "a text key that may be NULL": "CREATE TABLE t(id TEXT PRIMARY KEY, v TEXT CHECK (is_ok(v)))",
}
LEFT_OUT = {
    "a key's collation": ["CREATE TABLE t(id TEXT COLLATE unicase PRIMARY KEY, v TEXT)"],
    "a unique column's collation": ["CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT COLLATE unicase UNIQUE)"],
    "an index's collation": [
        "CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT)",
        "CREATE INDEX i ON t(v COLLATE unicase)",
    ],
    "an index on a column with a collation": [
        "CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT COLLATE unicase)",
        "CREATE INDEX i ON t(v)",
    ],
    "a column's collation WITHOUT ROWID": [
        "CREATE TABLE t(id TEXT PRIMARY KEY NOT NULL, v TEXT COLLATE unicase) WITHOUT ROWID",
    ],
    "an index on an expression": ["CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT)", "CREATE INDEX i ON t(norm(v))"],
    "a unique index on an expression": [
        "CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT)",
        "CREATE UNIQUE INDEX i ON t(norm(v))",
    ],
    "a partial index": [
        "CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT)",
        "CREATE INDEX i ON t(v) WHERE norm(v) = 'a'",
    ],
    "a virtual generated column": [
        "CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT, n TEXT GENERATED ALWAYS AS (norm(v)))",
    ],
    "a stored generated column": [
        "CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT, n TEXT GENERATED ALWAYS AS (norm(v)) STORED)",
    ],
}
OTHER = "CREATE TABLE o(id INTEGER PRIMARY KEY, v)"


def norm(*values: Any) -> Any:
    """A function that only the application has."""
    return values[0].lower() if isinstance(values[0], str) else values[0]


def unicase(one: str, other: str) -> int:
    """A collation that only the application has."""
    return (one.lower() > other.lower()) - (one.lower() < other.lower())


def equip(connection: apsw.Connection) -> None:
    """Give a connection what the application has."""
    connection.create_scalar_function("norm", norm, 1, deterministic=True)
    connection.create_scalar_function("is_ok", lambda *_: 1, 1, deterministic=True)
    connection.create_collation("unicase", unicase)


def equipped(group: Group, *ddl: str) -> Member:
    """Add a member whose application makes its tables live, with functions and collations of its own."""
    member = group.member(OTHER)
    equip(member.app)
    for sql in ddl:
        member.run(sql)
    member.replica.reinstall()
    return member


@contextmanager
def loaded() -> Iterator[None]:
    """Give every new connection of this process, the nodes' too, what the application has."""
    apsw.connection_hooks.append(equip)
    try:
        yield
    finally:
        apsw.connection_hooks.remove(equip)


@pytest.mark.parametrize("ddl", ALL_THE_SAME.values(), ids=ALL_THE_SAME)
def test_a_table_that_can_be_written_without_it_is_replicated(group: Group, ddl: str) -> None:
    a, b = equipped(group, ddl), equipped(group, ddl)
    a.run("INSERT INTO t(id, v) VALUES (1, 'A'), (2, 'b')")
    group.settle()
    b.run("UPDATE t SET v = 'C' WHERE id = 2")
    b.run("INSERT INTO t(id, v) VALUES (3, 'd')")
    a.run("DELETE FROM t WHERE id = 1")
    b.stop()
    b.start()
    group.equal("t", "o")
    assert a.run("SELECT id, v FROM t ORDER BY id") == b.run("SELECT id, v FROM t ORDER BY id")
    assert a.run("SELECT v FROM t ORDER BY v COLLATE BINARY") == [("C",), ("d",)]
    assert not any("can't write" in text for text in b.replica.warnings.values())
    assert damage(b.options.database) == damage(b.options.mirror) == ""


@pytest.mark.parametrize("ddl", LEFT_OUT.values(), ids=LEFT_OUT)
def test_a_table_that_cannot_is_left_out_alone(group: Group, ddl: list[str]) -> None:
    a, b = equipped(group, *ddl), equipped(group, *ddl)
    a.run("INSERT INTO t(id, v) VALUES (1, 'A')")
    a.run("INSERT INTO o VALUES (1, 'x')")
    b.run("INSERT INTO t(id, v) VALUES (2, 'B')")
    b.stop()
    b.start()
    assert group.equal("o") == [(1, "x")]
    assert a.run("SELECT id FROM t") == [(a.run("SELECT id FROM t")[0][0],)], "it stays as it is"
    for member in (a, b):
        assert set(member.replica.tables) == {"o"}
        assert "table t is not replicated by this node, which can't write it: " in member.replica.warnings["t"]
        assert "[extensions]" in member.replica.warnings["t"]
        assert damage(member.options.database) == ""
        assert member.run("SELECT name FROM sqlite_schema WHERE type = 'trigger' AND tbl_name = 't'") == []


@pytest.mark.parametrize("ddl", LEFT_OUT.values(), ids=LEFT_OUT)
def test_a_table_joins_once_its_node_has_what_it_needs(group: Group, ddl: list[str]) -> None:
    a, b = equipped(group, *ddl), equipped(group, *ddl)
    a.run("INSERT INTO t(id, v) VALUES (1, 'A'), (9, 'same')")
    b.run("INSERT INTO t(id, v) VALUES (2, 'B'), (9, 'same'), (3, 'c')")
    group.settle()
    with loaded():
        for member in (a, b):
            member.stop()
            member.start()
        group.equal("t", "o")
        for member in (a, b):
            assert not any("can't write" in text for text in member.replica.warnings.values())
            rows = member.run("SELECT CAST(id AS INT), v FROM t ORDER BY 1")
            assert rows == [(1, "A"), (2, "B"), (3, "c"), (9, "same")]
        group.close()


def schema_of(path: Path) -> list[tuple[Any, ...]]:
    """Return the application's objects in a file."""
    with closing(apsw.Connection(str(path))) as connection:
        listed = connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY name").fetchall()
    return [row for row in listed if not is_private(str(row[1]))]


def made_from(member: Member, folder: Path) -> Path:
    """Return a new database made from a snapshot of the member's mirror, filled."""
    snapshot = folder / "snapshot.db"
    save_copy(member.options.mirror, snapshot)
    options = replace(member.options, database=folder / "new.db", folder=folder / "new")
    building = begin_database(options, snapshot, Deadline())
    install_mirror(options, snapshot)
    fill_database(options, building, Deadline()).close()
    return building


@pytest.mark.parametrize("ddl", [*([each] for each in ALL_THE_SAME.values()), *LEFT_OUT.values()])
def test_a_new_file_has_the_whole_schema_and_all_rows_that_are_replicated(
    group: Group, tmp_path: Path, ddl: list[str]
) -> None:
    a = equipped(group, *ddl)
    a.run("INSERT INTO t(id, v) VALUES (1, 'A')")
    a.run("INSERT INTO o VALUES (1, 'x')")
    group.settle()
    made = made_from(a, tmp_path)
    assert schema_of(made) == schema_of(a.options.database)
    with closing(apsw.Connection(str(made))) as connection:
        equip(connection)
        assert connection.execute("SELECT * FROM o").fetchall() == [(1, "x")]
        there = connection.execute("SELECT CAST(id AS INT), v FROM t").fetchall()
        assert there == ([(1, "A")] if "t" in a.replica.tables else [])
        connection.execute("INSERT INTO t(id, v) VALUES (5, 'E')")
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_a_virtual_table_without_its_module_is_left_out_with_what_belongs_to_it(
    group: Group, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    a = group.member(
        OTHER, "CREATE TABLE place_data(id INTEGER PRIMARY KEY, b)", "CREATE INDEX place_i ON place_data(b)"
    )
    a.run("PRAGMA writable_schema = 1")
    virtual = "CREATE VIRTUAL TABLE place USING nowhere(geometry)"
    a.run("INSERT INTO sqlite_schema VALUES ('table', 'place', 'place', 0, ?)", (virtual,))
    a.run("PRAGMA writable_schema = RESET")
    a.run("CREATE TRIGGER o_place AFTER INSERT ON o BEGIN INSERT INTO place VALUES (new.v); END")
    a.run("CREATE TRIGGER o_check BEFORE INSERT ON o WHEN new.v = '' BEGIN SELECT raise(ABORT, 'empty'); END")
    a.replica.reinstall()
    assert set(a.replica.tables) == {"o"}
    made = made_from(a, tmp_path)
    assert [row[1] for row in schema_of(made)] == ["o", "o_check"]
    assert "left table 'place' out of the new database: this SQLite has no module nowhere" in caplog.text
    with closing(apsw.Connection(str(made))) as connection:
        connection.execute("INSERT INTO o VALUES (1, 'x')")


def test_a_page_that_is_damaged_is_found_beside_a_table_that_cannot_be_checked(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    with closing(apsw.Connection(str(path))) as connection:
        equip(connection)
        for sql in (*LEFT_OUT["an index's collation"], OTHER):
            connection.execute(sql)
        connection.execute("INSERT INTO t VALUES (1, 'a'); INSERT INTO o VALUES (1, 'x')")
        size, page = (
            connection.execute(sql).fetchone()[0]  # type: ignore[index]
            for sql in ("PRAGMA page_size", "SELECT rootpage FROM sqlite_schema WHERE name = 'o'")
        )
    assert damage(path) == ""
    content = bytearray(path.read_bytes())
    content[(page - 1) * size + 3 : (page - 1) * size + 8] = b"\xff" * 5
    path.write_bytes(content)
    assert damage(path) != ""


def test_rows_of_a_table_that_one_node_alone_can_write_are_kept_for_the_others(group: Group) -> None:
    ddl = ["CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT)", "CREATE INDEX i ON t(norm(v))"]
    b = equipped(group, *ddl)
    with loaded():
        a = equipped(group, *ddl)
    a.run("INSERT INTO t VALUES (1, 'A')")
    b.run("INSERT INTO t VALUES (2, 'B')")
    a.run("INSERT INTO o VALUES (1, 'x')")
    group.settle()
    assert b.run("SELECT * FROM o") == [(1, "x")]
    assert b.run("SELECT * FROM t") == [(2, "B")]
    with loaded():
        b.stop()
        b.start()
        assert group.equal("t") == [(1, "A"), (2, "B")]
        group.close()
