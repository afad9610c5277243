"""A change of the schema and the rows that came with it are one transaction at every node, as they were at their
writer's: who reads there sees both or neither, and so does who starts after a crash.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing, suppress
from typing import Any

import apsw
import pytest

from harmonylite.changes.reassembler import Reassembler
from harmonylite.db.sqlite.connection import rows
from harmonylite.db.sqlite.thread import GiveWayError
from harmonylite.errors import DatabaseBusyError, RowRefusedError
from tests.parts.db.fix_replicas import PAIRED, Group, Member
from tests.parts.db.fix_schemas import KEYED, rebuild, same
from tests.parts.db.test_changing_schema import CHANGES

ADDITIONS: dict[str, tuple[str, ...]] = {
    "create and fill a table": (
        "CREATE TABLE n(id INTEGER PRIMARY KEY, v TEXT UNIQUE)",
        "INSERT INTO n VALUES (1, 'one'), (2, 'two')",
    ),
    "add and fill a column": ("ALTER TABLE t ADD COLUMN c", "UPDATE t SET c = 'c' || id"),
    "add and fill a column that must have a value": (
        "ALTER TABLE t ADD COLUMN c TEXT NOT NULL DEFAULT ''",
        "UPDATE t SET c = 'c' || id",
    ),
    "a column with a unique index": (
        "ALTER TABLE t ADD COLUMN c",
        "UPDATE t SET c = 'c' || id",
        "CREATE UNIQUE INDEX t_c ON t(c)",
    ),
    "a table with its index, view and trigger": (
        "CREATE TABLE n(id INTEGER PRIMARY KEY, v TEXT)",
        "CREATE INDEX n_v ON n(v)",
        "CREATE VIEW w AS SELECT v FROM n",
        "CREATE TRIGGER n_t AFTER INSERT ON n BEGIN UPDATE t SET b = b + 1; END",
        "INSERT INTO n VALUES (1, 'one')",
    ),
    "a full-text index": (
        "CREATE VIRTUAL TABLE f USING fts5(a, content='t', content_rowid='id')",
        "CREATE TRIGGER f_i AFTER INSERT ON t BEGIN INSERT INTO f(rowid, a) VALUES (new.id, new.a); END",
        "INSERT INTO f(f) VALUES ('rebuild')",
        "INSERT INTO t VALUES (9, 'nine', 90)",
    ),
    "a number": ("PRAGMA user_version = 7", "UPDATE t SET a = 'migrated'"),
}
KINDS: dict[str, tuple[str, ...]] = {
    **CHANGES,
    **ADDITIONS,
    "rename a table and update it": ("ALTER TABLE t RENAME TO u", "UPDATE u SET a = 'now'"),
    "rebuild with another index": (
        *rebuild(
            "t", "id INTEGER PRIMARY KEY, a TEXT, b INT", "id, upper(a), b + 1", "CREATE UNIQUE INDEX t_a ON t(a)"
        ),
    ),
    "rebuild, and rows of another table": (*rebuild("t", "id INTEGER PRIMARY KEY, a TEXT", "id, a"), "DELETE FROM k"),
    "a unique index whose rows changed places": (
        "UPDATE t SET b = 60 - b",
        "CREATE UNIQUE INDEX t_b ON t(b)",
    ),
}
PENDING = {
    "nothing pending": (),
    "rows pending": (
        "UPDATE t SET a = 'my 2' WHERE id = 2",
        "DELETE FROM t WHERE id = 3",
        "INSERT INTO t VALUES (20, 'mine', 200)",
        "UPDATE k SET m = 'mine'",
    ),
}
MODES = [
    *(pytest.param("all", what, id=f"{what}, all") for what in KINDS),
    *(pytest.param("additive", what, id=f"{what}, additive") for what in ADDITIONS),
]


def _pair(group: Group, mode: str) -> list[Member]:
    a, b = group.several(2, PAIRED, KEYED, apply_schema=mode)
    a.run("INSERT INTO t VALUES (1, 'x', 10), (2, 'y', 20), (3, 'z', 30)")
    a.run("INSERT INTO k VALUES ('a', 1, 'p'), ('b', 2, 'q')")
    group.settle()
    return [a, b]


def _migrate(member: Member, what: str) -> None:
    """Run the statements so that one change set has them all."""
    for sql in KINDS[what]:
        member.run(sql)
    assert member.send() >= 0


def _state(connection: apsw.Connection) -> tuple[object, ...]:
    """Return all that an application sees: objects, numbers and rows."""
    connection.execute("BEGIN")
    listed = rows(
        connection,
        "SELECT type, name, sql FROM sqlite_schema WHERE name NOT GLOB '__harmonylite__*' ORDER BY type, name",
    )
    tables = [name for kind, name, sql in listed if kind == "table" and sql.startswith("CREATE TABLE")]
    names = (f'"{name}"' for name in tables if not name.startswith("f_"))
    found = [sorted(rows(connection, f"SELECT * FROM {name}"), key=repr) for name in names]
    connection.execute("COMMIT")
    return listed, found, connection.pragma("user_version")


def _watched(member: Member, work: Callable[[], object]) -> list[object]:
    """Return every state of a member's file that another connection could see during ``work``, in their order."""
    seen: list[object] = []
    versions: list[object] = [None]
    with closing(apsw.Connection(str(member.options.database))) as other:

        def look(_: object = None) -> None:
            if (now := other.pragma("data_version")) != versions[-1]:
                versions.append(now)
                if (state := _state(other)) not in seen[-1:]:
                    seen.append(state)

        look()
        member.replica.connection.trace_v2(apsw.SQLITE_TRACE_STMT, look)
        work()
        member.replica.connection.trace_v2(0, None)
        look()
    return seen


