"""Transactions are whole everywhere, for any number of shards and through any crash between the two files' commits."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import apsw
import pytest

from harmonylite.changes.reassembler import AtomicBatch
from harmonylite.db.snapshot import save_copy
from harmonylite.errors import DatabaseBusyError, DatabaseError
from harmonylite.model import ChangeSetId, Position
from tests.parts.db.fix_replicas import Group, Member

PAIR = ("CREATE TABLE debit(id INTEGER PRIMARY KEY, n INT)", "CREATE TABLE credit(id INTEGER PRIMARY KEY, n INT)")
T = "CREATE TABLE t(id INTEGER PRIMARY KEY, v)"


def transfer(member: Member, number: int) -> None:
    """Write one number into rows of two tables, in one transaction."""
    member.run("BEGIN")
    member.run("INSERT OR REPLACE INTO debit VALUES (1, ?), (2, ?)", (number, number))
    member.run("INSERT OR REPLACE INTO credit VALUES (1, ?), (2, ?), (3, ?)", (number,) * 3)
    member.run("COMMIT")


@pytest.mark.parametrize("shards", [1, 2, 5])
def test_a_transaction_is_never_seen_in_parts(make_group: Callable[[int], Group], shards: int) -> None:
    group = make_group(shards)
    a, b = group.several(2, *PAIR)
    for number in range(1, 30):
        transfer(a, number)
        if a.flight is None:
            a.capture()
        if a.flight is not None:
            for shard in a.flight.parts:
                for payload in a.flight.payloads(shard):
                    group.world.publish(shard, "a", payload)
                b.receive()
                seen = {n for table in ("debit", "credit") for (n,) in b.run(f"SELECT n FROM {table}")}
                assert len(seen) <= 1
                assert b.run("SELECT (SELECT count(*) FROM debit), (SELECT count(*) FROM credit)") in (
                    [(0, 0)],
                    [(2, 3)],
                )
        a.receive()
    group.equal("debit", "credit")


def test_a_later_overwrite_takes_its_own_transaction_along(group: Group) -> None:
    a, b, c = group.several(3, *PAIR)
    transfer(a, 1)
    a.capture()
    transfer(a, 2)
    a.publish()
    for member in (b, c):
        member.receive()
        assert {n for table in ("debit", "credit") for (n,) in member.run(f"SELECT n FROM {table}")} == {1}
    assert {n for _, n in group.equal("debit", "credit")} == {2}


def lose_the_mirror(member: Member) -> Callable[[], None]:
    """Remember the mirror's files as they are; return what puts them back, as a kill between two commits would."""
    copy = member.options.mirror.with_name("saved.db")
    saved = apsw.Connection(str(copy))
    with saved.backup("main", member.replica.connection, "mirror") as backup:
        backup.step()
    saved.close()

    def put_back() -> None:
        member.stop()
        for ending in ("", "-wal", "-shm"):
            Path(f"{member.options.mirror}{ending}").unlink(missing_ok=True)
        shutil.move(copy, member.options.mirror)
        member.start()

    return put_back


def test_a_mirror_that_a_crash_left_behind_is_folded_up_to_the_database(group: Group) -> None:
    a, b = group.several(2, T)
    a.run("INSERT INTO t VALUES (1, 'old')")
    group.settle()
    put_back = lose_the_mirror(b)
    a.run("UPDATE t SET v = 'newer'")
    a.send()
    b.receive()
    put_back()
    assert b.replica.merged_positions()[0].seq > b.replica.positions()[0].seq
    b.run("UPDATE t SET v = 'mine'")
    for message in group.world.after(0, b.reassembler.read_up_to(0), 99):
        b.reassembler.add(message)
    batch = b.reassembler.take(limit={0: b.replica.merged_positions()[0].seq})
    assert batch is not None
    b.replica.apply(batch, merge=False)
    assert b.run("SELECT v FROM t") == [("mine",)]
    assert group.equal("t") == [(1, "mine")]


def test_a_commit_that_fails_changes_nothing_and_is_tried_again(group: Group) -> None:
    a, b = group.several(2, *PAIR)
    transfer(a, 1)
    a.send()
    for message in group.world.after(0, 0, 99):
        b.reassembler.add(message)
    batch = b.reassembler.take()
    assert batch is not None
    b.replica.connection.set_commit_hook(lambda: True)
    with pytest.raises((DatabaseError, apsw.ConstraintError)):
        b.replica.apply(batch)
    b.replica.connection.set_commit_hook(None)
    assert b.run("SELECT * FROM debit") == []
    assert b.replica.positions()[0].seq == b.replica.merged_positions()[0].seq == 0
    b.reassembler.put_back(batch)
    assert {n for _, n in group.equal("debit", "credit")} == {1}


def test_a_lock_that_is_held_is_an_error_to_wait_for_and_changes_nothing(group: Group) -> None:
    a, b = group.several(2, T)
    a.run("INSERT INTO t VALUES (1, 'x')")
    a.send()
    b.replica.connection.set_busy_timeout(10)
    b.run("BEGIN IMMEDIATE")
    b.run("INSERT INTO t VALUES (2, 'mine')")
    with pytest.raises(DatabaseBusyError, match="another connection holds the lock"):
        b.receive()
    b.run("COMMIT")
    b.reassembler = type(b.reassembler)(b.replica.positions())
    assert group.equal("t") == [(1, "x"), (2, "mine")]


def test_an_open_reader_keeps_nobody_waiting(group: Group) -> None:
    a, b = group.several(2, T)
    reader = apsw.Connection(str(b.options.database))
    reader.execute("BEGIN")
    assert reader.execute("SELECT count(*) FROM t").get == 0
    a.run("INSERT INTO t VALUES (1, 'x')")
    assert group.equal("t") == [(1, "x")]
    assert reader.execute("SELECT count(*) FROM t").get == 0
    reader.execute("COMMIT")
    assert reader.execute("SELECT count(*) FROM t").get == 1
    reader.close()


def test_a_transaction_that_is_rolled_back_is_never_published(group: Group) -> None:
    a, _ = group.several(2, T)
    a.run("BEGIN")
    a.run("INSERT INTO t VALUES (1, 'never')")
    assert a.replica.capture(1, message_bytes=1000) is None
    a.run("ROLLBACK")
    assert a.send() == 0
    assert group.equal("t") == []


def test_a_mirror_that_is_adopted_never_sets_back_a_database_that_is_further(group: Group) -> None:
    a, b = group.several(2, T)
    a.run("INSERT INTO t VALUES (1, 'old')")
    group.settle()
    older = b.options.folder / "older.db"
    save_copy(a.options.mirror, older)
    put_back = lose_the_mirror(b)
    a.run("UPDATE t SET v = 'newer'")
    a.send()
    a.receive()
    b.receive()
    put_back()
    b.replica.adopt(older)
    assert b.run("SELECT v FROM t") == [("newer",)]
    assert b.replica.merged_positions()[0].seq > b.replica.positions()[0].seq


def test_what_was_aborted_is_remembered_by_a_restart(group: Group) -> None:
    a = group.member(T)
    victim = ChangeSetId("x", "s", 7)
    position = Position(0, 3, 2, "", (victim,))
    a.replica.apply(AtomicBatch((), {0: position}, {}))
    a.stop()
    a.start()
    assert a.replica.positions()[0] == a.replica.merged_positions()[0] == position
