"""A change set that can't be applied names itself and changes nothing; leaving it out lets the node continue."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from harmonylite.changes.skipped import LeftOut
from harmonylite.db.mirror import skipped_messages
from harmonylite.db.sqlite.introspection import TableRules
from harmonylite.errors import PoisonError, SchemaWaitError
from harmonylite.wire import KIND_CHANGES, VERSION, Envelope, TableBlock, Updates, encode_envelope
from tests.parts.db.fix_replicas import Group, Member

COLUMNS = ["id", "a", "b"]


def send(group: Group, *blocks: TableBlock, body: bytes | None = None) -> None:
    """Publish a change set that no node of ours would write."""
    made = msgspec.msgpack.encode(blocks) if body is None else body
    number = group.world.last(0)
    envelope = Envelope(VERSION, KIND_CHANGES, "x", "s", number, 0, False, True, [0], 0.0, {}, False, made)
    group.world.publish(0, "x", encode_envelope(envelope))


@pytest.fixture(params=[(), ("a",)], ids=["", "with an identity"])
def member(group: Group, request: pytest.FixtureRequest) -> Member:
    """One node with a row."""
    rules = TableRules(identity=(("t", request.param),) if request.param else ())
    member = group.member("CREATE TABLE t(id INTEGER PRIMARY KEY, a, b)", rules=rules)
    member.run("INSERT INTO t VALUES (1, 'a', 'b')")
    group.settle()
    return member


HOSTILE: dict[str, list[TableBlock]] = {
    "a row that is too short": [TableBlock("t", COLUMNS, 1, inserts=[[2, 3]])],
    "a row that is too long": [TableBlock("t", COLUMNS, 1, deletes=[[1, 2, 3, 4]])],
    "a column that is there twice": [TableBlock("t", ["id", "a", "a"], 1, inserts=[[2, 3, 4]])],
    "a value that is a list": [TableBlock("t", COLUMNS, 1, inserts=[[2, [1], 3]])],
    "a value that is a map": [TableBlock("t", COLUMNS, 1, inserts=[[2, {"x": 1}, 3]])],
    "a value that is a time": [TableBlock("t", COLUMNS, 1, inserts=[[2, datetime(2026, 1, 1, tzinfo=UTC), 3]])],
    "an integer above 64 bits": [TableBlock("t", COLUMNS, 1, inserts=[[2, 2**64 - 1, 3]])],
    "a changed column that isn't there": [TableBlock("t", COLUMNS, 1, updates=[Updates([7], [[1, 2, 3]], [[1]])])],
    "a changed column that is there twice": [
        TableBlock("t", COLUMNS, 1, updates=[Updates([1, 1], [[1, 2, 3]], [[1, 1]])])
    ],
    "old values that don't match": [TableBlock("t", COLUMNS, 1, updates=[Updates([1], [[1, 2, 3]], [])])],
    "a good part before a bad one": [
        TableBlock("t", COLUMNS, 1, inserts=[[5, "x", "y"]]),
        TableBlock("t", COLUMNS, 1, inserts=[[6]]),
    ],
}


@pytest.mark.parametrize("blocks", HOSTILE.values(), ids=HOSTILE)
def test_what_makes_no_sense_names_its_message_and_changes_nothing(
    group: Group, member: Member, blocks: list[TableBlock]
) -> None:
    send(group, *blocks)
    before = member.replica.positions()
    with pytest.raises(PoisonError, match="message 2 of shard 0 can't be applied") as caught:
        member.receive()
    assert "harmonylite skip 0 2" in str(caught.value.advice)
    assert "what no version writes" in str(caught.value)
    assert "update" not in str(caught.value)
    assert member.rows("t") == member.rows("t", "mirror") == [(1, "a", "b")]
    assert member.replica.positions() == before


def test_a_message_that_is_left_out_lets_the_node_go_on_for_good(group: Group, member: Member) -> None:
    send(group, body=b"garbage")
    send(group, TableBlock("t", COLUMNS, 1, inserts=[[2, "next", None]]))
    with pytest.raises(PoisonError):
        member.receive()
    skipped_messages.remember(member.replica.connection, [LeftOut(0, 2)])
    member.stop()
    member.start()
    for entry in skipped_messages.left_out(member.replica.connection):
        member.reassembler.skip(entry.shard, entry.seq)
    member.receive()
    assert member.rows("t") == [(1, "a", "b"), (2, "next", None)]


NAMES = {
    "a table": [TableBlock('t"; DROP TABLE t; --', COLUMNS, 1, inserts=[[2, 3, 4]])],
    "a table of ours": [TableBlock("__harmonylite__log", ["id", "t", "k0"], 1, inserts=[[2, 3, 4]])],
    "a table of SQLite's": [TableBlock("sqlite_schema", ["type", "name", "sql"], 1, inserts=[["a", "b", "c"]])],
    "a column": [TableBlock("t", ["id", "a", 'b" = 1; --'], 1, inserts=[[2, 3, 4]])],
    "a key": [TableBlock("t", ["a", "key", "b"], 1, inserts=[[2, 3, 4]])],
    "a NUL": [TableBlock("t\0x", COLUMNS, 1, inserts=[[2, 3, 4]])],
}


@pytest.mark.parametrize("blocks", NAMES.values(), ids=NAMES)
def test_a_name_that_is_not_here_never_reaches_sql(group: Group, member: Member, blocks: list[TableBlock]) -> None:
    send(group, *blocks)
    with pytest.raises(SchemaWaitError, match="needs table"):
        member.receive()
    assert member.rows("t") == [(1, "a", "b")]


@pytest.mark.parametrize("name", ["", "t\0x", "sqlite_schema", "SQLite_x", "__harmonylite__log"])
def test_of_a_name_that_no_migration_can_bring_it_is_said_how_to_leave_it_out(
    group: Group, member: Member, name: str
) -> None:
    send(group, TableBlock(name, COLUMNS, 1, inserts=[[2, 3, 4]]))
    with pytest.raises(SchemaWaitError, match="no database replicates; `harmonylite skip 0 2` leaves it out"):
        member.receive()


@pytest.mark.parametrize("value", [True, False])
def test_a_truth_is_stored_as_the_integer_that_it_is(group: Group, member: Member, value: Any) -> None:
    send(group, TableBlock("t", COLUMNS, 1, inserts=[[2, value, None]]))
    member.receive()
    assert member.rows("t")[-1] == (2, int(value), None)
