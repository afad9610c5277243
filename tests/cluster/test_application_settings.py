"""What an application sets on its own connections, while a node runs beside its file and while none does."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.cluster.fix_cluster import Site, start
from tests.cluster.processes import Node, agree, until, until_equal

pytestmark = pytest.mark.timeout(300)

JOURNALS = ("delete", "truncate", "persist", "memory", "off")


@pytest.fixture(scope="module")
def pair(module_site: Site) -> Iterator[list[Node]]:
    """Two nodes that have exchanged rows."""
    server = module_site.server()
    nodes = [module_site.node(name, urls=[server.url]) for name in ("a", "b")]
    start(nodes)
    yield nodes
    agree(nodes)


def application(path: Path) -> closing[sqlite3.Connection]:
    """Return an application's connection, which waits briefly for a lock."""
    return closing(sqlite3.connect(path, timeout=1, isolation_level=None))


def exchange(nodes: list[Node], name: str) -> None:
    """Have both applications write, and wait until both files hold all of it."""
    for node in nodes:
        with application(node.db) as connection:
            connection.execute("PRAGMA busy_timeout = 60000")
            connection.execute("INSERT INTO events VALUES (?, ?, 1, NULL)", (f"{name} {node.name}", node.name))
    content = until_equal(nodes)
    assert {f"{name} {node.name}" for node in nodes} <= {row[0] for row in content["events"]}


def mode(path: Path) -> str:
    with application(path) as connection:
        return str(connection.execute("PRAGMA journal_mode").fetchone()[0])


@pytest.mark.parametrize("journal", JOURNALS)
def test_a_running_node_keeps_the_file_in_wal_mode(pair: list[Node], journal: str) -> None:
    with application(pair[0].db) as connection, pytest.raises(sqlite3.OperationalError, match="database is locked"):
        connection.execute(f"PRAGMA journal_mode = {journal}")
    assert mode(pair[0].db) == "wal"
    exchange(pair, f"after {journal}")


@pytest.mark.slow
@pytest.mark.parametrize("journal", JOURNALS)
def test_what_is_written_in_another_mode_while_no_node_runs_is_taken_in(pair: list[Node], journal: str) -> None:
    a = pair[0]
    assert a.stop() == 0
    with application(a.db) as connection:
        assert connection.execute(f"PRAGMA journal_mode = {journal}").fetchone()[0] == journal
        connection.execute("INSERT INTO events VALUES (?, 'a', 2, NULL)", (f"written in {journal}",))
    start([a])
    assert mode(a.db) == "wal"
    exchange(pair, f"since {journal}")
    assert pair[1].value("SELECT n FROM events WHERE id = ?", [f"written in {journal}"]) == 2


def test_an_exclusive_connection_is_refused_beside_a_node_and_waited_for_at_its_start(pair: list[Node]) -> None:
    a = pair[0]
    with application(a.db) as connection:
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        with pytest.raises(sqlite3.OperationalError, match="database is locked"):
            connection.execute("INSERT INTO events VALUES ('refused', 'a', 1, NULL)")
        exchange(pair, "beside the exclusive one")
    assert a.stop() == 0
    with application(a.db) as connection:
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("INSERT INTO events VALUES ('first', 'a', 1, NULL)")
        a.start()
        until(lambda: a.waits("another connection holds the lock"), "the node waits for it")
        connection.execute("INSERT INTO events VALUES ('second', 'a', 1, NULL)")
    a.ready()
    exchange(pair, "after the exclusive one")
    assert pair[1].value("SELECT count(*) FROM events WHERE id IN ('first', 'second')") == 2


def test_vacuum_and_what_it_changes_go_beside_a_node(pair: list[Node], tmp_path: Path) -> None:
    with application(pair[0].db) as connection:
        connection.execute("PRAGMA busy_timeout = 60000")
        page = connection.execute("PRAGMA page_size").fetchone()[0]
        for auto in ("FULL", "INCREMENTAL", "NONE"):
            connection.execute(f"PRAGMA auto_vacuum = {auto}")
            connection.execute("VACUUM")
            exchange(pair, f"auto_vacuum {auto}")
        connection.execute(f"PRAGMA page_size = {2 * page}")
        connection.execute("PRAGMA encoding = 'UTF-16le'")
        connection.execute("VACUUM")
        assert connection.execute("PRAGMA page_size").fetchone()[0] == page, "WAL mode keeps it"
        assert connection.execute("PRAGMA encoding").fetchone()[0] == "UTF-8"
        connection.execute("VACUUM INTO ?", [str(tmp_path / "copy.db")])
    exchange(pair, "after VACUUM INTO")
    agree(pair)


@pytest.mark.slow
def test_another_page_size_is_set_while_no_node_runs(pair: list[Node]) -> None:
    a = pair[0]
    assert a.stop() == 0
    with application(a.db) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
        page = connection.execute("PRAGMA page_size").fetchone()[0]
        connection.execute(f"PRAGMA page_size = {2 * page}")
        connection.execute("VACUUM")
    start([a])
    exchange(pair, "with larger pages")
    assert a.value("PRAGMA page_size") == 2 * page


def test_one_transaction_over_two_replicated_files_arrives_whole_in_each_of_them(pair: list[Node], site: Site) -> None:
    """The files are two databases with streams of their own; each gets its part in one transaction."""
    others = [site.node(name) for name in ("other-a", "other-b")]
    start(others)
    with application(pair[0].db) as connection:
        connection.execute("PRAGMA busy_timeout = 60000")
        connection.execute("ATTACH ? AS other", [str(others[0].db)])
        connection.execute("BEGIN IMMEDIATE")
        for schema in ("main", "other"):
            for n in range(200):
                connection.execute(f"INSERT INTO {schema}.events VALUES (?, 'both', ?, NULL)", (f"both {n}", n))
        connection.execute("COMMIT")
    seen = until(lambda: pair[1].value("SELECT count(*) FROM events WHERE writer = 'both'"), "one file's part is there")
    assert seen == 200
    seen = until(lambda: others[1].value("SELECT count(*) FROM events WHERE writer = 'both'"), "the other's is there")
    assert seen == 200
    until_equal(others)
    agree(others)
