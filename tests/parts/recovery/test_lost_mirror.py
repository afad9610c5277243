"""A mirror is lost, and what it knew with it: the stream lost its tail as well, and others continued without that."""

from __future__ import annotations

from pathlib import Path

import apsw
import pytest

from harmonylite.changes.reassembler import Reassembler
from harmonylite.db.mirror.positions import have_diverged
from harmonylite.db.snapshot import install_mirror, save_copy
from harmonylite.db.sqlite.thread import SqliteThread
from harmonylite.recovery.bootstrap import Bootstrap
from harmonylite.status import NodeStatus
from tests.parts.db.fix_replicas import Group, Member
from tests.parts.snapshots.test_divergence import Stream

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
        "both",
        "gone",
        "lost 0",
        "lost 1",
        "unsent",
        *(f"since {n}" for n in range(theirs)),
    }


async def test_a_backup_from_a_lost_tail_undoes_nothing_that_was_done_since(
    b_alone: tuple[Group, Member, Member], tmp_path: Path
) -> None:
    """The mirror continued without the tail; the database comes back from within it, further, and elsewhere."""
    group, a, b = b_alone
    kept = group.world.last(0)
    for n in range(3):
        b.run("INSERT INTO t VALUES (?, 'of b')", (f"lost {n}",))
        b.send()
        b.receive()
    b.run("VACUUM INTO ?", (str(tmp_path / "backup.db"),))
    del group.world.streams[0][kept:]
    a.run("INSERT INTO t VALUES ('since', 'of a')")
    a.send()
    a.receive()
    await remake(group, b, a, tmp_path)
    group.settle()
    b.stop()
    b.app.close()
    for side in ("", "-wal", "-shm"):
        Path(f"{b.options.database}{side}").unlink(missing_ok=True)
    (tmp_path / "backup.db").rename(b.options.database)
    b.app = apsw.Connection(str(b.options.database))
    del group.world.streams[0][kept + 1 :]  # and is lost once more, so that the backup stands beyond its end
    b.start()
    await settle(group, b)
    assert ("since", "of a") in b.rows("t")


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
    install_mirror(b.options, file)
    b.start()
    await settle(group, b)


async def settle(group: Group, b: Member) -> None:
    """Let ``b`` bring database and mirror together as it does at each start."""
    thread = SqliteThread()
    try:
        bootstrap = Bootstrap(b.options, thread, NodeStatus(), request_snapshot=_no)
        await bootstrap._settle_diverged(b.replica, [Stream(list(group.world.streams[0]))])
    finally:
        await thread.aclose()
    b.reassembler = Reassembler(b.replica.positions())


async def _no() -> bool:
    return False


def test_a_copy_of_a_mirror_is_none_that_the_database_grew_up_with_until_they_are_brought_together(
    b_alone: tuple[Group, Member, Member], tmp_path: Path
) -> None:
    _, _, b = b_alone
    assert not have_diverged(b.replica.connection)
    b.stop()
    save_copy(b.options.mirror, file := tmp_path / "snapshot.db")
    install_mirror(b.options, file)
    b.start()
    assert have_diverged(b.replica.connection)
    b.replica.reconcile(first=False)
    assert not have_diverged(b.replica.connection)
