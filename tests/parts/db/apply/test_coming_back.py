"""A change set that comes back writes nothing to the application's file, whatever then happens to either file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import apsw
import pytest

from harmonylite.changes.epochs import drift
from harmonylite.db.mirror import mirror_file
from harmonylite.errors import DatabaseReplacedError
from tests.parts.db.fix_replicas import PAIRED, Group, Member

WRITES = {
    "a new row": "INSERT INTO t VALUES (9, 'new', 0)",
    "a row below the newest": "INSERT INTO t VALUES (-9, 'new', 0)",
    "an update": "UPDATE t SET a = 'new' WHERE id = 1",
    "a delete": "DELETE FROM t WHERE id = 2",
    "another key": "UPDATE t SET id = 7 WHERE id = 3",
    "a replaced row": "INSERT OR REPLACE INTO t VALUES (1, 'new', 0)",
    "some rows": "INSERT INTO t SELECT id + 10, a, b FROM t",
}
EVERY = pytest.mark.parametrize("sql", WRITES.values(), ids=WRITES)


def commits(member: Member) -> int:
    """Return a number that moves when anybody but the application commits to its file."""
    return int(member.app.pragma("data_version"))


def even(member: Member) -> bool:
    """Return whether the database counts as far as its mirror."""
    return drift(member.replica.lineage("main"), member.replica.lineage("mirror")) == "same" and (
        member.replica.merged_positions() == member.replica.positions()
    )


@contextmanager
def rolled_back(member: Member) -> Iterator[None]:
    """Put the application's file back to what it is now, once the block has run; the node is killed before."""
    with closing(apsw.Connection("")) as before:
        with before.backup("main", member.app, "main") as copy:
            copy.step()
        yield
        member.stop()
        with member.app.backup("main", before, "main") as copy:
            copy.step()
    member.start()


@contextmanager
def mirror_loses(member: Member) -> Iterator[None]:
    """Take from the mirror what the block commits to it, as a crash between two files' commits does."""
    saved = member.options.folder / "saved.db"
    with (
        closing(apsw.Connection(str(saved))) as before,
        before.backup("main", member.replica.connection, "mirror") as it,
    ):
        it.step()
    yield
    member.stop()
    for ending in ("-wal", "-shm"):
        Path(f"{member.options.mirror}{ending}").unlink(missing_ok=True)
    saved.rename(member.options.mirror)
    member.start()


@EVERY
@pytest.mark.parametrize("shards", [1, 3])
def test_the_file_is_not_written(make_group: Callable[[int], Group], sql: str, shards: int) -> None:
    a, b = (group := make_group(shards)).pair()
    for _ in range(2):
        a.run(sql.replace("INTO t", "OR IGNORE INTO t") if "OR REPLACE" not in sql else sql)
        before = commits(a)
        a.send()
        a.receive()
        assert a.send() == 0
        assert commits(a) == before
        assert a.replica.pending_rows() == 0
    b.receive()
    assert even(a)
    group.equal("t")


@EVERY
def test_a_transaction_that_has_read_can_write(group: Group, sql: str) -> None:
    a, _ = group.pair()
    a.run("UPDATE t SET b = b + 1 WHERE id = 1")
    a.send()
    a.run("BEGIN")
    a.run("SELECT * FROM t")
    a.receive()
    assert a.send() == 0
    a.run(sql)
    a.run("COMMIT")
    assert len(group.equal("t")) >= 2


@EVERY
def test_rows_of_others_bring_all_that_is_to_be_said(group: Group, sql: str) -> None:
    a, b = group.pair()
    a.run(sql)
    a.send()
    a.receive()
    b.receive()
    b.run("INSERT INTO t VALUES (100, 'of b', 0)")
    b.send()
    a.receive()
    assert mirror_file.positions(a.replica.connection, "main") == mirror_file.positions(a.replica.connection, "mirror")
    assert a.replica.unnoted == 0
    group.equal("t")


@EVERY
@pytest.mark.parametrize("noted", [False, True], ids=["not said", "said"])
def test_after_a_kill_nothing_is_published_twice_and_nothing_is_compared(group: Group, sql: str, noted: bool) -> None:
    a, _ = group.pair()
    a.run(sql)
    a.send()
    a.receive()
    if noted:
        a.replica.note()
    a.stop()
    a.start()
    assert even(a)
    assert a.send() == 0
    group.equal("t")


@EVERY
def test_a_note_that_the_mirror_has_not_heard_of_counts(group: Group, sql: str) -> None:
    a, _ = group.pair()
    a.run(sql)
    a.send()
    a.receive()
    with mirror_loses(a):
        a.replica.note()
    a.run("UPDATE t SET b = 99")
    a.send()
    a.receive()
    assert even(a)
    a.stop()
    a.start()
    assert even(a)
    group.equal("t")


