"""Values and names of any kind reach every node bit for bit, whatever their column is declared as."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import apsw
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harmonylite.db.replica import Replica
from harmonylite.db.replica_options import ReplicaOptions
from harmonylite.db.sqlite.connection import open_file
from harmonylite.db.sqlite.lossless import exact_rows, insert_rows, same_bits
from harmonylite.model import RawText
from harmonylite.schema.shape import Column, differs
from harmonylite.schema.sql import quote, text
from tests.parts.db.fix_replicas import Group
from tests.rules.wire.fix_values import VALUES, bits

DECLARED = ("", "INTEGER", "REAL", "TEXT", "BLOB", "NUMERIC", "BOOLEAN", "DATETIME", "DECIMAL(10, 2)", "ANY")
VALUES_OTHERS_BEND: tuple[Any, ...] = (
    5,
    2**53 + 1,
    2**63 - 1,
    -(2**63),
    0.0,
    -0.0,
    1.0,
    float("inf"),
    float("-inf"),
    "2024-13-45",
    "2024-01-02T03:04:05Z",
    "not a date",
    "a\0b",
    "",
    RawText(b"\xff\xfe\x00"),
    b"",
    b"\0\xff",
    "1",
    "1.0",
    "yes",
    None,
)


def memory() -> apsw.Connection:
    """Return a database in memory."""
    return apsw.Connection(":memory:")


def test_values_that_others_bend_are_the_same_bits_on_every_node(group: Group) -> None:
    columns = ", ".join(f"c{i} {kind}" for i, kind in enumerate(DECLARED))
    a, b = group.several(2, f"CREATE TABLE t(id INTEGER PRIMARY KEY, {columns})")
    width = len(DECLARED) + 1
    insert_rows(a.app, "INSERT INTO t", width, [[i, *[v] * (width - 1)] for i, v in enumerate(VALUES_OTHERS_BEND)])
    assert len(group.equal("t")) == len(VALUES_OTHERS_BEND)
    for i, value in enumerate(VALUES_OTHERS_BEND):
        places = ", ".join(
            f"c{n} = {'CAST(? AS TEXT)' if isinstance(value, RawText) else '?'}" for n in range(width - 1)
        )
        bound = value.data if isinstance(value, RawText) else value
        b.run(f"UPDATE t SET {places} WHERE id = ?", [*[bound] * (width - 1), len(VALUES_OTHERS_BEND) - 1 - i])
    group.equal("t")


@pytest.mark.parametrize(
    ("old", "new"), [(1, 1.0), (0.0, -0.0), ("a", b"a"), (1, "1"), ("a", "A"), (None, "")], ids=bits
)
def test_a_change_of_bits_that_sqlite_holds_equal_is_a_change(group: Group, old: Any, new: Any) -> None:
    a, _ = group.several(2, "CREATE TABLE t(id INTEGER PRIMARY KEY, v COLLATE NOCASE)")
    a.run("INSERT INTO t VALUES (1, ?)", (old,))
    group.settle()
    a.run("UPDATE t SET v = ?", (new,))
    assert a.send() == 1
    ((_, found),) = group.equal("t")
    assert bits(found) == bits(new)


@given(st.lists(VALUES, min_size=1, max_size=5))
def test_any_value_is_stored_and_read_bit_for_bit(values: list[Any]) -> None:
    connection = memory()
    connection.execute("CREATE TABLE t(v)")
    insert_rows(connection, "INSERT INTO t(v)", 1, [[value] for value in values])
    found = [row[0] for row in exact_rows(connection, ["v"], "FROM t")]
    assert list(map(bits, found)) == list(map(bits, values))


@given(VALUES, VALUES, st.sampled_from(["BINARY", "NOCASE", "RTRIM"]))
def test_two_values_differ_when_one_bit_does(left: Any, right: Any, collation: str) -> None:
    connection = memory()
    connection.execute(f"CREATE TABLE t(l COLLATE {collation}, r COLLATE {collation})")
    insert_rows(connection, "INSERT INTO t", 2, [[left, right], [left, left], [right, left]])
    test = differs(Column("v", "BLOB", collation), "l", "r")
    assert [bool(row[0]) for row in connection.execute(f"SELECT {test} FROM t")] == [
        not same_bits(left, right),
        False,
        not same_bits(left, right),
    ]


NAMES = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=20)


@given(NAMES, NAMES)
def test_any_name_is_one_name_to_sqlite(table: str, value: str) -> None:
    connection = memory()
    connection.execute(f"CREATE TABLE {quote('t' + table)}({quote(table)})")
    assert connection.execute("SELECT name FROM sqlite_schema").get == "t" + table
    assert connection.execute("SELECT name FROM pragma_table_info(?)", ("t" + table,)).get == table
    assert connection.execute(f"SELECT {text(value)}").get == value


ODD = [
    "order",
    "group",
    "first name",
    'quo"te',
    "it's",
    "a.b",
    "[b]",
    "`t`",
    "ü x",
    "ключ",
    "%_",
    "{}",
    "t--",
    "1",
    "\t",
]


@pytest.mark.parametrize("name", ODD)
def test_tables_and_columns_of_any_legal_name_are_replicated(group: Group, name: str) -> None:
    q = quote(name)
    ddl = f"CREATE TABLE {q}({q} TEXT PRIMARY KEY NOT NULL, {quote(name + '2')} UNIQUE, v)"
    a, b = group.several(2, ddl)
    a.run(f"INSERT INTO {q} VALUES ('k', 'u', 1), ('l', 'w', 2)")
    group.settle()
    b.run(f"UPDATE {q} SET {q} = 'm', v = 3 WHERE {q} = 'k'")
    a.run(f"INSERT OR REPLACE INTO {q} VALUES ('n', 'w', 4)")
    assert group.equal(name) == [("m", "u", 3), ("n", "w", 4)]


@pytest.mark.parametrize("encoding", ["UTF-8", "UTF-16le"])
def test_a_database_of_another_encoding_has_a_mirror_of_its_own_encoding(tmp_path: Path, encoding: str) -> None:
    connection = open_file(tmp_path / "x.db", create=True)
    connection.execute(f"PRAGMA encoding = '{encoding}'")
    connection.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, v)")
    connection.close()
    replica = Replica(ReplicaOptions(tmp_path / "x.db", tmp_path / "mirror", "n", "s"))
    replica.open()
    assert replica.connection.execute("PRAGMA mirror.encoding").get == encoding
    replica.close()


@pytest.mark.parametrize(("encoding", "half"), [("UTF-16le", "00d8"), ("UTF-16be", "d800")])
def test_values_and_journal_are_bit_for_bit_in_another_encoding(group: Group, encoding: str, half: str) -> None:
    a, b = group.several(
        2, f"PRAGMA encoding = '{encoding}'", "CREATE TABLE t(k TEXT COLLATE NOCASE PRIMARY KEY NOT NULL, v, w)"
    )
    a.run(f"INSERT INTO t VALUES ('é\U0001f600', 'a', 1), ('half a pair', CAST(x'{half}' AS TEXT), 2)")
    b.run("INSERT INTO t VALUES ('é\U0001f600', ?, 1)", ("b\0c",))
    a.send()
    group.equal("t")
    a.run("UPDATE t SET w = 3 WHERE k = 'half a pair'")
    assert sorted(group.equal("t")) == [("half a pair", RawText(bytes.fromhex(half)), 3), ("é\U0001f600", "b\0c", 1)]
    assert [(c.key["k"], c.winning, c.overruled, c.loser) for c in b.replica.conflicts()] == [
        ("é\U0001f600", "b\0c", "a", "a")
    ]
    assert a.replica.digests() == b.replica.digests()


@pytest.mark.parametrize("shards", [1, 4])
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 5), VALUES, VALUES), max_size=6), st.data())
def test_random_rows_reach_every_node(
    make_group: Callable[[int], Group], shards: int, changes: list[tuple[int, Any, Any]], data: st.DataObject
) -> None:
    group = make_group(shards)
    members = group.several(2, "CREATE TABLE t(id INTEGER PRIMARY KEY, a, b TEXT)")
    for row in changes:
        member = data.draw(st.sampled_from(members))
        insert_rows(member.app, "INSERT OR REPLACE INTO t", 3, [list(row)])
        if member.flight is None and data.draw(st.booleans()):
            member.send()
    group.equal("t")
    group.close()
