"""Change sets that are captured while earlier ones are in flight hold what was written since, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from harmonylite.db.capture.capture import Outgoing
from harmonylite.db.sqlite.introspection import TableRules
from tests.parts.db.fix_replicas import PAIRED, Group, Member

Part = tuple[str, list[list[object]], list[list[object]], list[tuple[list[int], list[list[object]]]]]


@dataclass
class Air:
    """The change sets that a member has in flight."""

    member: Member
    outs: list[Outgoing] = field(default_factory=list)

    def capture(self, *, publish: bool = True) -> list[Part] | None:
        """Capture one on top of the others; return what it holds, None if there is none."""
        self.member.number += 1
        out = self.member.replica.capture(self.member.number, message_bytes=900_000, ahead=bool(self.outs))
        if out is None:
            return None
        self.outs.append(out)
        for shard in out.parts if publish else ():
            for payload in out.payloads(shard):
                self.member.world.publish(shard, self.member.options.node, payload)
        return [
            (part.table, part.deletes, part.inserts, [(group.changed, group.rows) for group in part.updates])
            for part in out.decoded()
        ]

    def land(self) -> None:
        """Receive all; then nothing is in flight."""
        self.member.receive()
        while self.outs:
            self.outs.pop().close()


def test_only_what_was_written_since_is_sent_and_relative_to_what_is_in_flight(group: Group) -> None:
    one, two = group.pair()
    air = Air(one)
    one.run("UPDATE t SET a = 'mine' WHERE id = 1")
    assert air.capture() == [("t", [], [], [([1], [[1, "mine", 10]])])]
    assert air.capture() is None, "nothing was written since"
    one.run("UPDATE t SET b = 11 WHERE id = 1")
    one.run("DELETE FROM t WHERE id = 2")
    assert air.capture() == [("t", [[2, "y", 20]], [], []), ("t", [], [], [([2], [[1, "mine", 11]])])]
    one.run("INSERT INTO t VALUES (2, 'again', 0)")
    one.run("UPDATE t SET a = 'x' WHERE id = 1")
    assert air.capture() == [("t", [], [], [([1], [[1, "x", 11]])]), ("t", [], [[2, "again", 0]], [])], "set back, too"
    one.run("DELETE FROM t WHERE id = 2")
    assert air.capture() == [("t", [[2, "again", 0]], [], [])], "a row that the mirror has and the database has not"
    assert air.capture() is None
    two.receive()
    air.land()
    assert group.equal("t") == [(1, "x", 11), (3, "z", 30)]
    assert one.capture() == 0


@pytest.mark.parametrize("moment", ["before", "between", "after"])
def test_what_another_node_wrote_when_it_had_seen_an_earlier_one_is_not_undone(group: Group, moment: str) -> None:
    one, two = group.pair()
    air = Air(one)
    if moment == "before":
        two.run("UPDATE t SET a = 'theirs', b = 99 WHERE id = 3")
        two.send()
    one.run("UPDATE t SET b = b + 1 WHERE id = 1")
    air.capture()
    if moment == "between":
        two.receive()
        two.run("UPDATE t SET b = b + 1 WHERE id = 1")
        two.send()
    one.run("UPDATE t SET a = 'also' WHERE id = 3")
    air.capture()
    if moment == "after":
        two.receive()
        two.run("UPDATE t SET b = b + 1 WHERE id = 1")
        two.send()
    one.run("UPDATE t SET a = 'last' WHERE id = 1")
    air.capture()
    air.land()
    expected = 11 if moment == "before" else 12
    assert group.equal("t")[0] == (1, "last", expected)


def test_new_rows_that_are_replaced_while_their_change_set_is_in_flight_stay_replaced(group: Group) -> None:
    one, two = group.pair()
    air = Air(one)
    one.run("INSERT INTO t VALUES (8, 'new', 0)")
    air.capture()
    one.run("REPLACE INTO t VALUES (8, 'newer', 0)")
    one.run("INSERT INTO t VALUES (9, 'next', 0)")
    assert air.capture() == [("t", [], [], [([1], [[8, "newer", 0]])]), ("t", [], [[9, "next", 0]], [])]
    two.run("UPDATE t SET b = 1 WHERE id = 1")
    one.run("REPLACE INTO t VALUES (8, 'newest', 0)")
    two.send()
    air.land()
    assert one.run("SELECT a FROM t WHERE id > 7 ORDER BY id") == [("newest",), ("next",)]
    assert group.equal("t")[-2:] == [(8, "newest", 0), (9, "next", 0)]


@pytest.mark.parametrize("late", [False, True], ids=["known at once", "known when the later one is back"])
def test_rows_of_a_change_set_that_never_lands_are_captured_again(group: Group, late: bool) -> None:
    one, _ = group.pair()
    air = Air(one)
    one.run("UPDATE t SET a = 'lost' WHERE id = 1")
    one.run("INSERT INTO t VALUES (9, 'lost', 0)")
    air.capture(publish=False)
    one.run("UPDATE t SET b = 1 WHERE id IN (1, 2)")
    air.capture()
    lost = air.outs[0].id.number
    if not late:
        one.replica.forget_flight(lost)
    air.land()
    one.replica.forget_flight(lost)
    assert group.equal("t") == [(1, "lost", 1), (2, "y", 1), (3, "z", 30), (9, "lost", 0)]


def test_with_several_shards_one_may_be_back_before_an_earlier_one(make_group: Callable[[int], Group]) -> None:
    group = make_group(2)
    tables = [f"CREATE TABLE t{i}(id INTEGER PRIMARY KEY, u UNIQUE)" for i in range(8)]  # each on one shard
    one, _ = group.several(2, *tables)
    group.settle()
    air = Air(one)
    for i in range(8):
        one.run(f"INSERT INTO t{i} VALUES ({i}, {i})")
        air.capture()
    shards = [next(iter(out.parts)) for out in air.outs]
    assert set(shards) == {0, 1}
    for shard in {shards[-1]}, {0, 1}:  # first only the shard of the newest one
        for which in shard:
            for message in group.world.after(which, one.reassembler.read_up_to(which), 1_000):
                one.reassembler.add(message)
        while (batch := one.reassembler.take(own=(one.options.node, one.replica.options.session))) is not None:
            one.replica.apply(batch)
        assert air.capture() is None, "all that was written is in flight or back"
    air.land()
    assert group.equal(*(f"t{i}" for i in range(8))) == [(7, 7)]
    assert one.capture() == 0


def test_what_stays_in_flight_is_not_replaced_by_what_others_wrote_whatever_the_values(group: Group) -> None:
    """Values alone don't say that a row was set to what it was once."""
    one, two = group.pair()
    three = group.member(PAIRED)
    group.settle()
    air = Air(one)
    two.run("UPDATE t SET a = 'theirs' WHERE id < 3")
    two.run("DELETE FROM t WHERE id = 3")
    three.run("UPDATE t SET a = 'theirs' WHERE id = 3")
    two.send()
    three.send()
    for sql in ("UPDATE t SET a = 'other' WHERE id = 1", "UPDATE t SET a = 'x' WHERE id = 1", "DELETE FROM t"):
        one.run(sql)
        air.capture()
    one.run("INSERT INTO t VALUES (1, 'x', 10), (3, 'z', 30)")
    air.capture()
    for message in group.world.after(0, one.reassembler.read_up_to(0), 1_000):
        one.reassembler.add(message)
    while (batch := one.reassembler.take(own=(one.options.node, one.replica.options.session), least=True)) is not None:
        one.replica.apply(batch)
        assert one.run("SELECT * FROM t") == [(1, "x", 10), (3, "z", 30)]
    air.land()
    assert group.equal("t") == [(1, "x", 10), (3, "z", 30)]


