"""Files that meet for the first time, or again: no row is lost, and no value gives way without a trace."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import apsw
import pytest

from harmonylite.changes.reassembler import Reassembler
from harmonylite.db.snapshot import begin_hidden, fill, has_tables, offer, save_copy, seal
from harmonylite.db.sqlite.deadline import Deadline
from harmonylite.errors import DatabaseError, SchemaWaitError
from tests.parts.db.fix_replicas import Group, Member

T = "CREATE TABLE t(id INTEGER PRIMARY KEY, v, w)"


def filled(group: Group, rows: list[tuple[object, ...]]) -> Member:
    """Add a member whose file held ``rows`` before it ever joined."""
    values = ", ".join(repr(row) for row in rows)
    return group.member(T, f"INSERT INTO t VALUES {values}")


def test_rows_that_only_one_file_has_reach_all(group: Group) -> None:
    filled(group, [(1, "same", 0), (2, "of a", 0)])
    filled(group, [(1, "same", 0), (3, "of b", 0)])
    assert group.equal("t") == [(1, "same", 0), (2, "of a", 0), (3, "of b", 0)]


def test_rows_that_are_equal_cost_nothing(group: Group) -> None:
    rows: list[tuple[object, ...]] = [(key, f"row {key}", 0) for key in range(50)]
    filled(group, rows)
    filled(group, rows)
    group.settle()
    assert group.world.last(0) == 0


def test_a_value_that_gives_way_when_a_file_joins_stands_in_the_journal(group: Group) -> None:
    filled(group, [(1, "the cluster's", 0)])
    b = filled(group, [(1, "mine", 0)])
    assert group.equal("t") == [(1, "the cluster's", 0)]
    (conflict,) = b.replica.conflicts()
    assert (conflict.kind, conflict.overruled, conflict.winning) == ("join", "mine", "the cluster's")
    assert (conflict.loser, conflict.column, conflict.key) == ("b", "v", {"id": 1})


def test_the_journal_of_a_join_outlives_the_mirror(group: Group) -> None:
    a = filled(group, [(1, "the cluster's", 0)])
    b = filled(group, [(1, "mine", 0)])
    copy = b.options.folder / "incoming.db"
    save_copy(a.options.mirror, copy)
    b.replica.adopt(copy)
    assert [conflict.overruled for conflict in b.replica.conflicts()] == ["mine"]


def test_a_newer_mirror_is_adopted_and_what_is_pending_here_stays(group: Group) -> None:
    a, b = group.several(2, T)
    a.run("INSERT INTO t VALUES (1, 'old', 0), (2, 'old', 0)")
    group.settle()
    a.run("UPDATE t SET v = 'newer'")
    a.send()
    a.receive()
    b.run("UPDATE t SET w = 1 WHERE id = 1")
    b.run("INSERT INTO t VALUES (3, 'unsent', 0)")
    copy = b.options.folder / "incoming.db"
    save_copy(a.options.mirror, copy)
    b.replica.adopt(copy)
    b.reassembler = type(b.reassembler)(b.replica.positions())
    assert b.rows("t") == [(1, "newer", 1), (2, "newer", 0), (3, "unsent", 0)]
    assert group.equal("t") == [(1, "newer", 1), (2, "newer", 0), (3, "unsent", 0)]


def test_a_database_that_is_not_there_is_made_from_a_snapshot(group: Group, tmp_path: Path) -> None:
    fts = (
        T,
        "CREATE UNIQUE INDEX t_v ON t(v)",
        "CREATE VIEW seen AS SELECT v FROM t",
        "CREATE VIRTUAL TABLE t_fts USING fts5(v, content='t', content_rowid='id')",
        "CREATE TRIGGER t_i AFTER INSERT ON t BEGIN INSERT INTO t_fts(rowid, v) VALUES (new.id, new.v); END",
    )
    a = group.member(*fts)
    a.run("INSERT INTO t VALUES (1, 'red fox', 0), (2, 'blue fox', 0)")
    group.settle()
    snapshot = tmp_path / "snapshot.db"
    save_copy(a.options.mirror, snapshot)
    made = replace(a.options, database=tmp_path / "new" / "app.db", folder=tmp_path / "new" / "mirror", node="new")
    made.database.parent.mkdir()
    replica = begin_hidden(made, snapshot, Deadline())
    fill(replica, Deadline())
    seal(replica)
    offer(replica.options.database, made.database)
    assert has_tables(made.database)
    app = apsw.Connection(str(made.database))
    assert app.execute("SELECT * FROM t").fetchall() == [(1, "red fox", 0), (2, "blue fox", 0)]
    assert app.execute("SELECT rowid FROM t_fts WHERE t_fts MATCH 'blue'").fetchall() == [(2,)]
    assert app.execute("SELECT * FROM seen ORDER BY v DESC").fetchall() == [("red fox",), ("blue fox",)]
    app.close()


def test_a_mirror_that_was_just_made_is_never_saved(group: Group, tmp_path: Path) -> None:
    """Anyone who starts from such a snapshot would hold nothing, and take that for the cluster's content."""
    member = filled(group, [(1, "here", 0)])
    member.stop()
    member.options.mirror.unlink()
    member.start()
    with pytest.raises(DatabaseError, match="holds nothing yet"):
        save_copy(member.options.mirror, tmp_path / "snapshot.db")


