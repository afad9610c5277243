"""docs/wire-format.md is enough to follow a cluster: a program that knows nothing else ends with the nodes' rows."""

from __future__ import annotations

import asyncio
import json
import signal
from collections import Counter
from collections.abc import Sequence
from typing import Any

import apsw
import msgspec
import nats
import pytest

from tests.cluster.fix_cluster import Site, start
from tests.cluster.processes import Node, until
from tests.docs.follower import Follower, messages, rows_told_apart

pytestmark = pytest.mark.timeout(300)

SHARDS = 3
TABLES = """
CREATE TABLE plain(id TEXT PRIMARY KEY NOT NULL, a, b, c);
CREATE TABLE pair(x INTEGER NOT NULL, y NUMERIC NOT NULL, v, PRIMARY KEY(x, y)) WITHOUT ROWID;
CREATE TABLE seats(id INTEGER PRIMARY KEY, who TEXT, "row" INTEGER, seat INTEGER, UNIQUE("row", seat));
CREATE TABLE keyless(v);
CREATE TABLE nullable(k TEXT PRIMARY KEY, v);
"""
LATER = "CREATE TABLE later(id INTEGER PRIMARY KEY, v)"
COLUMNS = {
    "plain": ("id", "a", "b", "c"),
    "pair": ("x", "y", "v"),
    "seats": ("id", "who", "row", "seat"),
    "keyless": ("rowid", "v"),
    "nullable": ("k", "v"),
}
KEYS = {"plain": ("id",), "pair": ("x", "y"), "seats": ("id",), "keyless": ("rowid",), "nullable": ("k", "rowid")}
UNIQUE = {"seats": ("row", "seat")}

Rows = Counter[tuple[tuple[str, Any], ...]]


def read(connection: apsw.Connection) -> dict[str, Rows]:
    """Return the rows of every table, types told apart."""
    found = {}
    for table, columns in COLUMNS.items():
        reads = ", ".join(f'typeof("{c}"), iif(typeof("{c}") = \'text\', CAST("{c}" AS BLOB), "{c}")' for c in columns)
        found[table] = Rows(
            tuple((k, repr(v) if k == "real" else v) for k, v in zip(row[::2], row[1::2], strict=True))
            for row in connection.execute(f"SELECT {reads} FROM {table}")
        )
    return found


def rows_of(node: Node) -> dict[str, Rows]:
    """Return the rows of every table of a node's database."""
    with node.reader() as connection:
        return read(connection)


def settle(one: Node, two: Node) -> None:
    """Wait until nothing is on its way, in either mirror, and both have the same rows."""
    for node in (one, two):
        node.sent()
    for node in (one, two):
        until(lambda: "position" in node.ask("GET", "/v1/wait?seconds=60"), f"{node.name} has all")  # noqa: B023
    until(lambda: rows_of(one) == rows_of(two), "both nodes have the same rows")


def write_everything(site: Site, one: Node, two: Node) -> None:
    """Write whatever the page speaks of, on both nodes at once."""
    here, there = site.application(one), site.application(two)
    values = (
        "x'00ff'",
        "CAST(x'fffe41' AS TEXT)",
        "9e999",
        "-0.0",
        "9223372036854775807",
        "NULL",
        "'a' || char(0)",
        "''",
    )
    for i, value in enumerate(values):
        here.write(f"INSERT INTO plain VALUES ('v{i}', {value}, {value}, '{i}')")
    count = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000) "
    here.write(f"{count}INSERT INTO plain SELECT 'bulk' || i, i, i / 7.0, 'some text that is the same' FROM n")
    there.write("INSERT INTO plain VALUES ('large', randomblob(500000), 1, 1)", "INSERT INTO pair VALUES (1, 1.5, 'p')")
    here.write(
        "INSERT INTO pair VALUES (1, 2, 'q'), (2, 2, 'r'), (3, 1e300, 's')", "INSERT INTO keyless VALUES (1), (2)"
    )
    there.write("INSERT INTO nullable VALUES (NULL, 1), (NULL, 2), ('k', 3)", "INSERT INTO keyless VALUES ('x'), ('y')")
    for who in range(5):
        (here, there)[who % 2].write(f"INSERT OR REPLACE INTO seats VALUES ({who}, 'w{who}', 1, {who % 3})")
    settle(one, two)
    two.freeze()  # so neither writer has seen whom the other one gives the seat
    here.write("INSERT INTO seats VALUES (10, 'w10', 2, 1)")
    there.write("INSERT INTO seats VALUES (11, 'w11', 2, 1)")
    one.sent()
    two.signal(signal.SIGCONT)
    settle(one, two)
    here.write("UPDATE plain SET b = 'new' WHERE id < 'v4'", "UPDATE pair SET x = 9 WHERE x = 1 AND y = 2")
    there.write("DELETE FROM plain WHERE id LIKE 'bulk%9'", "UPDATE plain SET c = 'c' WHERE id < 'v2'")
    there.write("UPDATE seats SET seat = -1 - seat", "UPDATE seats SET seat = 3 + seat")
    here.write("DELETE FROM nullable WHERE v = 1", "UPDATE keyless SET v = v || '!'")