@EVERY
def test_a_change_set_that_the_mirror_lost_is_folded_once_more(group: Group, sql: str) -> None:
    a, _ = group.pair()
    a.run(sql)
    a.send()
    with mirror_loses(a):
        a.receive()
    a.receive()
    assert even(a)
    group.equal("t")


@EVERY
@pytest.mark.parametrize("before", ["", "UPDATE t SET b = b + 1", "INSERT INTO t VALUES (50, 'first', 0)"])
@pytest.mark.parametrize("noted", [False, True], ids=["not said", "said"])
def test_a_file_that_was_rolled_back_is_compared_and_gets_its_rows_again(
    group: Group, sql: str, before: str, noted: bool
) -> None:
    a, _ = group.pair()
    if before:
        a.run(before)
        a.send()
        a.receive()
    with rolled_back(a):
        a.run(sql)
        a.send()
        a.receive()
        wanted = a.rows("t")
        if noted:
            a.replica.note()
    assert not even(a)
    a.replica.reconcile(first=False, keep_log=True)
    assert a.rows("t") == wanted
    assert group.equal("t") == wanted


def test_what_is_written_on_a_file_that_was_rolled_back_is_published(group: Group) -> None:
    a, _ = group.pair()
    a.run("UPDATE t SET b = b + 1")
    a.send()
    a.receive()
    with closing(apsw.Connection("")) as before:
        with before.backup("main", a.app, "main") as copy:
            copy.step()
        a.run("UPDATE t SET a = 'lost' WHERE id = 2")
        a.send()
        a.receive()
        a.stop()
        with a.app.backup("main", before, "main") as copy:
            copy.step()
    for number in range(60, 66):
        a.run("INSERT INTO t VALUES (?, 'since', 0)", (number,))
        a.run("UPDATE t SET b = ? WHERE id = 1", (number,))
    a.start()
    assert not even(a)
    a.replica.reconcile(first=False, keep_log=True)
    found = group.equal("t")
    assert (2, "lost", 21) in found, "published before the file was rolled back"
    assert (1, "x", 65) in found, "written since"
    assert sum(row[1] == "since" for row in found) == 6


def test_a_large_change_set_of_which_no_row_is_kept_is_compared(group: Group, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harmonylite.db.mirror.conflict_journal.RECENT_ROWS", 2)
    a, _ = group.pair()
    a.run("UPDATE t SET b = b + 1")
    a.send()
    a.receive()
    a.stop()
    a.start()
    assert not even(a)
    a.replica.reconcile(first=False, keep_log=True)
    assert even(a)
    group.equal("t")


def test_a_file_that_goes_back_under_the_node_is_noticed(group: Group) -> None:
    (a,) = group.several(1, PAIRED)
    a.run("INSERT INTO t VALUES (1, 'x', 0)")
    a.send()
    a.receive()
    assert not a.replica.lacks_own(newest=True)
    with closing(apsw.Connection("")) as before:
        with before.backup("main", a.app, "main") as copy:
            copy.step()
        a.run("INSERT INTO t VALUES (2, 'y', 0)")
        a.send()
        a.receive()
        assert not a.replica.lacks_own(newest=True)
        with a.app.backup("main", before, "main") as copy:
            copy.step()
    a.replica.reinstall()  # what puts a file's content back moves its schema's version
    assert a.replica.lacks_own(newest=True)


@pytest.mark.parametrize("then", ["note", "merge"])
def test_a_backup_that_is_put_back_under_a_running_node_is_never_called_up_to_date(group: Group, then: str) -> None:
    a, b = group.pair()
    with closing(apsw.Connection("")) as before:
        with before.backup("main", b.app, "main") as copy:
            copy.step()
        a.run("UPDATE t SET a = 'since' WHERE id = 1")
        group.settle()
        if then == "note":
            b.run("INSERT INTO t VALUES (9, 'own', 0)")
            b.send()
            b.receive()
            assert b.replica.unnoted
        else:
            a.run("INSERT INTO t VALUES (8, 'later', 0)")
            a.send()
        with b.app.backup("main", before, "main") as copy:
            copy.step()
    with pytest.raises(DatabaseReplacedError, match="went back to an earlier state"):
        b.replica.note() if then == "note" else b.receive()
    b.stop()
    b.start()
    b.replica.reconcile(first=False)
    group.settle()
    assert b.rows("t") == b.rows("t", "mirror") == a.rows("t")
    assert ("since",) in b.run("SELECT a FROM t")