@pytest.mark.parametrize("pending", PENDING)
@pytest.mark.parametrize(("mode", "what"), MODES)
def test_who_reads_at_another_node_sees_the_schema_with_its_rows_or_neither(
    group: Group, mode: str, what: str, pending: str
) -> None:
    a, b = _pair(group, mode)
    for sql in PENDING[pending]:
        b.run(sql)
    _migrate(a, what)
    seen = _watched(b, b.receive)
    assert len(seen) <= 2, "a state in between was to be seen"
    same(group)


@pytest.mark.parametrize("what", KINDS)
def test_its_own_change_that_comes_back_changes_nothing_that_is_to_be_seen(group: Group, what: str) -> None:
    a, _ = _pair(group, "all")
    _migrate(a, what)
    assert len(_watched(a, a.receive)) == 1
    same(group)


@pytest.mark.parametrize("pending", PENDING)
@pytest.mark.parametrize("what", KINDS)
def test_a_crash_between_the_commits_of_the_two_files_is_made_good(
    make_group: Callable[[int], Group], what: str, pending: str
) -> None:
    """The database has the schema and the rows, and its mirror neither."""
    group = make_group(3)
    a, b = _pair(group, "all")
    for sql in PENDING[pending]:
        b.run(sql)
    _migrate(a, what)
    mirror = b.options.mirror
    with closing(apsw.Connection("")) as before:
        with before.backup("main", b.replica.connection, "mirror") as copy:
            copy.step()
        b.receive()
        b.stop()
        for ending in ("-wal", "-shm"):
            mirror.with_name(mirror.name + ending).unlink(missing_ok=True)
        with closing(apsw.Connection(str(mirror))) as file, file.backup("main", before, "main") as copy:
            copy.step()
    b.start()
    merged = {shard: position.seq for shard, position in b.replica.merged_positions().items()}
    _read(b)
    while (batch := b.reassembler.take(limit=merged)) is not None:
        b.replica.apply(batch, merge=False)
        batch.close()
    same(group)


@pytest.mark.parametrize("what", KINDS)
def test_a_crash_before_the_commit_leaves_neither(group: Group, what: str) -> None:
    a, b = _pair(group, "all")
    before = _state(b.app)
    _migrate(a, what)
    b.replica.connection.set_commit_hook(lambda: True)
    with suppress(RowRefusedError):
        b.receive()
    b.stop()
    assert _state(b.app) == before
    b.start()
    same(group)


def _read(member: Member) -> None:
    member.reassembler = Reassembler(member.replica.positions())
    for shard in range(member.world.shards):
        for message in member.world.after(shard, member.reassembler.read_up_to(shard), 1_000_000):
            member.reassembler.add(message)


class _Failing:
    """Raises at the end of a transaction with a schema, when all is done but the commit."""

    def __init__(self, member: Member, error: Exception) -> None:
        self.member, self.error = member, error
        self.finish = member.replica._finish_schema

    def __call__(self) -> None:
        self.finish()
        raise self.error


@pytest.mark.parametrize(("mode", "what"), MODES)
def test_what_gives_way_has_changed_nothing_and_is_done_by_the_next_try(
    group: Group, monkeypatch: pytest.MonkeyPatch, mode: str, what: str
) -> None:
    a, b = _pair(group, mode)
    for sql in PENDING["rows pending"]:
        b.run(sql)
    b.capture()
    _migrate(a, what)
    if a.flight is None or not a.flight.section:
        return  # the schema is as it was: there are only rows
    before, tables = _state(b.app), b.replica.tables
    for error in (DatabaseBusyError("locked"), GiveWayError()):
        with monkeypatch.context() as patch:
            patch.setattr(b.replica, "_finish_schema", _Failing(b, error))
            with pytest.raises(type(error)):
                b.receive()
        assert _state(b.app) == before
        assert b.replica.tables is tables
        b.reassembler = Reassembler(b.replica.positions())
    b.publish()
    same(group)


def test_a_lock_of_the_application_is_waited_for_before_anything_is_changed(group: Group) -> None:
    a, b = _pair(group, "all")
    _migrate(a, "create and fill a table")
    b.replica.connection.set_busy_timeout(0)
    b.run("BEGIN IMMEDIATE")
    with pytest.raises(DatabaseBusyError):
        b.receive()
    b.run("COMMIT")
    b.reassembler = Reassembler(b.replica.positions())
    assert len(_watched(b, b.receive)) == 2
    same(group)


def test_rows_that_can_not_be_applied_wait_and_their_schema_is_there(
    group: Group, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = _pair(group, "all")
    _migrate(a, "create and fill a table")
    apply = b.replica._applying._apply

    def refused(*given: Any, **named: Any) -> Any:
        raise RowRefusedError("a row is refused")

    with monkeypatch.context() as patch:
        patch.setattr(b.replica._applying, "_apply", refused)
        with pytest.raises(RowRefusedError):
            b.receive()
    assert b.replica._applying._apply == apply
    assert b.rows("n") == []
    b.reassembler = Reassembler(b.replica.positions())
    same(group)
