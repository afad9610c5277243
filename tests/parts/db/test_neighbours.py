"""An application that reads and then writes in one transaction keeps being able to, beside a node that merges."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack

import apsw
import pytest

from harmonylite.db.apply import apply
from harmonylite.db.replica import Replica
from harmonylite.db.sqlite import other_transactions as neighbours
from harmonylite.db.sqlite.other_transactions import OtherTransactions
from harmonylite.errors import DatabaseBusyError
from tests.parts.db import fix_neighbours
from tests.parts.db.fix_holding import holding, process
from tests.parts.db.fix_replicas import PAIRED, Group, Member

PATIENCE = 0.1
COUNT = 150


def failures(member: Member, milliseconds: float, meanwhile: Callable[[], None]) -> int:
    """Return how many of `COUNT` transactions of another process fail while ``meanwhile`` runs again and again."""
    arguments = [str(member.options.database), str(COUNT), str(milliseconds)]
    with process(fix_neighbours.__file__, *arguments) as application:
        while application.poll() is None:
            meanwhile()
        assert application.stdout is not None
        return int(application.stdout.read())


def own(member: Member) -> None:
    """Send and take in what the application has committed."""
    if member.send():
        member.receive()


@pytest.fixture
def pair(group: Group) -> list[Member]:
    made = group.several(2, PAIRED, patience=PATIENCE)
    made[0].run("INSERT INTO t VALUES (1, 'x', 10), (2, 'y', 20)")
    group.settle()
    return made


@pytest.mark.parametrize("milliseconds", [5, 30])
def test_alone_no_transaction_fails(pair: list[Member], milliseconds: float) -> None:
    assert failures(pair[0], milliseconds, lambda: own(pair[0])) == 0


@pytest.mark.parametrize("milliseconds", [5, 30])
def test_beside_many_incoming_commits_hardly_any_transaction_fails(
    group: Group, pair: list[Member], milliseconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = pair
    # the application's commits wait for the disk, which others may keep busy for seconds
    monkeypatch.setattr(apply, "LOCK_WAIT_MS", 60_000)
    a.replica.connection.set_busy_timeout(60_000)
    due = time.monotonic()

    def incoming() -> None:
        nonlocal due
        if time.monotonic() >= due:
            due += 0.05
            b.run("UPDATE t SET b = b + 1 WHERE id = 2")
            b.send()
            b.receive()
        own(a)
        a.receive()

    most = COUNT // (6 if milliseconds == 5 else 4)
    failed = next((few for _ in range(3) if (few := failures(a, milliseconds, incoming)) <= most), COUNT)
    assert failed <= most, "where nobody waits, most of them do, each time; a machine that is busy disturbs one time"
    group.settle()
    assert len(group.equal("t")) == 2


@pytest.fixture
def others(pair: list[Member]) -> OtherTransactions:
    return pair[0].replica.others


@pytest.mark.parametrize(
    ("sqls", "busy"),
    [
        ([], False),
        (["BEGIN"], False),
        (["BEGIN", "SELECT * FROM t"], True),
        (["BEGIN", "SELECT * FROM t", "COMMIT"], False),
        (["BEGIN IMMEDIATE"], True),
        (["BEGIN", "UPDATE t SET b = 0", "ROLLBACK"], False),
    ],
    ids=["a connection", "begun", "has read", "ended", "writes", "undone"],
)
def test_a_transaction_of_another_process_is_seen_from_its_first_read_on(
    pair: list[Member], others: OtherTransactions, sqls: list[str], busy: bool
) -> None:
    with holding(pair[0].options.database, *sqls):
        assert others.busy() is busy
    assert not others.busy()


def test_what_this_process_has_open_is_not_seen_and_its_locks_stay(
    pair: list[Member], others: OtherTransactions
) -> None:
    pair[0].run("BEGIN IMMEDIATE")
    assert not others.busy()
    with process("-c", "print('ready')"):
        pass
    code = f"import sqlite3; sqlite3.connect({str(pair[0].options.database)!r}, timeout=0).execute('BEGIN IMMEDIATE')"
    assert b"locked" in subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).stderr
    pair[0].run("COMMIT")


def test_a_transaction_that_lasts_is_waited_for_once(pair: list[Member], others: OtherTransactions) -> None:
    a, b = pair
    with holding(a.options.database, "BEGIN", "SELECT * FROM t"):
        for _ in range(100):  # looks that are far apart, as under load, begin the count again
            others.wait(others.deadline())
        assert not others.busy(), "it is background now"
        for number in range(3):
            b.run("UPDATE t SET b = ? WHERE id = 2", (number,))
            b.send()
            b.receive()
            a.receive()
            assert a.run("SELECT b FROM t WHERE id = 2") == [(number,)]
            assert not others.busy()
        with holding(a.options.database, "BEGIN", "SELECT * FROM t"):
            assert others.busy(), "another one is seen beside it"
    assert not others.busy()


def test_a_transaction_that_can_not_write_any_more_is_not_waited_for(
    pair: list[Member], others: OtherTransactions
) -> None:
    a = pair[0]
    others._patience = 60.0
    with holding(a.options.database, "BEGIN", "SELECT * FROM t"):
        assert others.busy()
        a.run("UPDATE t SET b = 98 WHERE id = 1")
        own(a)
        assert others.busy(), "what brings the database no row leaves it able to write"
        others.politely(lambda _: a.replica._applying._note(0.0))
        assert not others.busy()
        with holding(a.options.database, "BEGIN", "SELECT * FROM t"):
            assert others.busy(), "one that begins after the commit can write"
    assert not others.busy()


@pytest.mark.parametrize(
    ("looks", "asked"),
    [
        ([False, False], 2),
        ([False, False, False, True, True, False], 6),
        ([True, True, False], 3),
    ],
    ids=["nobody was seen to think", "one begins soon", "one ends"],
)
def test_beside_one_who_thinks_within_transactions_the_end_of_one_is_waited_for(
    others: OtherTransactions, monkeypatch: pytest.MonkeyPatch, looks: list[bool], asked: int
) -> None:
    others._thought = time.monotonic() if len(looks) > 2 else 0.0
    left = list(looks)
    monkeypatch.setattr(OtherTransactions, "busy", lambda _: left.pop(0))
    monkeypatch.setattr(neighbours, "REST", 60.0)
    others.wait(time.monotonic() + 60)
    assert len(looks) - len(left) == asked


def test_where_nobody_begins_a_transaction_none_is_waited_for(others: OtherTransactions) -> None:
    others._thought = time.monotonic()
    others.wait(time.monotonic() + 60)
    assert not others.busy()


def test_who_reads_and_then_takes_a_while_is_seen_to_think(pair: list[Member], others: OtherTransactions) -> None:
    with holding(pair[0].options.database):
        others.busy()
        assert not others._thought, "it only has the file open"
    with holding(pair[0].options.database, "BEGIN", "SELECT * FROM t"):
        others._polled = others._since[next(iter(others._held()))] = time.monotonic() - neighbours.SHORT
        assert others.busy()
    assert others._thought


def test_a_merge_goes_on_when_patience_ends(pair: list[Member]) -> None:
    a, b = pair
    b.run("UPDATE t SET b = 99 WHERE id = 2")
    b.send()
    with holding(a.options.database, "BEGIN", "SELECT * FROM t"):
        a.receive()
    assert a.run("SELECT b FROM t WHERE id = 2") == [(99,)]


def test_what_is_noted_can_wait_for_a_transaction_that_patience_sees_no_end_of(
    pair: list[Member], monkeypatch: pytest.MonkeyPatch
) -> None:
    a = pair[0]
    a.run("UPDATE t SET b = 99 WHERE id = 2")
    own(a)
    unnoted = a.replica.unnoted
    monkeypatch.setattr(neighbours, "WAITED_FOR", 1000.0)
    before = a.app.pragma("data_version")
    with holding(a.options.database, "BEGIN", "SELECT * FROM t"):
        with pytest.raises(DatabaseBusyError, match="has a transaction open"):
            a.replica.note(later=True)
        assert a.app.pragma("data_version") == before, "the transaction can write"
        assert a.replica.unnoted == unnoted > 0
        monkeypatch.setattr(apply, "MOST_POSTPONED", unnoted)
        a.replica.note(later=True)
    assert not a.replica.unnoted


def incoming(a: Member, b: Member) -> Callable[[], object]:
    """Return a merge of a row that the other member wrote."""
    b.run("UPDATE t SET b = 99 WHERE id = 2")
    b.send()
    return a.receive


def noted(a: Member, _: Member) -> Callable[[], object]:
    """Return the note that an own change set is back."""
    a.run("UPDATE t SET b = 99 WHERE id = 2")
    own(a)
    return a.replica.note


def named(a: Member, _: Member) -> Callable[[], object]:
    """Return the naming of new rows."""
    a.run("UPDATE t SET b = 99 WHERE id = 2")
    return a.replica._applying.name_new_rows


def held(a: Member, _: Member) -> Callable[[], object]:
    """Return another try of rows that are held."""
    a.run("UPDATE t SET b = 99 WHERE id = 2")
    a.run("INSERT INTO __harmonylite__held(t, k0) VALUES (?, 1)", (next(iter(a.replica.tables.values())).id,))
    return a.replica._applying.retry_held


def unseen(a: Member, _: Member) -> Callable[[], object]:
    """Return the search for rows that REPLACE displaced through an index that triggers can't see."""
    a.run("CREATE UNIQUE INDEX t_a ON t(lower(a))")
    a.replica.reinstall()
    a.run("UPDATE t SET b = 99 WHERE id = 2")
    a.run("INSERT OR REPLACE INTO t VALUES (3, 'X', 30)")

    def find() -> None:
        assert a.replica.find_unlogged() == 1

    return find