def test_a_change_of_the_schema_waits_until_all_is_back(group: Group) -> None:
    one, _ = group.pair()
    air = Air(one)
    one.run("INSERT INTO t VALUES (4, 'four', 4)")
    air.capture()
    one.run("CREATE TABLE more(id INTEGER PRIMARY KEY)")
    one.run("INSERT INTO more VALUES (1)")
    one.run("INSERT INTO t VALUES (5, 'five', 5)")
    assert air.capture() is None
    air.land()
    assert {part[0] for part in air.capture() or ()} >= {"t", "more"}
    air.land()


def test_what_comes_after_a_counted_row_with_an_identity_waits_because_its_number_may_change(group: Group) -> None:
    ddl = "CREATE TABLE record(id INTEGER PRIMARY KEY, name TEXT)"
    rules = TableRules(identity=(("record", ("name",)),))
    one, two = (group.member(PAIRED, ddl, rules=rules) for _ in range(2))
    group.settle()
    air = Air(one)
    one.run("INSERT INTO record VALUES (1, 'mine')")
    two.run("INSERT INTO record VALUES (1, 'theirs')")
    two.send()
    air.capture()
    one.run("UPDATE record SET name = 'renamed' WHERE id = 1")
    assert air.capture() is None
    air.land()
    assert {name for _, name in group.equal("record")} == {"renamed", "theirs"}
