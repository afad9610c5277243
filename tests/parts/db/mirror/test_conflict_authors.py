"""The conflict journal names whose value was overruled, however long ago it was written, and never the wrong node."""

from __future__ import annotations

import pytest

from harmonylite.db.mirror import conflict_journal
from tests.parts.db.fix_replicas import Group, Member

TABLE = "CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT, other TEXT)"


def overruled(members: list[Member]) -> set[tuple[str, str]]:
    """Return loser and winner of the conflicts about row 1, the same on every member."""
    found = [{(c.loser, c.winner) for c in m.replica.conflicts() if c.key == {"id": 1}} for m in members]
    assert all(each == found[0] for each in found)
    return found[0]


def crossing(group: Group, count: int) -> list[Member]:
    """Return members of which b has captured a change of row 1, not published, and a has sent another one."""
    a, b, *_ = members = group.several(count, TABLE)
    a.run("INSERT INTO t(id, a) VALUES (1, 'first')")
    group.settle()
    b.run("UPDATE t SET a = 'of b' WHERE id = 1")
    b.capture()
    a.run("UPDATE t SET a = 'of a' WHERE id = 1")
    a.send()
    return members


def apart(group: Group, writes: int) -> list[Member]:
    """Let b write row 1 while it hears nothing, and a write it, and then other rows in ``writes`` change sets."""
    a, b = members = crossing(group, 2)
    a.receive()
    for number in range(writes):
        a.run("INSERT INTO t(id, a) VALUES (?, 'another')", (10 + number,))
        a.send()
        a.receive()
    b.publish()
    return members


@pytest.mark.parametrize("writes", [0, 3, 300, 1000])
def test_the_author_is_found_however_much_was_written_since(group: Group, writes: int) -> None:
    """After 256 messages nobody was named: so it was after each failover and each cut that lasted."""
    members = apart(group, writes)
    group.settle()
    assert overruled(members) == {("a", "b")}


def test_who_wrote_another_column_since_is_not_the_author(group: Group) -> None:
    _, b, c = members = crossing(group, 3)
    c.receive()
    c.run("UPDATE t SET other = 'of c' WHERE id = 1")
    c.send()
    b.publish()
    group.settle()
    assert overruled(members) == {("a", "b")}


def test_a_large_change_set_that_may_have_written_the_row_makes_no_other_node_its_author(
    group: Group, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conflict_journal, "RECENT_ROWS", 5)
    _, b, c = members = crossing(group, 3)
    c.receive()
    c.run(
        "WITH n(i) AS (VALUES (11) UNION ALL SELECT i + 1 FROM n WHERE i < 20) INSERT INTO t(id, a) SELECT i, '' FROM n"
    )
    c.send()
    b.publish()
    group.settle()
    assert overruled(members) == {("", "b")}, "the large one of c's may have written it after a"


def test_a_large_change_set_of_the_author_itself_is_no_reason_to_name_nobody(
    group: Group, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conflict_journal, "RECENT_ROWS", 5)
    a, b = members = crossing(group, 2)
    a.receive()
    a.run(
        "WITH n(i) AS (VALUES (11) UNION ALL SELECT i + 1 FROM n WHERE i < 20) INSERT INTO t(id, a) SELECT i, '' FROM n"
    )
    a.send()
    b.publish()
    group.settle()
    assert overruled(members) == {("a", "b")}


def test_what_an_earlier_history_left_below_all_numbers_still_names_its_author(group: Group) -> None:
    """A new history continues behind many messages.

    What a lost stream held after them is kept with numbers below all.
    """
    (a,) = group.several(1, TABLE)
    a.run("INSERT INTO t(id, a) VALUES (1, 'first')")
    for number in range(300):
        a.run("INSERT INTO t(id, a) VALUES (?, 'another')", (10 + number,))
        a.send()
        a.receive()
    a.run("UPDATE t SET a = 'of a' WHERE id = 1")
    a.send()
    a.receive()
    connection = a.replica.connection
    last = int(str(connection.execute(f"SELECT max(seq) FROM {conflict_journal.RECENT}").fetchall()[0][0]))
    connection.execute(f"UPDATE {conflict_journal.RECENT} SET seq = -1 WHERE seq = ?", (last,))
    assert conflict_journal.Authors(connection, 0, last).author("t", (1,), "a") == "a"
    a.run("INSERT INTO t(id, a) VALUES (5, 'in the new history')")
    a.send()
    a.receive()
    assert conflict_journal.Authors(connection, 0, last + 2).author("t", (1,), "a") == "a", (
        "it is not forgotten with the next one"
    )