@pytest.mark.parametrize("prepare", [incoming, noted, named, held, unseen])
def test_what_is_written_is_begun_again_where_somebody_begins_to_read_before_its_commit(
    pair: list[Member], monkeypatch: pytest.MonkeyPatch, prepare: Callable[[Member, Member], Callable[[], object]]
) -> None:
    a, b = pair
    wait, refuse = OtherTransactions.wait, OtherTransactions._refuse
    started: list[subprocess.Popen[str]] = []
    refused: list[bool] = []

    def waiting(self: OtherTransactions, until: float, *, again: bool = False) -> None:
        wait(self, time.monotonic() + 60, again=again)
        if not started:
            started.append(stack.enter_context(holding(a.options.database, "BEGIN", "SELECT * FROM t")))

    def refusing(self: OtherTransactions, connection: apsw.Connection) -> bool:
        if told := refuse(self, connection):
            refused.append(told)
            started[0].kill()
            started[0].wait()
        return told

    monkeypatch.setattr(OtherTransactions, "_refuse", refusing)
    a.stop()
    a.start()
    write = prepare(a, b)
    with ExitStack() as stack:
        monkeypatch.setattr(OtherTransactions, "wait", waiting)
        write()
    assert len(refused) == 1
    assert a.run("SELECT b FROM t WHERE id = 2") == [(99,)]


