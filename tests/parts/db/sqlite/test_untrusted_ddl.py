"""A schema from outside is data: each definition makes its one object, and nothing else happens."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path

import apsw
import pytest

from harmonylite.db.sqlite.deadline import Deadline
from harmonylite.db.sqlite.untrusted_ddl import apply, decode
from harmonylite.errors import DefinitionError, OverdueError

Row = tuple[object, ...]

GOOD: list[Row] = [
    (
        "table",
        "t",
        "t",
        "CREATE TABLE t(id INTEGER PRIMARY KEY AUTOINCREMENT, v TEXT DEFAULT (lower('X') || random())"
        " CHECK (length(v) > 2) UNIQUE, w GENERATED ALWAYS AS (abs(id)) STORED)",
    ),
    ("table", "no rowid", "no rowid", 'CREATE TABLE "no rowid"(a TEXT PRIMARY KEY, b INT) WITHOUT ROWID, STRICT'),
    ("table", "q'x", "q'x", """CREATE TABLE "q'x"(a REFERENCES t(v) ON DELETE CASCADE, "q""x" DEFAULT CURRENT_TIME)"""),
    ("index", "i", "t", "CREATE INDEX i ON t(lower(v)) WHERE length(w) > 3"),
    ("index", "u", "t", "CREATE UNIQUE INDEX u ON t(v COLLATE NOCASE)"),
    ("view", "seen", "seen", "CREATE VIEW seen AS SELECT count(*) AS c FROM t"),
    ("trigger", "r", "t", "CREATE TRIGGER r AFTER INSERT ON t BEGIN INSERT INTO f(v) VALUES (NEW.v); END"),
    ("trigger", "o", "seen", "CREATE TRIGGER o INSTEAD OF INSERT ON seen BEGIN SELECT 1; END"),
    ("table", "f", "f", "CREATE VIRTUAL TABLE f USING fts5(v, content='t', content_rowid='id', prefix='2 3')"),
    ("table", "four", "four", "CREATE VIRTUAL TABLE four USING fts4(v, tokenize=porter)"),
    ("table", "of_t", "of_t", 'CREATE VIRTUAL TABLE of_t USING fts4(content="t")'),
    ("table", "box", "box", "CREATE VIRTUAL TABLE box USING rtree(id, a, b, +c)"),
    ("table", "area", "area", "CREATE VIRTUAL TABLE area USING geopoly(a)"),
    ("table", "words", "words", "CREATE VIRTUAL TABLE words USING fts5vocab(f, row)"),
]

MORE = [
    "ATTACH '{marker}' AS m",
    "CREATE TABLE second(x)",
    "CREATE TEMP TABLE second(x)",
    "INSERT INTO t(v) VALUES ('more than was said')",
    "INSERT INTO sqlite_schema VALUES ('table', 'x', 'x', 0, 'CREATE TABLE x(y)')",
    "VACUUM INTO '{marker}'",
    "PRAGMA writable_schema = 1",
    "PRAGMA user_version = 7",
    "DROP TABLE t",
    "ALTER TABLE t RENAME TO moved",
    "COMMIT",
    "SELECT 1",
]
"""Statements that a definition must not bring along; those with ``{marker}`` would make that file."""

ALONE: list[tuple[str, Row]] = [
    ("no text", ("table", "x", "x", None)),
    ("bytes", ("table", "x", "x", b"CREATE TABLE x(y)")),
    ("a part is missing", ("table", "x", "CREATE TABLE x(y)")),
    ("an unknown kind", ("database", "x", "x", "CREATE TABLE x(y)")),
    ("another kind", ("index", "x", "x", "CREATE TABLE x(y)")),
    ("another kind again", ("table", "x", "x", "CREATE VIEW x AS SELECT 1")),
    ("another name", ("table", "x", "x", "CREATE TABLE y(z)")),
    ("another table", ("index", "x", "t", 'CREATE INDEX x ON "no rowid"(b)')),
    ("ours", ("table", "__harmonylite__log", "__harmonylite__log", "CREATE TABLE __harmonylite__log(x)")),
    ("SQLite's", ("table", "sqlite_stat1", "sqlite_stat1", "CREATE TABLE sqlite_stat1(tbl, idx, stat)")),
    ("NUL", ("table", "x", "x", "CREATE TABLE x(y)\0")),
    ("no name", ("table", "", "", "CREATE TABLE x(y)")),
    ("after a remark", ("table", "x", "x", "/* */ CREATE TABLE x(y)")),
    ("in small letters, as SQLite keeps none", ("table", "x", "x", "create table x(y)")),
    ("explained only", ("table", "x", "x", "EXPLAIN CREATE TABLE x(y)")),
    ("there already", ("table", "t", "t", "CREATE TABLE IF NOT EXISTS t(y)")),
    ("temporary", ("table", "x", "x", "CREATE TABLE temp.x(y)")),
    ("a temporary trigger", ("trigger", "x", "t", "CREATE TRIGGER temp.x AFTER INSERT ON t BEGIN SELECT 1; END")),
    ("with rows", ("table", "x", "x", "CREATE TABLE x AS SELECT 1 AS y")),
    ("with a function of effect", ("table", "x", "x", "CREATE TABLE x(y DEFAULT (load_extension('none')))")),
    ("with SQLite's log", ("index", "x", "t", "CREATE INDEX x ON t(sqlite_log(1, v))")),
    ("with a tokenizer", ("table", "x", "x", "CREATE TABLE x(y CHECK (fts3_tokenizer('simple')))")),
]


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[apsw.Connection]:
    made = apsw.Connection(str(tmp_path / "new.db"))
    yield made
    made.close()


def made_by(connection: apsw.Connection, *given: Row) -> list[tuple[object, ...]]:
    apply(connection, [decode(row) for row in given], Deadline())
    return connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_schema").fetchall()


def test_every_kind_of_object_is_made_as_it_was(connection: apsw.Connection) -> None:
    """The rows that SQLite itself adds are those of shadow tables and indexes that it makes."""
    found = made_by(connection, *reversed(GOOD))
    assert set(GOOD) <= set(found)
    assert connection.execute("SELECT count(*) FROM temp.sqlite_schema").fetchall() == [(0,)]


def refuses(connection: apsw.Connection, folder: Path, there: list[Row], given: Row) -> None:
    """See that ``given`` is refused beside the objects ``there``, and leaves no trace."""
    made_by(connection, *there)
    before = connection.execute("SELECT * FROM sqlite_schema").fetchall()
    connection.execute("BEGIN")
    with pytest.raises(DefinitionError):
        made_by(connection, given)
    connection.execute("ROLLBACK")  # an error, had the transaction been ended
    assert connection.execute("SELECT * FROM sqlite_schema").fetchall() == before
    assert connection.execute("SELECT count(*) FROM temp.sqlite_schema").fetchall() == [(0,)]
    assert [name for _, name, _ in connection.execute("PRAGMA database_list")] in (["main"], ["main", "temp"])
    assert connection.pragma("user_version") == 0
    assert {path.name for path in folder.iterdir()} <= {"new.db", "new.db-journal"}


@pytest.mark.parametrize(("good", "more"), list(product(GOOD, MORE)))
def test_a_definition_brings_no_second_statement_along(
    connection: apsw.Connection, tmp_path: Path, good: Row, more: str
) -> None:
    second = more.format(marker=tmp_path / "marker")
    refuses(connection, tmp_path, GOOD[: GOOD.index(good)], (*good[:3], f"{good[3]}; {second}"))


@pytest.mark.parametrize("given", [row for _, row in ALONE], ids=[what for what, _ in ALONE])
def test_what_is_no_definition_of_one_object_is_refused(
    connection: apsw.Connection, tmp_path: Path, given: Row
) -> None:
    refuses(connection, tmp_path, GOOD, given)


@pytest.mark.parametrize("statement", MORE)
def test_a_statement_in_place_of_a_definition_is_refused(
    connection: apsw.Connection, tmp_path: Path, statement: str
) -> None:
    given = ("table", "second", "second", statement.format(marker=tmp_path / "marker"))
    if statement != "CREATE TABLE second(x)":
        refuses(connection, tmp_path, GOOD, given)


@pytest.mark.parametrize(
    ("kind", "sql"),
    [
        ("table", "CREATE TABLE other.x(y)"),
        ("table", "CREATE VIRTUAL TABLE other.x USING fts5(y)"),
        ("index", "CREATE INDEX other.x ON t(v)"),
        ("view", "CREATE VIEW other.x AS SELECT 1"),
        ("trigger", "CREATE TRIGGER other.x AFTER INSERT ON t BEGIN SELECT 1; END"),
    ],
)
def test_nothing_is_made_in_another_file_of_the_connection(connection: apsw.Connection, kind: str, sql: str) -> None:
    connection.execute("ATTACH ':memory:' AS other")
    connection.execute("CREATE TABLE other.t(v)")
    made_by(connection, GOOD[0])
    with pytest.raises(DefinitionError, match="is refused: it asks for"):
        made_by(connection, (kind, "x", "t" if kind in ("index", "trigger") else "x", sql))
    assert connection.execute("SELECT name FROM other.sqlite_schema").fetchall() == [("t",)]


def test_a_schema_that_takes_too_long_is_given_up(connection: apsw.Connection) -> None:
    with pytest.raises(OverdueError, match="took longer"):
        apply(connection, [decode(GOOD[0])], Deadline(-1.0))
    whole = Deadline()
    part = whole.within(3600.0)
    whole.give_up()
    with pytest.raises(OverdueError, match="given up"):
        apply(connection, [decode(GOOD[0])], part)


ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"


@pytest.mark.parametrize("end", [lambda deadline: deadline.give_up(), None], ids=["given up", "overdue"])
def test_a_statement_without_end_is_ended(connection: apsw.Connection, end: Callable[[Deadline], None] | None) -> None:
    deadline = Deadline(None if end else 0.05)
    if end is not None:
        threading.Timer(0.05, end, [deadline]).start()
    with pytest.raises(OverdueError), deadline.bounding(connection):
        connection.execute(ENDLESS).fetchall()
    assert connection.execute("SELECT 1").fetchall() == [(1,)], "the connection is free again"
