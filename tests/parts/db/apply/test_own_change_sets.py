"""A local write is never overwritten by what comes back, and nothing that is committed in between is lost."""

from __future__ import annotations

import pytest

from tests.parts.db.fix_replicas import Group, Member

COUNTER = "CREATE TABLE counter(id INTEGER PRIMARY KEY, n INTEGER, other TEXT)"


def count(member: Member) -> None:
    """Add one to the counter."""
    member.run("INSERT INTO counter VALUES (1, 1, 'x') ON CONFLICT DO UPDATE SET n = n + 1")


def test_a_row_that_is_written_a_hundred_times_is_never_set_back_by_its_own_echo(group: Group) -> None:
    a, b = group.several(2, COUNTER)
    for turn in range(1, 101):
        count(a)
        if a.flight is None:
            a.send()
        if turn % 3 == 0:
            a.receive()
            b.receive()
        assert a.run("SELECT n FROM counter") == [(turn,)]
    assert group.equal("counter") == [(1, 100, "x")]


def test_a_value_that_is_set_back_while_its_change_is_under_way_stays_set_back(group: Group) -> None:
    a, b = group.several(2, COUNTER)
    a.run("INSERT INTO counter VALUES (1, 0, 'x')")
    group.settle()
    a.run("UPDATE counter SET n = 1")
    a.send()
    a.run("UPDATE counter SET n = 0")
    a.receive()
    assert a.run("SELECT n FROM counter") == [(0,)]
    b.receive()
    assert b.run("SELECT n FROM counter") == [(1,)]
    assert group.equal("counter") == [(1, 0, "x")]


def test_a_commit_between_capture_and_fold_is_not_lost(group: Group) -> None:
    a, b = group.several(2, COUNTER)
    count(a)
    a.capture()
    count(a)
    a.run("INSERT INTO counter VALUES (2, 7, 'later')")
    a.publish()
    a.receive()
    assert a.replica.count_pending() == 2
    assert group.equal("counter") == [(1, 2, "x"), (2, 7, "later")]
    assert b.run("SELECT count(*) FROM counter") == [(2,)]


def test_a_delete_while_its_row_is_under_way_is_not_undone(group: Group) -> None:
    a, _ = group.several(2, COUNTER)
    count(a)
    a.capture()
    a.run("DELETE FROM counter")
    a.publish()
    a.receive()
    assert a.run("SELECT * FROM counter") == []
    assert group.equal("counter") == []


def test_only_what_came_back_in_the_order_is_done(group: Group) -> None:
    a, b = group.several(2, COUNTER)
    count(a)
    assert a.capture() == 1
    a.drop()  # the publish failed
    assert a.replica.pending_rows() == 1
    assert a.send() == 1
    assert group.equal("counter") == [(1, 1, "x")]
    assert b.run("SELECT n FROM counter") == [(1,)]


def test_what_is_queued_outlives_a_restart(group: Group) -> None:
    a, b = group.several(2, COUNTER)
    for key in range(2, 8):
        a.run("INSERT INTO counter VALUES (?, 0, 'while NATS was down')", (key,))
    a.capture()
    a.stop()
    count(a)
    a.start()
    assert len(group.equal("counter")) == 7
    assert b.run("SELECT count(*) FROM counter") == [(7,)]


def test_a_node_that_publishes_first_still_gets_what_others_published_before(group: Group) -> None:
    a, b = group.several(2, COUNTER)
    for key in range(10, 40):
        a.run("INSERT INTO counter VALUES (?, 1, 'a')", (key,))
        b.run("INSERT INTO counter VALUES (?, 1, 'b')", (key + 100,))
        a.send()
        b.send()
        b.receive()
        a.receive()
    assert len(group.equal("counter")) == 60


def test_what_was_published_before_a_restart_is_not_published_again(group: Group) -> None:
    a, _ = group.several(2, COUNTER)
    count(a)
    a.send()
    a.stop()
    a.start()
    a.receive()
    before = group.world.last(0)
    assert a.send() == 0
    assert group.world.last(0) == before


def test_three_nodes_that_update_the_same_rows_end_the_same(group: Group) -> None:
    members = group.several(3, COUNTER)
    for key in range(50):
        members[0].run("INSERT INTO counter VALUES (?, 0, '')", (key,))
    group.settle()
    for turn in range(5):
        for number, member in enumerate(members):
            member.run("UPDATE counter SET n = ?, other = ? WHERE id % 3 <> ?", (turn, f"{number}", number))
            if member.flight is None:
                member.send()
        for member in members[turn % 3 :]:
            member.receive()
    assert len(group.equal("counter")) == 50


def test_columns_that_two_nodes_change_apart_are_both_kept(group: Group) -> None:
    a, b = group.several(2, COUNTER)
    count(a)
    group.settle()
    a.run("UPDATE counter SET n = 10")
    b.run("UPDATE counter SET other = 'y'")
    assert group.equal("counter") == [(1, 10, "y")]


def test_changes_that_cancel_out_publish_nothing(group: Group) -> None:
    a, _ = group.several(2, COUNTER)
    count(a)
    group.settle()
    a.run("UPDATE counter SET n = 5")
    a.run("UPDATE counter SET n = 1")
    a.run("INSERT INTO counter VALUES (2, 0, '')")
    a.run("DELETE FROM counter WHERE id = 2")
    a.run("UPDATE counter SET other = other")
    assert a.replica.count_pending() == 0
    assert a.send() == 0
    assert a.replica.pending_rows() == 0


@pytest.mark.parametrize("first", ["a", "b"])
def test_the_change_set_that_the_order_has_last_wins_whatever_the_clocks_say(group: Group, first: str) -> None:
    a, b = group.several(2, COUNTER)
    count(a)
    group.settle()
    a.run("UPDATE counter SET other = 'from a'")
    b.run("UPDATE counter SET other = 'from b'")
    group.world.time += 1_000_000 if first == "a" else -900
    one, two = (a, b) if first == "a" else (b, a)
    one.send()
    two.send()
    assert group.equal("counter") == [(1, 1, f"from {two.options.node}")]
    for member in (a, b):
        (conflict,) = member.replica.conflicts()
        assert (conflict.overruled, conflict.winning) == (f"from {first}", f"from {two.options.node}")
        assert (conflict.loser, conflict.winner) == (first, two.options.node)


def test_an_update_under_way_of_a_row_that_was_changed_and_deleted_elsewhere_brings_back_the_row_as_it_was_sent(
    group: Group,
) -> None:
    """The row here has what the other node changed meanwhile, and the mirror the image of the change set."""
    here, there = group.pair()
    here.run("UPDATE t SET b = 99 WHERE id = 1")
    here.capture()
    there.run("UPDATE t SET a = 'other' WHERE id = 1")
    there.send()
    there.receive()
    here.receive()
    assert here.rows("t")[0] == (1, "other", 99)
    there.run("DELETE FROM t WHERE id = 1")
    there.send()
    here.receive()
    here.publish()
    assert group.equal("t")[0] == (1, "x", 99)