def test_where_nothing_can_be_asked_a_pause_is_waited_for(pair: list[Member], monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = pair
    monkeypatch.setattr(OtherTransactions, "_open", lambda _: False)
    paused = []
    monkeypatch.setattr(OtherTransactions, "_wait_for_a_pause", lambda _, until: paused.append(until))
    b.run("UPDATE t SET b = 99 WHERE id = 2")
    b.send()
    a.receive()
    assert len(paused) == 1
    assert a.run("SELECT b FROM t WHERE id = 2") == [(99,)]


def test_the_descriptor_is_closed_after_the_connection(group: Group, monkeypatch: pytest.MonkeyPatch) -> None:
    a = group.several(1, PAIRED, patience=PATIENCE)[0]
    others = a.replica.others
    assert not others.busy()
    assert others._descriptor >= 0
    order: list[str] = []
    close = OtherTransactions.close

    def closing_it(self: OtherTransactions) -> None:
        order.append("open" if isinstance(a.replica._connection, apsw.Connection) else "closed")
        close(self)

    monkeypatch.setattr(OtherTransactions, "close", closing_it)
    Replica.close(a.replica)
    assert order == ["closed"]
    assert others._descriptor < 0
    a.start()


def test_a_process_that_writes_is_told_from_one_that_reads(group: Group) -> None:
    member = group.member(PAIRED)
    others = OtherTransactions(member.options.database, PATIENCE)
    try:
        assert not others.may_write()
        with holding(member.options.database, "BEGIN", "SELECT * FROM t"):
            assert not others.may_write()
        with holding(member.options.database, "BEGIN IMMEDIATE"):
            assert others.may_write()
    finally:
        member.stop()
        others.close()
    assert OtherTransactions(member.options.database, 0.0).may_write(), "it can't be asked for"
