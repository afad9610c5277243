"""An insert that takes a rowid above all others is logged by nobody, and still found, whole and once."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from pathlib import Path

import apsw
import pytest

from harmonylite.db.apply import apply
from harmonylite.db.repair import begin_healing, damage, finish_healing, save_pending
from harmonylite.db.snapshot import save_copy
from harmonylite.db.sqlite.deadline import Deadline
from harmonylite.db.tracking.watermarks import MOST, new_rows
from tests.parts.db.fix_replicas import Group, Member

NUMBERED = "CREATE TABLE t(id INTEGER PRIMARY KEY, v)"
NAMED = "CREATE TABLE t(id TEXT PRIMARY KEY, v)"
KEYLESS = "CREATE TABLE t(v)"
KEYED = [NUMBERED, NAMED, NAMED.replace("KEY", "KEY NOT NULL")]
SHAPES = pytest.mark.parametrize("ddl", [*KEYED, KEYLESS])


def logged(member: Member) -> int:
    """Return how many entries of the log are not done with."""
    cleared = "(SELECT value FROM __harmonylite__state WHERE name = 'cleared')"
    return int(member.run(f"SELECT count(*) FROM __harmonylite__log WHERE id > {cleared}")[0][0])


def insert(member: Member, first: int, last: int) -> None:
    """Insert rows in one transaction, with the numbers ``first`` to ``last`` for keys where there is a key."""
    columns = [name for (name,) in member.run("SELECT name FROM pragma_table_info('t')")]
    values = "n, 'v' || n" if len(columns) == 2 else "'v' || n"
    member.run(
        "WITH RECURSIVE c(n) AS (VALUES (?) UNION ALL SELECT n + 1 FROM c WHERE n < ?)"
        f" INSERT INTO t SELECT {values} FROM c",
        (first, last),
    )


def marks(member: Member) -> dict[str, int]:
    """Return the watermark of each table."""
    there = dict(member.run("SELECT -shard, seq FROM __harmonylite__position WHERE shard < 0"))
    return {name: there[table.id] for name, table in member.replica.tables.items() if table.id in there}


def install_earlier(member: Member) -> None:
    """Have a file, whose node is stopped, look as an earlier version leaves it that refuses to start with it."""
    member.run("CREATE TABLE __harmonylite__watermark(t INTEGER PRIMARY KEY, row INTEGER, k0, k1)")
    made = member.run("SELECT name, sql FROM sqlite_schema WHERE type IN ('trigger', 'view')")
    for name, sql in made:
        kind = sql.split()[1]
        earlier = re.sub(
            r'SELECT seq FROM "__harmonylite__position" WHERE shard = -(\d+)',
            r'SELECT row FROM "__harmonylite__watermark" WHERE t = \1',
            sql.replace(" WHERE shard >= 0", ""),
        )
        member.run(f'DROP {kind} "{name}"')
        member.run(earlier)


def make_earlier(member: Member) -> None:
    """Have a file, whose node is stopped, look as an earlier version left it: watermarks in a table of their own."""
    install_earlier(member)
    position = "FROM __harmonylite__position WHERE shard < 0"
    member.run(f"INSERT INTO __harmonylite__watermark SELECT -shard, seq, k0, k1 {position}")
    member.run(f"DELETE {position}")
    for column in ("k0", "k1"):
        member.run(f"ALTER TABLE __harmonylite__position DROP COLUMN {column}")


@pytest.mark.parametrize("ddl", KEYED)
def test_a_file_of_an_earlier_version_keeps_its_watermarks(group: Group, ddl: str) -> None:
    a, b = group.several(2, ddl, "CREATE TABLE other(v)")
    insert(a, 1, 5)
    group.settle()
    a.replica.note()
    before = marks(a)
    assert before.keys() == {"t", "other"}
    a.stop()
    make_earlier(a)
    assert "__harmonylite__watermark" in str(a.run("SELECT sql FROM sqlite_schema WHERE type = 'trigger'"))
    insert(a, 6, 7)
    a.start()
    assert marks(a) == before
    assert not a.run("SELECT 1 FROM sqlite_schema WHERE name || ifnull(sql, '') LIKE '%__harmonylite__watermark%'")
    assert a.run("SELECT position FROM __harmonylite__status")[0][0].startswith("0:")
    insert(a, 8, 8)
    assert logged(a) == 0
    assert a.send() == 3, "those that were written before the update, too"
    a.receive()
    b.receive()
    assert len(group.equal("t")) == 8


@pytest.mark.parametrize("ddl", KEYED)
def test_an_earlier_version_that_refuses_to_start_loses_no_row(group: Group, ddl: str) -> None:
    a, b = group.several(2, ddl)
    insert(a, 1, 5)
    group.settle()
    a.replica.note()
    a.stop()
    insert(a, 6, 7)
    number = a.run("SELECT -shard FROM __harmonylite__position WHERE shard < 0")[0][0]
    install_earlier(a)
    a.run("INSERT INTO __harmonylite__watermark(t, row, k0) SELECT ?, max(rowid), max(id) FROM t", (number,))
    insert(a, 8, 8)
    a.start()
    assert a.send() == 3
    a.receive()
    b.receive()
    assert len(group.equal("t")) == 8


@SHAPES
def test_a_damaged_file_of_an_earlier_version_says_which_rows_are_new(group: Group, ddl: str) -> None:
    a, _ = group.several(2, ddl)
    insert(a, 1, 5)
    group.settle()
    a.replica.note()
    number, (mark,) = a.replica.tables["t"].id, marks(a).values()
    now = new_rows(a.replica.connection, number, 0, "main")
    a.stop()
    make_earlier(a)
    assert new_rows(a.app, number, 0, "main") == now == [(mark, MOST)]
    a.run("UPDATE __harmonylite__watermark SET row = row + 1")  # by a version that then refused to start
    a.run("INSERT INTO __harmonylite__position(shard, seq, resume, created) VALUES (?, ?, 0, '')", (-number, mark))
    assert new_rows(a.app, number, 0, "main") == now


@SHAPES
@pytest.mark.parametrize("count", [3, 500])
def test_new_rows_are_not_logged_and_arrive(group: Group, ddl: str, count: int) -> None:
    a, b = group.several(2, ddl)
    insert(a, 1, count)
    assert logged(a) == 0
    assert a.send() == count
    assert logged(a) <= 1  # many are named by their range
    a.receive()
    b.receive()
    assert a.send() == 0
    assert (a.replica.pending_rows(), a.replica.count_pending()) == (0, 0)
    a.replica.note()
    assert (logged(a), a.replica.count_pending()) == (0, 0)
    assert b.replica.count_pending() == 0, "rows of others are not looked at again"
    assert len(group.equal("t")) == count


@SHAPES
def test_rows_that_are_back_do_not_count_as_pending_because_another_one_is_written(group: Group, ddl: str) -> None:
    a, _ = group.several(2, ddl)
    insert(a, 1, 20)
    a.send()
    a.receive()
    assert a.replica.unnoted, "the database does not say that they are back"
    insert(a, 101, 1)
    assert a.replica.count_pending() == 1
    a.run("UPDATE t SET v = 'another' WHERE rowid = (SELECT min(rowid) FROM t)")
    assert a.replica.count_pending() == 2
    a.run("DELETE FROM t WHERE rowid = (SELECT max(rowid) FROM t)")
    assert a.replica.count_pending() == 1, "nobody else ever saw that row"


@pytest.mark.parametrize("ddl", ["CREATE TABLE t(id PRIMARY KEY, v) WITHOUT ROWID"])
def test_where_no_rowid_tells_each_insert_is_logged(group: Group, ddl: str) -> None:
    a, _ = group.several(2, ddl)
    insert(a, 1, 5)
    assert logged(a) == 5
    assert len(group.equal("t")) == 5


def test_an_insert_below_the_newest_row_is_logged(group: Group) -> None:
    a, _ = group.several(2, NUMBERED)
    a.run("INSERT INTO t VALUES (100, 'first')")
    group.settle()
    a.replica.note()
    a.run("INSERT INTO t VALUES (50, 'below'), (-3, 'negative'), (0, 'zero')")
    assert logged(a) == 3
    a.run("DELETE FROM t WHERE id = 100")
    group.settle()
    a.run("INSERT INTO t(v) VALUES ('takes a number that was given back')")
    assert [row[0] for row in group.equal("t")] == [-3, 0, 50, 51]


@SHAPES
def test_rows_that_gather_while_nothing_can_be_published_are_looked_at_once(group: Group, ddl: str) -> None:
    a, _ = group.several(2, ddl)
    insert(a, 1, 2)
    a.send()
    insert(a, 3, 500)
    assert a.replica.count_pending() == 500
    assert logged(a) == 1, "their range is named, so that the next look begins after them"
    a.run("UPDATE t SET v = 'new' WHERE rowid IN (2, 400)")
    insert(a, 501, 503)
    assert a.replica.count_pending() == 503
    assert logged(a) == 3
    group.settle()
    assert a.replica.count_pending() == 0
    found = group.equal("t")
    assert (len(found), sum(row[-1] == "new" for row in found)) == (503, 2)


@pytest.mark.parametrize("ddl", KEYED)
def test_a_row_replaced_while_it_is_under_way_keeps_its_new_value(group: Group, ddl: str) -> None:
    a, b = group.several(2, ddl)
    insert(a, 1, 2)
    a.send()
    a.run("INSERT OR REPLACE INTO t VALUES (1, 'newer')")
    b.run("INSERT INTO t VALUES (9, 'of b')")
    b.send()
    a.receive()
    assert a.run("SELECT v FROM t WHERE id = 1") == [("newer",)]
    assert "newer" in [row[-1] for row in group.equal("t")]


def test_a_transaction_committed_while_a_capture_begins_is_in_it_whole_or_not_at_all(
    group: Group, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apply, "FEW", 1)
    a, b = group.several(2, NUMBERED)
    a.run("INSERT INTO t VALUES (1, 0)")
    group.settle()
    insert(a, 2, 9)
    named = a.replica._applying.name_new_rows

    def commit_in_between() -> bool:
        assert named()
        a.run("BEGIN")
        a.run("UPDATE t SET v = 'both' WHERE id = 1")
        a.run("INSERT INTO t(v) VALUES ('both')")
        a.run("COMMIT")
        return True

    monkeypatch.setattr(a.replica._applying, "name_new_rows", commit_in_between)
    a.send()
    b.receive()
    assert b.run("SELECT count(*) FROM t WHERE v = 'both'") in ([(0,)], [(2,)])
    monkeypatch.undo()
    group.equal("t")


@SHAPES
def test_rows_of_others_lift_no_watermark_over_rows_of_ones_own(group: Group, ddl: str) -> None:
    a, b = group.several(2, ddl)
    insert(b, 100, 103)
    b.send()
    insert(a, 1, 3)
    a.receive()
    a.stop()  # before anything of a's was captured
    a.start()
    a.receive()
    found = group.equal("t")
    assert len(found) == (4 if ddl == KEYLESS else 7)  # without a key, both took the same rowids


@SHAPES
def test_new_rows_survive_a_crash_while_they_are_under_way(group: Group, ddl: str) -> None:
    a, _ = group.several(2, ddl)
    insert(a, 1, 300)
    a.capture()
    a.stop()
    a.start()
    a.receive()
    assert a.send() == 300
    assert len(group.equal("t")) == 300


def test_a_row_that_two_inserted_and_a_third_deleted_is_there_when_one_of_them_is_last(group: Group) -> None:
    a, b = group.several(2, NUMBERED)
    a.run("INSERT INTO t VALUES (1, 'same')")
    a.capture()
    b.run("INSERT INTO t VALUES (1, 'same')")
    b.send()
    b.receive()
    a.receive()
    b.run("DELETE FROM t WHERE id = 1")
    b.send()
    a.receive()
    assert a.rows("t") == []
    a.publish()
    a.receive()
    assert a.rows("t") == a.rows("t", "mirror") == [(1, "same")]
    assert a.send() == 0, "nobody deleted it here"


@SHAPES
@pytest.mark.parametrize("newest", ["stays", "goes"])
def test_vacuum_while_the_node_is_down_hides_no_row(group: Group, ddl: str, newest: str) -> None:
    a, _ = group.several(2, ddl)
    insert(a, 1, 9)
    group.settle()
    a.run("DELETE FROM t WHERE v IN ('v2', 'v3', 'v4')")
    group.settle()
    a.replica.note()
    a.stop()
    insert(a, 11, 15)
    if newest == "goes":
        a.run("DELETE FROM t WHERE v = 'v9'")
    a.run("VACUUM")
    a.start()
    a.receive()
    left = ["v1", "v5", "v6", "v7", "v8", *(["v9"] if newest == "stays" else [])]
    assert sorted(row[-1] for row in group.equal("t")) == sorted([*left, "v11", "v12", "v13", "v14", "v15"])


@SHAPES
def test_vacuum_while_a_change_set_is_under_way_leaves_database_and_mirror_equal(group: Group, ddl: str) -> None:
    a, _ = group.several(2, ddl)
    insert(a, 1, 5)
    group.settle()
    a.run("DELETE FROM t WHERE v = 'v2'")
    group.settle()
    insert(a, 6, 7)
    a.send()
    a.run("VACUUM")
    a.receive()
    group.equal("t")
    assert {f"v{n}" for n in (1, 3, 4, 5, 6, 7)} == {row[-1] for row in a.rows("t")}


@pytest.mark.parametrize("ddl", [NUMBERED, NAMED])
def test_a_column_that_takes_the_rowids_name_hides_no_row(group: Group, ddl: str) -> None:
    a, b = group.several(2, ddl)
    a.run(
        "INSERT INTO t(_rowid_, id, v) VALUES (3, 3, 1), (5, 5, 2)"
        if ddl == NAMED
        else "INSERT INTO t VALUES (3, 1), (5, 2)"
    )
    group.settle()
    for member in (a, b):
        member.stop()
        member.app.close()
        with closing(sqlite3.connect(member.options.database, isolation_level=None)) as older:  # newer ones refuse it
            older.execute("ALTER TABLE t ADD COLUMN rowid INTEGER")
            if member is a:
                older.execute("INSERT INTO t(_rowid_, id, v, rowid) VALUES (4, 4, 3, 1000)")
        member.app = apsw.Connection(str(member.options.database))
        member.start()
        member.receive()
    assert [int(row[0]) for row in group.equal("t")] == [3, 4, 5]


@SHAPES
def test_new_rows_are_saved_from_a_damaged_file(group: Group, ddl: str, tmp_path: Path) -> None:
    a, b = group.several(2, ddl)
    insert(a, 1, 3)
    group.settle()
    insert(a, 4, 5)
    a.stop()
    a.app.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    a.app.close()
    snapshot = tmp_path / "copy.db"
    save_copy(a.options.mirror, snapshot)
    replica = begin_healing(a.options, snapshot, Deadline())
    assert save_pending(replica, a.options.database, Deadline()) == 2
    finish_healing(a.options, replica)
    assert damage(a.options.database) == ""
    a.app = apsw.Connection(str(a.options.database))
    a.start()
    a.receive()
    assert [row[-1] for row in group.equal("t")] == ["v1", "v2", "v3", "v4", "v5"]
    assert b.run("SELECT count(*) FROM t") == [(5,)]


def test_a_replaced_row_doesnt_make_a_renamed_column_look_like_another(group: Group) -> None:
    a, b = group.several(2, "CREATE TABLE t(id TEXT PRIMARY KEY NOT NULL, v, w)")
    a.run("INSERT INTO t VALUES ('a', 'v', 'w'), ('b', 'v', 'w')")
    group.settle()
    a.run("INSERT OR REPLACE INTO t VALUES ('a', 'newer', 'w')")
    for member in (a, b):
        member.run("ALTER TABLE t RENAME COLUMN v TO x")
    assert group.equal("t") == [("a", "newer", "w"), ("b", "v", "w")]
    assert group.members[1].rows("t", "mirror")[1] == ("b", "v", "w")
