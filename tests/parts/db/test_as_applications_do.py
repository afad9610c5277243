"""What applications and the programs beside them do, each in the very form in which it went wrong once."""

from __future__ import annotations

import threading
from contextlib import closing
from pathlib import Path

import apsw
import pytest

from harmonylite.errors import DatabaseBusyError
from tests.parts.db.fix_replicas import Group
from tests.parts.db.test_capabilities import equip


@pytest.mark.parametrize("clause", ["ignore", "replace", "rollback", "abort", "fail"])
def test_two_users_with_one_address_and_a_clause_of_the_table_end_as_without_it(group: Group, clause: str) -> None:
    ddl = f"CREATE TABLE u(id text primary key, email text unique on conflict {clause}, n int)"
    a, b = group.several(2, ddl)
    for member in (a, b):
        member.stop()
    a.run("INSERT INTO u VALUES ('a', 'x@x', 1)")
    b.run("INSERT INTO u VALUES ('b', 'x@x', 2)")
    for member in (a, b):
        member.start()
    (row,) = group.equal("u")
    lost = ({"a", "b"} - {row[0]}).pop()
    journals = [conflict for member in (a, b) for conflict in member.replica.conflicts()]
    assert lost in {conflict.key["id"] for conflict in journals}
    assert a.replica.held_rows() == b.replica.held_rows() == 0


def test_tables_that_an_application_made_with_its_own_collation_and_functions_hold_no_other_up(
    group: Group, caplog: pytest.LogCaptureFixture
) -> None:
    def begin(file: Path) -> None:
        with closing(apsw.Connection(str(file))) as application:
            equip(application)
            application.execute(
                "CREATE TABLE t(id integer primary key, n text collate unicase);"
                "CREATE TABLE checked(id integer primary key, n text check(is_ok(n)));"
                "CREATE TABLE made(id integer primary key, n text, m text generated always as (norm(n)));"
                "CREATE TABLE indexed(id integer primary key, n text); CREATE INDEX i ON indexed(norm(n));"
                "CREATE TABLE partly(id integer primary key, n text);"
                "CREATE INDEX j ON partly(n) WHERE norm(n) = 'a';"
                "CREATE TABLE plain(id integer primary key, n text);"
            )

    replicated, left_out = {"t", "checked", "plain"}, {"made", "indexed", "partly"}
    a, b = group.several(2, begin=begin)
    equip(a.app)
    for table in replicated | left_out:
        a.run(f"INSERT INTO {table}(id, n) VALUES (1, 'A')")
    for _ in range(20):
        group.settle()
    for table in replicated:
        assert group.equal(table) == [(1, "A")]
    for member in (a, b):
        assert set(member.replica.tables) == replicated
        assert {name for name, said in member.replica.warnings.items() if "can't write it" in said} == left_out
    assert not caplog.records, "what is left out is said by health, not again and again by the log"


def test_a_search_index_finds_what_others_write_beside_a_trigger_that_needs_the_applications_function(
    group: Group,
) -> None:
    ddl = (
        "CREATE TABLE doc(id integer primary key, body text, slug text)",
        "CREATE VIRTUAL TABLE doc_fts USING fts5(body, content='doc', content_rowid='id')",
        "CREATE TRIGGER doc_ai AFTER INSERT ON doc BEGIN"
        " INSERT INTO doc_fts(rowid, body) VALUES (new.id, new.body); END",
        "CREATE TRIGGER doc_ad AFTER DELETE ON doc BEGIN"
        " INSERT INTO doc_fts(doc_fts, rowid, body) VALUES ('delete', old.id, old.body); END",
        "CREATE TRIGGER doc_au AFTER UPDATE ON doc BEGIN"
        " INSERT INTO doc_fts(doc_fts, rowid, body) VALUES ('delete', old.id, old.body);"
        " INSERT INTO doc_fts(rowid, body) VALUES (new.id, new.body); END",
        "CREATE TRIGGER doc_slug BEFORE INSERT ON doc WHEN new.slug IS NOT NULL AND norm(new.slug) <> new.slug"
        " BEGIN SELECT raise(abort, 'slug'); END",
    )
    a, b = group.several(2, *ddl)
    for member in (a, b):
        equip(member.app)
    a.run("INSERT INTO doc VALUES (1, 'a red fox', 'fox')")
    group.settle()
    for member in (a, b):
        assert member.run("SELECT rowid FROM doc_fts WHERE doc_fts MATCH 'fox'") == [(1,)]
        member.run("INSERT INTO doc_fts(doc_fts, rank) VALUES ('integrity-check', 1)")
    with pytest.raises(apsw.ConstraintError, match="slug"):
        a.run("INSERT INTO doc VALUES (2, 'x', 'BIG')")


