"""A row that SQLite refuses names its message, table and key, whatever is beside it."""

from __future__ import annotations

import apsw
import pytest

from harmonylite.changes.skipped import LeftOut
from harmonylite.db.mirror import skipped_messages
from harmonylite.errors import PoisonError, RowRefusedError
from tests.parts.db.fix_replicas import Group, Member

LOOSE = "CREATE TABLE t(id INTEGER PRIMARY KEY, n INTEGER, note TEXT)"
WIDE = "CREATE TABLE t(id PRIMARY KEY, n INTEGER, note TEXT) WITHOUT ROWID"
BAD: dict[str, tuple[str, str, str, str]] = {
    "STRICT": (LOOSE, f"{LOOSE} STRICT", "(7, 'many', '')", "cannot store TEXT value in INTEGER column t.n"),
    "NOT NULL": (
        LOOSE,
        LOOSE.replace("note TEXT", "note TEXT NOT NULL"),
        "(7, 7, NULL)",
        "NOT NULL constraint failed: t.note",
    ),
    "INTEGER PRIMARY KEY": (WIDE, LOOSE, "('seven', 7, '')", "datatype mismatch"),
    "an index on an expression": (
        LOOSE,
        f"{LOOSE}; CREATE INDEX i ON t(json_extract(note, '$.a'))",
        "(7, 7, 'no json')",
        "malformed JSON",
    ),
}
"""The writer's table, the reader's, what the writer inserts, and what SQLite says of it."""
GOOD = {key: f"({key}, {key}, '{{}}')" for key in (*range(1, 7), *range(8, 20))}
"""Rows that all of these tables take, by their keys."""


def refused(member: Member) -> str:
    """Let ``member`` receive; return what it says against it."""
    with pytest.raises(PoisonError) as caught:
        member.receive()
    assert caught.value.refused
    return str(caught.value)


def sent(writer: Member, *rows: str) -> None:
    """Write and send ``rows`` in one change set."""
    for row in rows:
        writer.run(f"INSERT INTO t VALUES {row}")
    writer.send()
    writer.receive()


@pytest.mark.parametrize(("here", "there", "row", "why"), BAD.values(), ids=BAD)
def test_a_row_that_sqlite_refuses_is_named_among_many(group: Group, here: str, there: str, row: str, why: str) -> None:
    writer, reader = group.member(here), group.member(there)
    good = list(GOOD.values())
    sent(writer, *good[:3])
    sent(writer, *good[3:9], row, *good[9:12])
    sent(writer, *good[12:])
    said = refused(reader)
    key = row[1:].split(",")[0]
    assert f"message 2 of shard 0 can't be applied: SQLite refuses the row of table t with the key {key}, " in said
    assert f"written by node a: {why}; " in said
    assert "harmonylite skip 0 2" in said
    assert reader.rows("t") == reader.rows("t", "mirror") == [], "nothing of the cut is there"

    skipped_messages.remember(reader.replica.connection, [LeftOut(0, 2)])
    reader.stop()
    reader.start()
    reader.reassembler.skip(0, 2)
    reader.receive()
    keys = {1, 2, 3, *list(GOOD)[12:]}
    assert {values[0] for values in reader.rows("t")} == {values[0] for values in reader.rows("t", "mirror")} == keys


def test_an_update_that_sqlite_refuses_is_named_too(group: Group) -> None:
    writer, reader = group.member(LOOSE), group.member(f"{LOOSE} STRICT")
    sent(writer, *GOOD.values())
    writer.run("UPDATE t SET n = n + 1")
    writer.run("UPDATE t SET n = 'many' WHERE id = 13")
    sent(writer, "(21, 21, '')")
    assert "message 2 of shard 0" in (said := refused(reader))
    assert "with the key 13," in said


def test_the_first_block_with_such_a_row_is_found_in_a_large_change_set(group: Group) -> None:
    writer, reader = group.member(LOOSE), group.member(f"{LOOSE} STRICT")
    writer.run(
        "WITH r(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM r WHERE i < 3000)"
        " INSERT INTO t SELECT i, iif(i = 2222, 'many', i), hex(randomblob(500)) FROM r"
    )
    assert writer.send() == 3000
    assert "with the key 2222," in refused(reader)
    assert reader.rows("t") == []


def test_what_is_refused_goes_in_once_the_table_takes_it(group: Group) -> None:
    here, there, row, _ = BAD["an index on an expression"]
    writer, reader = group.member(here), group.member(there)
    sent(writer, row)
    refused(reader)
    reader.run("DROP INDEX i")
    reader.stop()
    reader.start()
    assert group.equal("t") == [(7, 7, "no json")]


def test_new_rows_whose_key_has_no_place_here_are_logged_once_and_the_others_go_in(
    group: Group, caplog: pytest.LogCaptureFixture
) -> None:
    """A key that may hold NULL on one node only; after a migration nothing else can become of such rows."""
    nullable = "CREATE TABLE t(id TEXT PRIMARY KEY, n, note)"
    writer, reader = group.member(nullable), group.member(nullable.replace("KEY", "KEY NOT NULL"))
    sent(writer, "('a', 1, '')", "(NULL, 2, '')", "(NULL, 3, '')", "('b', 4, '')")
    reader.receive()
    sent(writer, "('c', 5, '')")
    reader.receive()
    assert [row[0] for row in reader.rows("t")] == ["a", "b", "c"]
    assert caplog.messages == [
        "skip 2 new rows of table t in message 1 of shard 0, written by node a: their key holds NULL, which this"
        " node's table refuses"
    ]


def test_when_no_row_that_came_is_to_blame_none_is_named(group: Group) -> None:
    """A trigger means whatever else SQLite may object to in a transaction of the node's."""
    writer, reader = group.member(LOOSE), group.member(LOOSE)
    sent(writer, GOOD[1])
    reader.replica.connection.execute(
        "CREATE TEMP TRIGGER never BEFORE INSERT ON main.__harmonylite__position BEGIN SELECT raise(ABORT, 'no'); END"
    )
    reader.replica.connection.config(apsw.SQLITE_DBCONFIG_ENABLE_TRIGGER, 1)
    with pytest.raises(RowRefusedError, match="no"):
        reader.receive()
