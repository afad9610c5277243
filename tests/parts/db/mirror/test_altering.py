"""A mirror's table is changed in place where SQLite can, and is then the same as one that was made once more."""

from __future__ import annotations

from collections.abc import Callable

import apsw
import pytest

from harmonylite.db.mirror import altering, table_shapes
from harmonylite.db.mirror.redeclaring import redeclared
from tests.parts.db.fix_replicas import Group, Member
from tests.parts.db.fix_schemas import rebuild

TABLE = (
    "CREATE TABLE t(id TEXT NOT NULL PRIMARY KEY, a, b INT DEFAULT 7 CHECK (b <> a), c, g AS (b + 1), CHECK (b > 0))",
    "CREATE UNIQUE INDEX t_a ON t(a)",
    "CREATE INDEX t_b ON t(b)",
)
IN_PLACE: dict[str, tuple[str, ...]] = {
    "a column": ("ALTER TABLE t ADD COLUMN d TEXT",),
    "a column with a default": ("ALTER TABLE t ADD COLUMN d TEXT DEFAULT 'it''s'",),
    "a column that must have its default": ("ALTER TABLE t ADD COLUMN d REAL NOT NULL DEFAULT -1.5",),
    "a column that refers": ("ALTER TABLE t ADD COLUMN d TEXT REFERENCES t(id)",),
    "a computed column": ("ALTER TABLE t ADD COLUMN d AS (c)",),
    "two columns": ("ALTER TABLE t ADD COLUMN d", "ALTER TABLE t ADD COLUMN [e e]"),
    "a new column that is unique": ("ALTER TABLE t ADD COLUMN d", "CREATE UNIQUE INDEX t_d ON t(d)"),
    "another name": ("ALTER TABLE t RENAME COLUMN c TO d",),
    "another name of an indexed column": ('ALTER TABLE t RENAME COLUMN a TO "the a"',),
    "another name of a checked column": ("ALTER TABLE t RENAME COLUMN b TO d",),
    "another name of the key": ("ALTER TABLE t RENAME COLUMN id TO d",),
    "a column less": ("ALTER TABLE t DROP COLUMN c",),
    "an index less": ("DROP INDEX t_a",),
    "an index more": ("CREATE UNIQUE INDEX t_c ON t(c)",),
}
PLAIN = "id TEXT NOT NULL PRIMARY KEY, a, b INT DEFAULT 7, c, d VARCHAR(10), e TEXT COLLATE NOCASE"


def _again(columns: str, tail: str = "") -> tuple[str, ...]:
    """Return the statements that rebuild the table without values that change; ``columns``: the new definition."""
    copy = "INSERT INTO x(id, a, b, c, d, e) SELECT id, a, b, c, d, e FROM p"
    return (f"CREATE TABLE x({columns}){tail}", copy, "DROP TABLE p", "ALTER TABLE x RENAME TO p")


def _with(old: str, new: str) -> tuple[str, ...]:
    assert old in PLAIN
    return _again(PLAIN.replace(old, new))


REDECLARED: dict[str, tuple[str, ...]] = {
    "a longer text": _with("VARCHAR(10)", "VARCHAR(20)"),
    "a type of the same affinity": _with("b INT ", "b UNSIGNED BIGINT "),
    "a check": _with("c,", "c CHECK (c <> 'never'),"),
    "a check of the table": _again(PLAIN + ", CHECK (a IS NOT b)"),
    "a reference": _with("c,", "c REFERENCES p(id) ON DELETE SET NULL,"),
    "a value that is demanded, and there": _with("b INT DEFAULT 7", "b INT NOT NULL DEFAULT 7"),
    "a clause for conflicts": _with("PRIMARY KEY", "PRIMARY KEY ON CONFLICT REPLACE"),
    "quotes and spaces": _with("a, b", '"a" ,\n  [b]'),
    "a longer text, and a column": (*_with("VARCHAR(10)", "VARCHAR(20)"), "ALTER TABLE p ADD COLUMN f INT DEFAULT 3"),
    "a check, and another name": (*_with("c,", "c CHECK (c <> 'never'),"), "ALTER TABLE p RENAME COLUMN a TO z"),
}
MADE_ONCE_MORE: dict[str, tuple[str, ...]] = {
    "a value that is demanded, and missing": (
        "UPDATE p SET c = 0 WHERE c IS NULL",
        *_with("c,", "c NOT NULL DEFAULT 0,"),
    ),
    "another affinity": _with("d VARCHAR(10)", "d NUMERIC"),
    "another collation": _with("c,", "c COLLATE NOCASE,"),
    "no collation": _with(" COLLATE NOCASE", ""),
    "another default": _with("DEFAULT 7", "DEFAULT 8"),
    "a default": _with("c,", "c DEFAULT 'new',"),
    "no default": _with(" DEFAULT 7", ""),
    "another collation of the key": _with("id TEXT", "id TEXT COLLATE NOCASE"),
    "a key in another place": _again(PLAIN.replace(" PRIMARY KEY", "") + ", PRIMARY KEY (b, id)"),
    "a unique column": _with("b INT", "b INT UNIQUE"),
    "without rowid": _again(PLAIN, " WITHOUT ROWID"),
    "strict": _again("id TEXT NOT NULL PRIMARY KEY, a ANY, b INT, c ANY, d TEXT, e TEXT COLLATE NOCASE", " STRICT"),
    "a computed column": _again(PLAIN + ", g AS (b + 1)"),
    "a stored column": _again(PLAIN + ", g AS (b + 1) STORED"),
    "another order": _again(
        "id TEXT NOT NULL PRIMARY KEY, b INT DEFAULT 7, a, c, d VARCHAR(10), e TEXT COLLATE NOCASE"
    ),
}
POURED: dict[str, tuple[str, ...]] = {
    "a column made again": ("ALTER TABLE t DROP COLUMN c", "ALTER TABLE t ADD COLUMN c DEFAULT 5"),
    "a column less, one more": ("ALTER TABLE t DROP COLUMN c", "ALTER TABLE t ADD COLUMN d DEFAULT 5"),
    "columns that exchange their names": (
        "ALTER TABLE t RENAME COLUMN c TO x",
        "ALTER TABLE t RENAME COLUMN a TO c",
        "ALTER TABLE t RENAME COLUMN x TO a",
    ),
    "another default": rebuild("t", "id TEXT PRIMARY KEY NOT NULL, a TEXT, b INT DEFAULT 8, c", "id, a, b, c")[1:-1],
    "a column in the middle": rebuild("t", "id TEXT PRIMARY KEY NOT NULL, a TEXT, d, b, c", "id, a, 1, b, c")[1:-1],
}