@pytest.mark.parametrize("looks", [False, True])
def test_the_table_that_alembic_fills_beside_the_old_one_stays_where_it_is(group: Group, looks: bool) -> None:
    a, b = group.several(2, "CREATE TABLE book(id TEXT PRIMARY KEY NOT NULL, title)", apply_schema="additive")
    a.run("INSERT INTO book VALUES ('1', 'first'), ('2', 'second')")
    group.settle()
    for sql in (
        "CREATE TABLE _alembic_tmp_book(id TEXT PRIMARY KEY NOT NULL, title, pages INT DEFAULT 0)",
        "INSERT INTO _alembic_tmp_book(id, title) SELECT id, title FROM book",
        "DROP TABLE book",
        "ALTER TABLE _alembic_tmp_book RENAME TO book",
    ):
        a.run(sql)
        if looks:
            group.settle()
    group.settle()
    tables = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE '\\_\\_%' ESCAPE '\\'"
    assert a.run(tables) == b.run(tables) == [("book",)]
    b.run("INSERT INTO book VALUES ('3', 'third', 9)")
    assert group.equal("book") == [("1", "first", 0), ("2", "second", 0), ("3", "third", 9)]


def test_the_tables_that_litestream_makes_beside_one_node_stay_there_and_hold_nothing_up(group: Group) -> None:
    a, b = group.pair()
    a.run("CREATE TABLE _litestream_seq(id INTEGER PRIMARY KEY, seq INTEGER)")
    a.run("CREATE TABLE _litestream_lock(id INTEGER)")
    a.replica.reinstall()
    for number in range(10, 80):
        a.run("INSERT INTO _litestream_seq VALUES (1, 1) ON CONFLICT (id) DO UPDATE SET seq = seq + 1")
        a.run("INSERT INTO t VALUES (?, 'a', 0)", (number,))
    assert len(group.equal("t")) == 73
    assert set(a.replica.tables) == set(b.replica.tables) == {"t"}
    assert b.run("SELECT name FROM sqlite_schema WHERE name LIKE '%litestream%'") == []


def test_a_truncating_checkpoint_beside_a_reader_that_stays_holds_a_merge_up_and_no_longer(group: Group) -> None:
    a, b = group.pair()
    a.run("INSERT INTO t VALUES (4, 'a', 0)")
    a.send()
    for message in group.world.after(0, b.reassembler.read_up_to(0), 1_000_000):
        b.reassembler.add(message)
    batch = b.reassembler.take(own=("b", b.replica.options.session))
    assert batch is not None
    path = str(b.options.database)
    b.replica.connection.set_busy_timeout(10)
    with closing(apsw.Connection(path)) as stays, closing(apsw.Connection(path)) as truncates:
        stays.execute("BEGIN; SELECT count(*) FROM t").fetchall()
        b.run("INSERT INTO t VALUES (5, 'b', 0)")  # beyond what the reader sees
        over = threading.Event()
        truncates.set_busy_handler(lambda _: not over.wait(0.01))
        waits = threading.Thread(target=lambda: truncates.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall())
        waits.start()
        while not locked(b.app) and waits.is_alive():
            pass
        with pytest.raises(DatabaseBusyError):
            b.replica.apply(batch)
        over.set()
        waits.join()
        b.replica.apply(batch)
    batch.close()
    assert {row[0] for row in group.equal("t")} == {1, 2, 3, 4, 5}


def locked(connection: apsw.Connection) -> bool:
    """Return whether another connection has the write lock."""
    try:
        connection.execute("BEGIN IMMEDIATE; ROLLBACK")
    except apsw.BusyError:
        return True
    return False


def test_what_is_written_through_a_blob_handle_travels_when_its_row_is_touched_in_the_same_transaction(
    group: Group,
) -> None:
    a, b = group.several(2, "CREATE TABLE t(id INTEGER PRIMARY KEY, b BLOB, n INT)")
    a.run("INSERT INTO t VALUES (1, x'0000', 0)")
    group.settle()
    b.run("UPDATE t SET n = 1")
    group.settle()

    def write() -> None:
        with a.app.blob_open("main", "t", "b", 1, True) as handle:
            handle.write(b"\xff\xff")

    write()
    assert a.send() == 0, "no trigger fires, so nothing names the row"
    with a.app:
        write()
        a.run("UPDATE t SET b = b WHERE id = 1")
    group.settle()
    assert group.equal("t") == [(1, b"\xff\xff", 1)]
