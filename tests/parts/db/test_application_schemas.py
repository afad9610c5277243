"""Schemas like Anki's and Calibre's, with what the application gives SQLite and without it: what travels, what stays.

They are written here after what such files use: collations in keys and indexes there, triggers that call functions
here.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any
from uuid import uuid4

import apsw
import pytest

from harmonylite.db.sqlite import extensions
from tests.parts.db.fix_replicas import Group, Member

CARDS = (
    "CREATE TABLE note_kind(id INTEGER PRIMARY KEY, name TEXT NOT NULL COLLATE unicase, config BLOB NOT NULL)",
    "CREATE UNIQUE INDEX note_kind_name ON note_kind(name)",
    "CREATE TABLE deck(id INTEGER PRIMARY KEY, name TEXT NOT NULL COLLATE unicase, common BLOB NOT NULL)",
    "CREATE UNIQUE INDEX deck_name ON deck(name)",
    "CREATE TABLE tag(tag TEXT NOT NULL PRIMARY KEY COLLATE unicase, usn INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE TABLE note(id INTEGER PRIMARY KEY, guid TEXT NOT NULL, kind INTEGER NOT NULL, fields TEXT NOT NULL)",
    "CREATE TABLE card(id INTEGER PRIMARY KEY, note INTEGER NOT NULL, deck INTEGER NOT NULL, due INTEGER NOT NULL)",
    "CREATE TABLE field(kind INTEGER, ord INTEGER, name TEXT NOT NULL COLLATE unicase, PRIMARY KEY (kind, ord))",
)
BY_COLLATION = {"note_kind", "deck", "tag"}
ALWAYS = {"note", "card", "field"}
BOOKS = (
    "CREATE TABLE book(id INTEGER PRIMARY KEY AUTOINCREMENT, title TEXT NOT NULL DEFAULT 'Unknown' COLLATE NOCASE,"
    " sort TEXT COLLATE NOCASE, uuid TEXT)",
    "CREATE TABLE author(id INTEGER PRIMARY KEY, name TEXT NOT NULL COLLATE NOCASE, UNIQUE(name))",
    "CREATE TABLE book_author(id INTEGER PRIMARY KEY, book INTEGER NOT NULL, author INTEGER NOT NULL,"
    " UNIQUE(book, author))",
    "CREATE TRIGGER book_new AFTER INSERT ON book BEGIN"
    " UPDATE book SET sort = title_sort(new.title), uuid = uuid4() WHERE id = new.id; END",
    "CREATE TRIGGER book_renamed AFTER UPDATE OF title ON book BEGIN"
    " UPDATE book SET sort = title_sort(new.title) WHERE id = new.id AND old.title <> new.title; END",
    "CREATE TRIGGER book_gone AFTER DELETE ON book BEGIN DELETE FROM book_author WHERE book = old.id; END",
    "CREATE TRIGGER book_author_new BEFORE INSERT ON book_author BEGIN SELECT CASE"
    " WHEN (SELECT id FROM book WHERE id = new.book) IS NULL THEN raise(ABORT, 'no such book') END; END",
    "CREATE VIEW listed AS SELECT id, title, sortconcat(id, title) AS sorted FROM book GROUP BY id",
)


def unicase(one: str, other: str) -> int:
    """Compare without case, in all languages."""
    a, b = one.casefold(), other.casefold()
    return (a > b) - (a < b)


def title_sort(*values: Any) -> str:
    """Put the article last."""
    first, _, rest = (title := str(values[0])).partition(" ")
    return f"{rest}, {first}" if rest and first in ("A", "The") else title


def register(connection: apsw.Connection) -> None:
    """Give a connection what the two applications have."""
    connection.create_collation("unicase", unicase)
    connection.create_scalar_function("title_sort", title_sort, 1, deterministic=True)
    connection.create_scalar_function("uuid4", lambda *_: str(uuid4()), 0)


@pytest.fixture
def given(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[bool]:
    """Whether `[extensions] python` names what the application has."""
    module = ModuleType("the_applications")
    module.register = register  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "the_applications", module)
    extensions.use((), "the_applications:register" if request.param else "")
    yield request.param
    extensions.use((), "")


def member(group: Group, ddl: tuple[str, ...]) -> Member:
    """Add a node whose application has what it needs, whatever the node has."""
    added = group.member()
    register(added.app)
    for sql in ddl:
        added.run(sql)
    added.replica.reinstall()
    return added


both = pytest.mark.parametrize("given", [True, False], indirect=True, ids=["given", "not given"])


@both
def test_a_collection_of_cards_travels_but_for_what_a_missing_collation_keys(group: Group, given: bool) -> None:
    a, b = member(group, CARDS), member(group, CARDS)
    a.run("INSERT INTO deck VALUES (1, 'Größe', x'00')")
    a.run("INSERT INTO note_kind VALUES (1, 'Basic', x'00')")
    a.run("INSERT INTO field VALUES (1, 0, 'Front')")
    a.run("INSERT INTO note VALUES (1, 'g', 1, 'a' || char(31) || 'b')")
    a.run("INSERT INTO card VALUES (1, 1, 1, 5)")
    a.run("INSERT INTO tag VALUES ('Verb', -1)")
    group.settle()
    b.run("UPDATE card SET due = 9 WHERE id = 1")
    b.run("UPDATE field SET name = 'FRONT'")
    group.equal(*ALWAYS)
    for each in (a, b):
        assert set(each.replica.tables) == (ALWAYS | BY_COLLATION if given else ALWAYS)
        assert each.run("SELECT due FROM card") == [(9,)]
        assert each.run("SELECT name FROM field") == [("FRONT",)]
        left_out = {name for name, text in each.replica.warnings.items() if "not replicated by this node" in text}
        assert left_out == (set() if given else BY_COLLATION)
        assert all("unicase" in each.replica.warnings[name] for name in left_out)
    assert b.run("SELECT id FROM deck WHERE name = 'GRÖSSE'") == ([(1,)] if given else [])
    assert b.run("SELECT count(*) FROM tag") == [(int(given),)]
    group.close()


@both
def test_a_library_of_books_travels_whole_as_its_functions_run_where_it_writes(group: Group, given: bool) -> None:
    a, b = member(group, BOOKS), member(group, BOOKS)
    a.run("INSERT INTO book(title) VALUES ('The Trial')")
    a.run("INSERT INTO author VALUES (1, 'Kafka')")
    a.run("INSERT INTO book_author VALUES (1, 1, 1)")
    group.settle()
    ((first,),) = a.run("SELECT uuid FROM book")
    b.run("UPDATE book SET title = 'A Castle'")
    group.settle()
    for each in (a, b):
        assert set(each.replica.tables) == {"book", "author", "book_author"}
        assert each.run("SELECT title, sort, uuid FROM book") == [("A Castle", "Castle, A", first)]
        assert not any("not replicated" in text for text in each.replica.warnings.values()), given
    b.run("DELETE FROM book")
    group.equal("book", "author", "book_author")
    assert a.run("SELECT * FROM book_author") == []
    group.close()


class NumberedShadows:
    """A module whose tables have numbers in their names, which SQLite therefore doesn't know as the module's."""

    def Create(self, connection: apsw.Connection, *names: Any) -> tuple[str, Any]:  # noqa: N802, as apsw has it
        _module, schema, table = names
        connection.execute(f'CREATE TABLE "{schema}"."{table}_part00"(id INTEGER PRIMARY KEY, part)')
        return self.Connect()

    def Connect(self, *_: Any) -> tuple[str, Any]:  # noqa: N802
        return "CREATE TABLE x(value)", self

    def BestIndex(self, *_: Any) -> None:  # noqa: N802
        return None


def numbered(connection: apsw.Connection) -> None:
    """Give a connection the module."""
    module: Any = NumberedShadows()
    connection.create_module("numbered", module)


def test_a_table_that_a_module_makes_for_itself_is_not_replicated_and_its_likes_by_name_are(group: Group) -> None:
    apsw.connection_hooks.append(numbered)
    try:
        ddl = ["CREATE VIRTUAL TABLE Idx USING numbered()", "CREATE TABLE idx_mine(id INTEGER PRIMARY KEY, v)"]
        a, b = group.several(2, *ddl)
        a.run("INSERT INTO idx_mine VALUES (1, 'x')")
        a.run("INSERT INTO Idx_part00 VALUES (1, 'here')")
        assert group.equal("idx_mine") == [(1, "x")]
        for each in (a, b):
            assert set(each.replica.tables) == {"idx_mine"}
            assert not each.replica.warnings
        assert b.run("SELECT * FROM Idx_part00") == []
        group.close()
    finally:
        apsw.connection_hooks.remove(numbered)


def test_without_the_module_all_that_may_be_its_own_is_left_out_by_name(group: Group) -> None:
    a = group.member("CREATE TABLE IDX_part00(id INTEGER PRIMARY KEY, part)")
    a.run("PRAGMA writable_schema = 1")
    virtual = "CREATE VIRTUAL TABLE idx USING nowhere()"
    a.run("INSERT INTO sqlite_schema VALUES ('table', 'idx', 'idx', 0, ?)", (virtual,))
    a.run("PRAGMA writable_schema = RESET")
    a.run("CREATE TABLE o(id INTEGER PRIMARY KEY)")
    a.replica.reinstall()
    assert set(a.replica.tables) == {"o"}
    assert "the virtual table idx, whose module nowhere this SQLite lacks" in a.replica.warnings["IDX_part00"]
