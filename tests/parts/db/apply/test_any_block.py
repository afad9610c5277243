"""Whatever a block holds that decodes, applying it ends in rows or in an error that names the message; nothing else."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from harmonylite.changes.fragments import Fragment
from harmonylite.changes.skipped import LeftOut
from harmonylite.db.mirror import skipped_messages
from harmonylite.errors import PoisonError, SchemaWaitError
from harmonylite.model import ChangeSetId, text_of
from harmonylite.node.history import _event_json
from harmonylite.replication.row_history import events
from harmonylite.wire import KIND_CHANGES, VERSION, Envelope, TableBlock, Updates, encode_envelope
from tests.parts.db.fix_replicas import Group, Member
from tests.simulation.world import World

TABLES = """
CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT UNIQUE, b NOT NULL DEFAULT 1);
CREATE TABLE pair(x, y TEXT COLLATE NOCASE, v REAL, PRIMARY KEY(x, y)) WITHOUT ROWID;
CREATE TABLE nokey(v, w);
CREATE TABLE strict(id TEXT PRIMARY KEY, n INTEGER) STRICT;
"""
COLUMNS = {"t": ["id", "a", "b"], "pair": ["x", "y", "v"], "nokey": ["rowid", "v", "w"], "strict": ["id", "rowid", "n"]}
VALUES = st.one_of(
    st.none(),
    st.integers(-(2**63), 2**64 - 1),
    st.sampled_from([0, 1, 2, True, 1.0, "1", "a", "A", b"", b"a", "\0"]),
    st.floats(),
    st.text(max_size=3),
    st.binary(max_size=3),
    st.lists(st.integers(0, 9), max_size=1),
    st.builds(msgspec.msgpack.Ext, st.sampled_from([1, 1, 1, 7]), st.binary(max_size=3)),
    st.just({}),
)


@st.composite
def parts(draw: st.DrawFn) -> Any:
    """Draw one table's part: mostly of the right shape, now and then of any."""
    table = draw(st.sampled_from([*COLUMNS] * 3 + ["T", "sqlite_schema", "__harmonylite__log", "none", "", "\0"]))
    columns = draw(st.just(COLUMNS.get(table, ["id"])) | st.lists(st.sampled_from(["id", "a", "b", "x", "rowid", ""])))
    width = draw(st.just(len(columns)) | st.integers(0, 4))
    rows = st.lists(st.lists(VALUES, min_size=width, max_size=width), max_size=3)
    keys = draw(st.just(2 if table in ("pair", "strict") else 1) | st.integers(-2, 5))
    changed = draw(st.lists(st.integers(-1, 4), max_size=3))
    old = st.lists(st.lists(VALUES, min_size=len(changed), max_size=len(changed)), max_size=3)
    updates = st.lists(st.builds(Updates, st.just(changed), rows, old), max_size=2)
    return TableBlock(table, columns, keys, draw(rows), draw(rows), draw(updates))


def look_back(member: Member, block: list[TableBlock]) -> None:
    """Ask what the block did to each of its rows: it is told in JSON, or refused with an error of ours."""
    data = msgspec.msgpack.encode(block)
    for part in block:
        if (table := member.replica.tables.get(part.table)) is None:
            continue
        shape = table.shape
        width = len([column for column in shape.keys if not column.pseudo]) or 1
        images = [*part.deletes, *part.inserts, *(row for group in part.updates for row in group.rows)]
        for row in images:
            fragment = Fragment(
                ChangeSetId("x", "s", 1), KIND_CHANGES, 0, 1, 1, (0,), 0.0, {}, [(0, len(data), False)], BytesIO(data)
            )
            try:
                found = [_event_json(event) for event in events(fragment, shape, [text_of(v) for v in row[:width]])]
            except PoisonError as error:
                assert (error.shard, error.seq) == (0, 1)  # noqa: PT017
            else:
                json.dumps(found)


@settings(max_examples=25)
@given(st.lists(st.lists(parts(), max_size=3), max_size=8))
def test_any_block_that_decodes_becomes_rows_or_an_error_of_ours(blocks: list[list[TableBlock]]) -> None:
    with TemporaryDirectory() as folder:
        group = Group(Path(folder), World(1))
        try:
            member = group.member(TABLES)
            member.run("INSERT INTO t VALUES (1, 'a', 'b'), (2, 'A', 1)")
            member.run("INSERT INTO nokey VALUES (1, 2)")
            group.settle()
            for block in blocks:
                before = member.replica.positions()
                look_back(member, block)
                envelope = Envelope(
                    VERSION,
                    KIND_CHANGES,
                    "x",
                    "s",
                    group.world.last(0),
                    0,
                    False,
                    True,
                    [0],
                    0.0,
                    {},
                    False,
                    msgspec.msgpack.encode(block),
                )
                seq = group.world.publish(0, "x", encode_envelope(envelope))
                try:
                    member.receive()
                except (PoisonError, SchemaWaitError) as error:
                    assert (error.shard, error.seq) == (0, seq)  # noqa: PT017
                    assert member.replica.positions() == before
                    skipped_messages.remember(member.replica.connection, [LeftOut(0, seq)])
                    member.stop()
                    member.start()
                    for left_out in skipped_messages.left_out(member.replica.connection):
                        member.reassembler.skip(left_out.shard, left_out.seq)
                    member.receive()
            member.run("INSERT INTO t(a, b) VALUES ('honest', 'row')")
            group.settle()
            assert "honest" in {row[1] for row in member.rows("t")}
        finally:
            group.close()