def _change(group: Group, statements: tuple[str, ...]) -> Member:
    """Let one member make a change in one transaction, with a row under way; return the other one when all is done."""
    one, other = group.several(2, *TABLE, apply_schema="all")
    one.run("INSERT INTO t(id, a, b, c) VALUES ('x', 'p', 1, 1.5), ('y', 'q', 2, NULL), ('z', NULL, 3, x'00')")
    group.settle()
    other.run("INSERT INTO t(id, a, b, c) VALUES ('w', 'r', 4, 'under way')")
    other.send()
    for sql in ("BEGIN", *statements, "COMMIT"):
        one.run(sql)
    return other


def _root(member: Member, table: str = "t") -> object:
    roots = "SELECT rootpage FROM mirror.sqlite_schema WHERE name = ?"
    return member.replica.connection.execute(roots, (table,)).fetchall()


def _all(member: Member, table: str = "t") -> object:
    schema = f"SELECT type, name, sql FROM mirror.sqlite_schema WHERE tbl_name = '{table}' ORDER BY name"
    whole = "PRAGMA mirror.integrity_check"
    return [member.replica.connection.execute(sql).fetchall() for sql in (schema, whole)], member.rows(table, "mirror")


@pytest.mark.parametrize("statements", [*IN_PLACE.values(), *POURED.values()], ids=[*IN_PLACE, *POURED])
def test_a_table_that_is_changed_in_place_is_as_one_that_is_poured(
    make_group: Callable[[int], Group], monkeypatch: pytest.MonkeyPatch, statements: tuple[str, ...]
) -> None:
    found = []
    for poured in (False, True):
        group = make_group(1)
        if poured:
            monkeypatch.setattr(table_shapes, "steps_between", lambda *_: None)
        other = _change(group, statements)
        before = [_root(member) for member in group.members]
        group.equal("t")
        moved = [_root(member) for member in group.members] != before
        assert poured or moved == (statements in POURED.values())
        found.append([_all(member) for member in group.members])
        assert other.replica.waiting_schema() == []
    assert found[0] == found[1]


@pytest.mark.parametrize(
    "statements",
    [*REDECLARED.values(), *MADE_ONCE_MORE.values()],
    ids=[*REDECLARED, *MADE_ONCE_MORE],
)
def test_a_rebuild_leaves_the_mirrors_rows_in_place_where_they_are_stored_alike(
    make_group: Callable[[int], Group], monkeypatch: pytest.MonkeyPatch, statements: tuple[str, ...]
) -> None:
    found = []
    for poured in (False, True):
        if poured:
            monkeypatch.setattr(altering, "redeclared", lambda *_: False)
        group = make_group(1)
        one, other = group.several(2, f"CREATE TABLE p({PLAIN})", apply_schema="all")
        one.run("INSERT INTO p VALUES ('x', 'p', 1, NULL, 'one', 'E'), ('y', 5, 2, 2.5, '10', 'e')")
        one.run("INSERT INTO p VALUES ('Z', x'00', 3, 'n', 7, '')")
        group.settle()
        other.run("INSERT INTO p VALUES ('w', 'r', 4, 'under way', NULL, 'f')")
        other.send()
        before = [_root(member, "p") for member in group.members]
        one.app.execute("BEGIN; " + "; ".join(statements) + "; COMMIT")
        group.equal("p")
        assert poured or ([_root(member, "p") for member in group.members] == before) == (
            statements in REDECLARED.values()
        )
        found.append([_all(member, "p") for member in group.members])
        assert [member.replica.waiting_schema() for member in group.members] == [[], []]
    assert found[0] == found[1]


def test_a_redeclaration_that_is_taken_back_leaves_nothing(make_group: Callable[[int], Group]) -> None:
    one = make_group(1).several(1, f"CREATE TABLE p({PLAIN})", apply_schema="all")[0]
    connection = one.replica.connection
    old = altering.MirrorTables.read(connection, "p").tables.get("p")
    assert old is not None
    new = old.replace("a, b", "a NOT NULL, b")
    connection.execute("BEGIN IMMEDIATE")
    assert redeclared(connection, "p", old, new)
    refused = "INSERT INTO mirror.p(id) VALUES ('1')"
    with pytest.raises(apsw.ConstraintError, match="NOT NULL"):
        connection.execute(refused)
    connection.execute("ROLLBACK")
    assert altering.MirrorTables.read(connection, "p").tables.get("p") == old
    connection.execute("BEGIN IMMEDIATE")
    connection.execute(refused)
    connection.execute("ROLLBACK")