def test_a_read_replica_keeps_its_own_writes_to_itself_and_takes_others(group: Group) -> None:
    a, b = group.several(2, T)
    a.run("INSERT INTO t VALUES (1, 'from a', 0)")
    b.run("INSERT INTO t VALUES (2, 'stays here', 0)")
    a.send()
    b.receive()
    assert b.replica.count_pending() == 1
    assert b.rows("t") == [(1, "from a", 0), (2, "stays here", 0)]


def test_a_source_is_never_written_with_rows_of_others(group: Group) -> None:
    a = group.member(T)
    b = group.member(T, replicate=False)
    a.run("INSERT INTO t VALUES (1, 'from a', 0)")
    b.run("INSERT INTO t VALUES (2, 'from b', 0)")
    for _ in range(3):
        for member in (a, b):
            if member.flight is None:
                member.send()
            member.receive()
    assert b.rows("t") == [(2, "from b", 0)]
    assert a.rows("t") == b.rows("t", "mirror") == [(1, "from a", 0), (2, "from b", 0)]


@pytest.mark.parametrize("later", ["t", "T"])
def test_a_newer_mirror_whose_columns_are_not_here_is_waited_with_and_loses_no_value(group: Group, later: str) -> None:
    a, b = group.several(2, "CREATE TABLE t(id INTEGER PRIMARY KEY, v)")
    a.run("INSERT INTO t VALUES (1, 'x')")
    group.settle()
    a.run("ALTER TABLE t ADD COLUMN new")
    a.run("CREATE TABLE other(id INTEGER PRIMARY KEY, w)")
    a.run("UPDATE t SET new = 'y'")
    a.run("INSERT INTO other VALUES (1, 'z')")
    a.send()
    a.receive()
    b.run("INSERT INTO t VALUES (2, 'pending')")

    def adopt() -> None:
        snapshot = group.folder / "newer.db"
        save_copy(a.options.mirror, snapshot)
        b.replica.adopt(snapshot)
        b.reassembler = Reassembler(b.replica.positions())

    with pytest.raises(SchemaWaitError, match="column new of table t, which this database does not have"):
        adopt()
    (group.folder / "newer.db").unlink()
    b.run(f"ALTER TABLE {later} ADD COLUMN new")
    adopt()
    b.run("CREATE TABLE other(id INTEGER PRIMARY KEY, w)")
    assert group.equal("other", "t") == [(1, "x", "y"), (2, "pending", None)]
    assert b.run("SELECT * FROM other") == [(1, "z")]


def rebuild(app: Member) -> None:
    """Make the table again, as migration tools do."""
    for sql in (
        "CREATE TABLE u(id, v, n)",
        "INSERT INTO u SELECT * FROM t",
        "DROP TABLE t",
        "ALTER TABLE u RENAME TO t",
    ):
        app.run(sql)


def come_back(app: Member) -> None:
    """Drop the table and make it again."""
    app.run("DROP TABLE t")
    app.replica.reinstall()
    app.run("CREATE TABLE t(id, v, n)")
    app.run("INSERT INTO t VALUES (2, 'from b', 0)")


@pytest.mark.parametrize(
    "change",
    [
        rebuild,
        come_back,
        lambda app: app.run("VACUUM"),
        lambda app: app.run("INSERT OR REPLACE INTO t(rowid, id, v, n) VALUES (20, 2, 'from b', 0)"),
    ],
)
def test_a_source_never_takes_rows_that_it_lacks_for_deleted(group: Group, change: Callable[[Member], None]) -> None:
    ddl = ("CREATE TABLE t(id, v, n)", "CREATE UNIQUE INDEX t_id ON t(id) WHERE n = 0")
    a = group.member(*ddl)
    a.run("INSERT INTO t(rowid, id, v, n) VALUES (1, 1, 'from a', 0)")
    group.settle()
    b = group.member(*ddl, replicate=False)
    b.run("INSERT INTO t(rowid, id, v, n) VALUES (20, 2, 'from b', 0)")
    group.settle()
    change(b)
    group.settle()
    assert a.run("SELECT id, v FROM t WHERE id = 1") == [(1, "from a")]
    assert (2, "from b") in a.run("SELECT id, v FROM t")
    assert set(b.run("SELECT id, v FROM t")) == {(2, "from b")}
