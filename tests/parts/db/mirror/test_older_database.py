"""A mirror follows its database's schema, but not back to a time before: values of the cluster would go with that."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Literal

import apsw
import pytest

from harmonylite.db.snapshot import install_mirror, save_copy
from harmonylite.db.sqlite.thread import SqliteThread
from harmonylite.errors import MirrorDamagedError
from harmonylite.recovery.bootstrap import Bootstrap
from harmonylite.status import NodeStatus
from tests.parts.db.fix_replicas import Group, Member

T = "CREATE TABLE t(id INTEGER PRIMARY KEY, v, w)"
ADD = "ALTER TABLE t ADD COLUMN x"


@pytest.fixture
def pair(group: Group) -> tuple[Member, Member]:
    a, b = group.several(2, T)
    a.run("INSERT INTO t VALUES (1, 'one', 0)")
    group.settle()
    return a, b


def put_back(member: Member, backup: Path) -> None:
    """Put a backup in the place of the database of a member that is down."""
    member.app.close()
    for side in ("", "-wal", "-shm"):
        Path(f"{member.options.database}{side}").unlink(missing_ok=True)
    shutil.copy(backup, member.options.database)
    member.app = apsw.Connection(str(member.options.database))


def backed_up(member: Member, folder: Path) -> Path:
    backup = folder / "backup.db"
    member.run("VACUUM INTO ?", (str(backup),))
    return backup


@pytest.mark.parametrize(
    "migration",
    [
        (ADD,),
        (ADD, "ALTER TABLE t ADD COLUMN y"),
        (
            "CREATE TABLE new_t(id INTEGER PRIMARY KEY, v, w, x UNIQUE)",
            "INSERT INTO new_t SELECT *, NULL FROM t",
            "DROP TABLE t",
            "ALTER TABLE new_t RENAME TO t",
        ),
    ],
)
def test_a_backup_from_before_a_column_keeps_the_mirror_as_it_is_until_the_column_is_there(
    group: Group, pair: tuple[Member, Member], tmp_path: Path, migration: tuple[str, ...]
) -> None:
    a, b = pair
    backup = backed_up(b, tmp_path)
    for member in pair:
        for sql in migration:
            member.run(sql)
    a.run("UPDATE t SET x = 'the cluster''s'")
    group.settle()
    b.stop()
    put_back(b, backup)
    with pytest.raises(MirrorDamagedError, match=r"older than column x of table t"):
        b.start()
    assert apsw.Connection(str(b.options.mirror)).execute("SELECT x FROM t").get == "the cluster's"
    for sql in migration:
        b.run(sql)
    b.start()
    b.replica.reconcile(first=False, keep_log=True)
    assert b.rows("t") == a.rows("t")


def brought_back(member: Member, snapshot: Path) -> None:
    """Start a member from a snapshot, as its node does that has put its mirror aside."""
    for side in ("", "-wal", "-shm"):
        Path(f"{member.options.mirror}{side}").unlink(missing_ok=True)
    member.start()
    member.replica.must_fit(snapshot)
    member.stop()
    install_mirror(member.options, snapshot)
    member.start()
    member.replica.reconcile(first=False, keep_log=True)
    member.reassembler = type(member.reassembler)(member.replica.positions())


@pytest.mark.parametrize("snapshot_is", ["newer", "older"])
@pytest.mark.parametrize("travels", ["none", "additive", "all"])
@pytest.mark.parametrize("how", ["put in place", "written into the file"])
def test_a_backup_from_before_a_table_gets_the_table_back_with_its_rows(
    group: Group, tmp_path: Path, how: str, travels: Literal["none", "additive", "all"], snapshot_is: str
) -> None:
    """With an older snapshot, the tables come from the stream, in change sets of this very node."""
    a, b = group.several(2, T, apply_schema=travels)
    b.run("INSERT INTO t VALUES (1, 'one', 0)")
    group.settle()
    backup, snapshot = backed_up(b, tmp_path), tmp_path / "snapshot.db"
    if snapshot_is == "older":
        save_copy(a.options.mirror, snapshot)
    later = "CREATE TABLE later(id INTEGER PRIMARY KEY, v); CREATE TABLE empty(id INTEGER PRIMARY KEY, v)"
    for member in (a, b) if travels == "none" else (b,):
        member.run(later)
    b.run("INSERT INTO later VALUES (1, 'kept'), (2, 'kept')")
    group.settle()
    a.run("UPDATE t SET v = 'since'")
    group.settle()
    if snapshot_is == "newer":
        save_copy(a.options.mirror, snapshot)
    if how == "put in place":
        b.stop()
        put_back(b, backup)
        with pytest.raises(MirrorDamagedError, match=r"older than table (later|empty)"):
            b.start()
    else:
        with b.app.backup("main", apsw.Connection(str(backup)), "main") as copying:
            copying.step()
        with pytest.raises(MirrorDamagedError, match=r"older than table (later|empty)"):
            b.replica.reinstall()
        b.stop()
    brought_back(b, snapshot)
    if travels == "none":
        b.run(later)
    for table in ("later", "empty"):
        a.run(f"INSERT INTO {table} VALUES (9, 'new')")
    group.settle()
    assert group.equal("t", "later") == [(1, "kept"), (2, "kept"), (9, "new")]
    assert group.equal("empty") == [(9, "new")]


def test_a_backup_of_which_nothing_is_lost_is_followed(
    group: Group, pair: tuple[Member, Member], tmp_path: Path
) -> None:
    a, b = pair
    backup = backed_up(b, tmp_path)
    for member in pair:
        member.run("ALTER TABLE t RENAME COLUMN w TO x")
    a.run("UPDATE t SET v = 'since'")
    group.settle()
    b.stop()
    put_back(b, backup)
    b.start()
    b.replica.reconcile(first=False, keep_log=True)
    assert b.run("SELECT v FROM t") == [("since",)]


def test_a_migration_that_drops_a_column_while_the_node_is_down_is_followed(
    group: Group, pair: tuple[Member, Member]
) -> None:
    a, b = pair
    b.stop()
    for member in pair:
        member.run("ALTER TABLE t DROP COLUMN w")
    b.start()
    a.run("UPDATE t SET v = 'since'")
    group.settle()
    assert group.equal("t") == [(1, "since")]


# what systemd waits for --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "comes_back"),
    [("as it was left", False), ("a backup", True), ("its mirror is another one", True), ("never joined", False)],
)
async def test_only_a_database_that_may_be_older_than_what_its_node_knew_comes_back(
    group: Group, pair: tuple[Member, Member], tmp_path: Path, how: str, comes_back: bool
) -> None:
    a, b = pair
    backup = backed_up(b, tmp_path)
    a.run("UPDATE t SET v = 'since'")
    group.settle()
    b.run("UPDATE t SET w = 'unsent'")
    b.stop()
    options = b.options
    if how == "a backup":
        put_back(b, backup)
    elif how == "its mirror is another one":
        save_copy(a.options.mirror, file := tmp_path / "snapshot.db")
        install_mirror(options, file)
    elif how == "never joined":
        for file in (options.database, options.mirror):
            for side in ("", "-wal", "-shm"):
                Path(f"{file}{side}").unlink(missing_ok=True)
        made = apsw.Connection(str(options.database))
        made.execute(T)
        made.close()
    status, thread = NodeStatus(), SqliteThread()

    async def no() -> bool:
        return False

    replica = await Bootstrap(options, thread, status, request_snapshot=no).open()
    assert replica is not None
    assert status.comes_back is comes_back
    await thread.run(replica.close)
    await thread.aclose()
    b.start()


@pytest.mark.parametrize(
    ("makes", "drops"),
    [
        ("CREATE TABLE later(id INTEGER PRIMARY KEY)", "DROP TABLE later"),
        ("ALTER TABLE t ADD COLUMN x", "ALTER TABLE t DROP COLUMN x"),
    ],
)
def test_what_was_dropped_while_it_was_under_way_is_not_taken_for_missing(group: Group, makes: str, drops: str) -> None:
    """Its change set comes back to a later session, as one does that a backup lacks."""
    _, b = group.several(2, T, apply_schema="additive")
    before = b.run("SELECT sql FROM sqlite_schema WHERE name NOT GLOB '__harmonylite__*'")
    b.run(makes)
    b.replica.reinstall()
    b.send()
    b.stop()
    b.run(drops)
    b.start()
    group.settle()
    assert b.run("SELECT sql FROM sqlite_schema WHERE name NOT GLOB '__harmonylite__*'") == before


def test_a_column_that_its_own_node_has_not_sent_yet_makes_no_database_older(
    group: Group, pair: tuple[Member, Member], tmp_path: Path
) -> None:
    """A snapshot of that node brings the column without values; the change set that adds it is still to come."""
    a, b = pair
    b.run("INSERT INTO t VALUES (2, 'two', 0)")
    b.send()
    a.receive()
    a.run("ALTER TABLE t ADD COLUMN x")
    a.replica.reinstall()
    save_copy(a.options.mirror, snapshot := tmp_path / "snapshot.db")
    b.drop()
    b.replica.must_fit(snapshot)
    b.replica.adopt(snapshot)
    b.reassembler = type(b.reassembler)(b.replica.positions())
    b.run("ALTER TABLE t ADD COLUMN x")
    a.run("UPDATE t SET x = 'sent' WHERE id = 1")
    group.settle()
    assert group.equal("t") == [(1, "one", 0, "sent"), (2, "two", 0, None)]
