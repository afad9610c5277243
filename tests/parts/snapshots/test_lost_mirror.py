"""A mirror is lost, and what it knew with it: the stream lost its tail as well, and others went on without that."""

from __future__ import annotations

from pathlib import Path

import pytest

from harmonylite.changes.inbox import Inbox
from harmonylite.db.snapshot import install_mirror, save_copy
from harmonylite.db.standing import is_remade
from harmonylite.db.thread import SqliteThread
from harmonylite.snapshots.joining import Joiner
from harmonylite.status import NodeStatus
from tests.parts.db.fix_replicas import Group, Member
from tests.parts.snapshots.test_agreement import Stream

TABLE = "CREATE TABLE t(id TEXT PRIMARY KEY NOT NULL, v TEXT)"


@pytest.fixture
def b_alone(group: Group) -> tuple[Group, Member, Member]:
    """Two nodes, and streams that hold what both know."""
    a, b = group.several(2, TABLE)
    a.run("INSERT INTO t VALUES ('both', 'at first'), ('gone', 'at first')")
    group.settle()
    return group, a, b


@pytest.mark.parametrize("theirs", [1, 3])
async def test_rows_of_a_lost_tail_are_brought_and_nothing_of_others_is_undone(
    b_alone: tuple[Group, Member, Member], tmp_path: Path, theirs: int
) -> None:
    """The database alone can't tell what it never knew from what it deleted; a mirror of its own could."""
    group, a, b = b_alone
    kept = group.world.last(0)
    for n in range(2):
        b.run("INSERT INTO t VALUES (?, 'of b')", (f"lost {n}",))
        b.send()
        b.receive()
    del group.world.streams[0][kept:]
    for n in range(theirs):
        a.run("INSERT INTO t VALUES (?, 'of a')", (f"since {n}",))
        a.send()
        a.receive()
    b.run("INSERT INTO t VALUES ('unsent', 'of b')")
    await remake(group, b, a, tmp_path)
    for n in range(theirs):
        assert (f"since {n}", "of a") in b.rows("t")
    rows = group.equal("t")
    assert {name for name, _ in rows} == {
        "both", "gone", "lost 0", "lost 1", "unsent", *(f"since {n}" for n in range(theirs))
    }  # fmt: skip


async def test_with_the_stream_as_it_was_a_lost_mirror_brings_nothing_back(
    b_alone: tuple[Group, Member, Member], tmp_path: Path
) -> None:
    group, a, b = b_alone
    a.run("DELETE FROM t WHERE id = 'gone'")
    a.send()
    a.receive()
    await remake(group, b, a, tmp_path)
    assert group.equal("t") == [("both", "at first")]


async def remake(group: Group, b: Member, a: Member, folder: Path) -> None:
    """Let ``b`` take a snapshot of ``a`` for the mirror that it lost."""
    b.stop()
    save_copy(a.options.mirror, file := folder / "snapshot.db")
    install_mirror(b.options, file, remade=True)
    b.start()
    thread = SqliteThread()
    try:
        joiner = Joiner(b.options, thread, NodeStatus(), please=_no)
        await joiner._settle_apart(b.replica, [Stream([m.payload for m in group.world.streams[0]])])
    finally:
        await thread.aclose()
    b.inbox = Inbox(b.replica.positions())


async def _no() -> bool:
    return False


def test_a_snapshot_does_not_say_that_its_own_node_lost_its_mirror(
    b_alone: tuple[Group, Member, Member], tmp_path: Path
) -> None:
    _, a, b = b_alone
    b.stop()
    save_copy(a.options.mirror, file := tmp_path / "snapshot.db")
    install_mirror(b.options, file, remade=True)
    b.start()
    assert is_remade(b.replica.connection)
    save_copy(b.options.mirror, again := tmp_path / "again.db")
    a.stop()
    install_mirror(a.options, again)
    a.start()
    assert not is_remade(a.replica.connection)