def leave_unfinished(server: str, prefix: str) -> int:
    """Publish one half of a change set over shards 0 and 1, as a writer that is killed does; no other half comes.

    Return the sequence of that half.
    """
    part = ["plain", ["id", "a", "b", "c"], 1, [], [["never", 1, 2, 3]], []]
    body = msgspec.msgpack.encode([part])
    payload = msgspec.msgpack.encode([1, 0, "stray", "s", 1, 0, False, True, [0, 1], 0.0, {}, False, body])

    async def publish() -> int:
        link = await nats.connect(server)
        stored = await link.jetstream().publish(f"{prefix}.0.stray", payload)
        await link.close()
        return stored.seq

    return asyncio.run(publish())


def leave_what_no_node_wrote(server: str, prefix: str) -> int:
    """Put on subjects what no node wrote in its own name; return how many messages that is."""
    part = ["plain", ["id", "a", "b", "c"], 1, [], [["false", 1, 2, 3]], []]
    sound = [1, 0, "stray", "s", 1, 0, False, True, [0], 0.0, {}, False, msgspec.msgpack.encode([part])]
    sent = {
        "one": [b"", b"plain text", msgspec.msgpack.encode(sound)],
        "stray": [
            msgspec.msgpack.encode([*sound[:8], shards, *sound[9:]]) for shards in ([], [1], [0, 0], [0, SHARDS])
        ],
    }

    async def publish() -> int:
        link = await nats.connect(server)
        for node, payloads in sent.items():
            for payload in payloads:
                await link.jetstream().publish(f"{prefix}.0.{node}", payload)
        await link.close()
        return sum(map(len, sent.values()))

    return asyncio.run(publish())


def follow(
    follower: Follower, server: str, streams: Sequence[str], starts: Sequence[int], after: Sequence[int]
) -> None:
    """Let ``follower`` hear and fold all that the streams hold."""
    for message in messages(server, streams, starts):
        follower.hear(*message)
    follower.fold(after)


def told(follower: Follower) -> dict[str, Rows]:
    """Return the rows that ``follower`` ended with."""
    return {table: Rows(rows_told_apart(follower.tables[table], columns)) for table, columns in COLUMNS.items()}


def test_a_program_that_knows_only_the_page_ends_with_the_rows_of_the_nodes(site: Site) -> None:
    server = site.server(more="max_payload: 64KB")
    keys = {"replication_log": {"shards": SHARDS}}
    one, two = (site.node(name, urls=[server.url], sections=keys, tables=TABLES) for name in ("one", "two"))
    start([one, two])
    write_everything(site, one, two)
    settle(one, two)
    code, said = one.command("snapshot", "save", "-json")
    assert code == 0, said
    snapshot = json.loads(said)["name"]
    site.application(one).write(LATER, "INSERT INTO later VALUES (1, 'x')", "PRAGMA user_version = 7")
    prefix = str(one.sections["nats"]["stream_prefix"])
    half = leave_unfinished(server.url, prefix)
    strange = leave_what_no_node_wrote(server.url, prefix)
    site.application(two).write("INSERT INTO plain VALUES ('after', 1, 2, 3)", "INSERT INTO pair VALUES (7, 7, 7)")
    until(lambda: one.health()["shards"][0]["position"] >= half, "the unfinished change set is given up on")
    settle(one, two)
    assert one.rows("SELECT 1 FROM plain WHERE id = 'after'"), "what came last is there"
    streams = [f"{prefix}-{shard}" for shard in range(SHARDS)]
    rows = rows_of(one)
    assert [node.health()["foreign_messages"] for node in (one, two)] == [strange, strange]

    follower = Follower(SHARDS, UNIQUE)
    follow(follower, server.url, streams, [1] * SHARDS, [0] * SHARDS)
    assert told(follower) == rows
    added = {("table", "later", "later", None, LATER), ("pragma", "user_version", "", "0", "7")}
    assert {tuple(line) for line in follower.schema} == added
    assert len(follower.tables["later"]) == 1
    wanted = {
        "schema",
        "insert",
        "update",
        "delete",
        "displaced",
        "several shards",
        "packed",
        "cut",
        "abort",
        "stepped over",
    }
    assert follower.seen == wanted

    code, said = one.command("snapshot", "fetch", snapshot, "-o", str(site.folder / "snapshot.db"))
    assert code == 0, said
    late = Follower(SHARDS, UNIQUE)
    starts, after = late.begin(site.folder / "snapshot.db", KEYS)
    assert sum(after) > 0
    follow(late, server.url, streams, starts, after)
    assert told(late) == rows
    assert late.seen == {"schema", "insert", "abort", "several shards", "stepped over"}
