"""A table that its application drops and makes again while its first rows are under way is a new one, on every node."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import apsw
import pytest

from tests.parts.db.fix_replicas import Group, Member, copied
from tests.parts.db.fix_schemas import same

MADE = (
    "CREATE TABLE x(id TEXT PRIMARY KEY NOT NULL, v DEFAULT 'd')",
    "CREATE INDEX x_same ON x(v)",
    "INSERT INTO x VALUES ('old', 1), ('both', 1)",
)
AGAIN: dict[str, tuple[str, ...]] = {
    "the same": MADE[:1],
    "other columns": ("CREATE TABLE x(id TEXT PRIMARY KEY NOT NULL, w, v)",),
    "another key": ("CREATE TABLE x(id, v PRIMARY KEY NOT NULL)",),
    "with the same index": MADE[:2],
    "with an index": (*MADE[:1], "CREATE UNIQUE INDEX x_v ON x(v)"),
    "with a view": (*MADE[:1], "CREATE VIEW seen AS SELECT id FROM x"),
    "with a trigger": (*MADE[:1], "CREATE TRIGGER x_t AFTER INSERT ON x BEGIN UPDATE x SET v = v; END"),
    "in other letters": ("CREATE TABLE X(id TEXT PRIMARY KEY NOT NULL, v DEFAULT 'd')",),
    "by a rename": ("CREATE TABLE y(id TEXT PRIMARY KEY NOT NULL, v)", "ALTER TABLE y RENAME TO x"),
}
"""How the table is made again."""


def looks(member: Member) -> None:
    """Let the node see what its application did."""
    if member.replica.schema_changed():
        member.replica.reinstall()


def begins_again(member: Member) -> None:
    """Let the node's process end, and another one begin."""
    member.stop()
    member.start()


def nothing(_: Member) -> None:
    """Let the node see nothing."""


def receives(member: Member) -> None:
    """Let the node receive its own change set."""
    member.receive()


def begins_again_and_receives(member: Member) -> None:
    """Let another process receive what the node's own one sent."""
    begins_again(member)
    receives(member)


SEEN: dict[str, tuple[Callable[[Member], None], Callable[[Member], None]]] = {
    "nothing seen": (nothing, nothing),
    "the drop seen": (looks, nothing),
    "the new table seen": (nothing, looks),
    "both seen": (looks, looks),
    "received between": (receives, nothing),
    "received between, the new table seen": (receives, looks),
    "received between, then another process": (receives, begins_again),
    "received by another process between": (begins_again_and_receives, nothing),
    "another process sees the drop": (begins_again, nothing),
    "another process sees the new table": (nothing, begins_again),
}
"""What the node does after the drop, and after the table is made again."""


def make_again(a: Member, again: str, seen: str) -> None:
    """Let a member's application drop the table and make it again."""
    drop, make = SEEN[seen]
    a.run("DROP TABLE x")
    drop(a)
    for sql in AGAIN[again]:
        a.run(sql)
    make(a)


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("seen", SEEN)
@pytest.mark.parametrize("again", AGAIN)
def test_a_table_made_again_while_its_rows_are_under_way_has_the_new_rows_everywhere(
    make_group: Callable[[int], Group], tmp_path: Path, again: str, seen: str, shards: int
) -> None:
    group = make_group(shards)
    a, b = group.several(2, apply_schema="all")
    for sql in MADE:
        a.run(sql)
    a.send()
    make_again(a, again, seen)
    a.run("INSERT INTO x(id, v) VALUES ('new', 2), ('both', 3)")
    a.receive()
    same(group)
    assert b.run("SELECT id, v FROM x ORDER BY v") == [("new", 2), ("both", 3)]
    with closing(apsw.Connection(str(copied(a, tmp_path / "copy")))) as copy:
        assert copy.execute("SELECT id, v FROM x ORDER BY v").fetchall() == [("new", 2), ("both", 3)]


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("seen", [seen for seen in SEEN if seen != "another process sees the new table"])
@pytest.mark.parametrize("again", ["the same", "other columns", "another key", "by a rename"])
def test_rows_under_way_of_a_table_that_all_know_do_not_come_back_in_the_new_one(
    make_group: Callable[[int], Group], again: str, seen: str, shards: int
) -> None:
    group = make_group(shards)
    a, b = group.several(2, apply_schema="all")
    for sql in MADE:
        a.run(sql)
    group.settle()
    a.run("INSERT INTO x VALUES ('late', 4), ('later', 5)")
    a.send()
    make_again(a, again, seen)
    a.run("INSERT INTO x(id, v) VALUES ('new', 2), ('late', 3)")
    a.receive()
    same(group)
    assert b.run("SELECT id, v FROM x ORDER BY v") == [("new", 2), ("late", 3)]
