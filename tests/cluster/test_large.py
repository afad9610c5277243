"""Change sets of any size, over any number of shards, are seen whole or not at all."""

from __future__ import annotations

import time

import pytest

from tests.cluster.fix_cluster import Site, start
from tests.cluster.processes import SECONDS, agree, until, until_equal

pytestmark = pytest.mark.timeout(300)

NUMBERS = "WITH RECURSIVE n(i) AS (SELECT {} UNION ALL SELECT i + 1 FROM n WHERE i < {})"
BULK = "CREATE TABLE bulk(id INTEGER PRIMARY KEY, part INTEGER, text TEXT);CREATE TABLE blobs(id TEXT PRIMARY KEY, b);"


def test_a_transaction_of_200_000_rows_is_never_seen_in_part(site: Site) -> None:
    nodes = [site.node(name, tables=BULK) for name in ("a", "b")]
    start(nodes)
    writer = site.application(nodes[0])
    seen = set()
    with nodes[1].reader() as reader:

        def see() -> int:
            found = int(next(reader.execute("SELECT count(*) FROM bulk"))[0])
            seen.add(found)
            return found

        assert see() == 0
        writer.send([[f"{NUMBERS.format(1, 200_000)} INSERT INTO bulk SELECT i, 1, 'row ' || i FROM n", []]])
        deadline = time.monotonic() + 2 * SECONDS
        while see() != 200_000 and time.monotonic() < deadline:
            pass
    assert seen == {0, 200_000}
    writer.ask([["UPDATE bulk SET part = 2", []]])  # the first answer is that of the insert
    until(lambda: nodes[1].value("SELECT count(*) FROM bulk WHERE part = 2") == 200_000, "the update arrives")
    agree(nodes[:1])


def test_what_is_above_max_payload_arrives_bit_for_bit(site: Site) -> None:
    server = site.server(more="max_payload: 262144")
    nodes = [site.node(name, urls=[server.url], tables=BULK) for name in ("a", "b")]
    start(nodes)
    site.application(nodes[0]).write("INSERT INTO blobs VALUES ('5 MB', randomblob(5000000))")
    site.application(nodes[1]).write(
        *[f"INSERT INTO blobs VALUES ('many {i}', randomblob(100000))" for i in range(20)],
        "INSERT INTO blobs VALUES ('text', cast(x'610062ff' AS TEXT))",
    )
    content = until_equal(nodes)
    assert len(content["blobs"]) == 22
    assert len(next(b for name, b in content["blobs"] if name == "5 MB")) == 5_000_000
    agree(nodes)


def test_over_four_shards_transactions_are_whole_also_when_writers_and_nodes_are_killed(site: Site) -> None:
    shards = {"replication_log": {"shards": 4}}
    nodes = [site.node(f"n{i}", sections=shards) for i in range(3)]
    start(nodes)
    names = [node.name for node in nodes]
    writers = [site.application(node) for node in nodes]
    for name, writer in zip(names, writers, strict=True):
        writer.load(name, pause=0.005, accounts=16)
    committed = {}

    def whole() -> bool:
        for node in nodes:
            sums = node.rows("SELECT writer, sum(amount) FROM accounts GROUP BY writer HAVING sum(amount) <> 0")
            assert sums == [], f"{node.name} shows transfers in part"
            torn = node.rows(
                "SELECT c.writer, c.n, max(e.n), count(*) FROM counters AS c JOIN events AS e USING (writer)"
                " GROUP BY 1 HAVING c.n <> max(e.n) OR c.n <> count(*)"
            )
            assert torn == [], f"{node.name} shows transactions in part"
        return all(writer.committed > target for writer in writers)

    target = 60
    until(whole, "everybody writes")
    committed["n1"] = writers[1].kill()
    nodes[2].kill()
    writers[1] = site.application(nodes[1])
    writers[1].load("again", pause=0.005, accounts=16)
    until(lambda: whole() and writers[1].committed > 40, "the others write on")
    nodes[2].start()
    nodes[2].ready()
    target = 200
    until(whole, "everybody writes")
    committed |= {"n0": writers[0].kill(), "n2": writers[2].kill(), "again": writers[1].kill()}
    content = until_equal(nodes)
    whole()
    for name, n in committed.items():
        assert next(c for writer, c in content["counters"] if writer == name) in (n, n + 1)
    agree(nodes)
