"""What an application that looks behind SQL sees of a node: as the table in docs/operating.md says."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing

import apsw
import pytest

from harmonylite.schema.sql import PRIVATE
from tests.parts.db.fix_replicas import Group, Member

LOG = "__harmonylite__log"
INSERT = ("INSERT INTO t VALUES (9, 'new')", 1, 9)
STATEMENTS = [("UPDATE t SET v = 'x' WHERE id <= 2", 2, 0), INSERT, ("DELETE FROM t WHERE id = 1", 1, 9)]
"""What an application does, the rows that it changes, and its last rowid after all up to there."""


@pytest.fixture
def member(group: Group) -> Member:
    """Return a node whose file has three rows, which another node has, too."""
    a, _ = group.several(
        2, "CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT)", "INSERT INTO t VALUES (1, ''), (2, ''), (3, '')"
    )
    group.settle()
    return a


def opened(member: Member) -> closing[apsw.Connection]:
    """Return one more connection of the application's."""
    return closing(apsw.Connection(str(member.options.database)))


def test_the_counts_of_a_statement_are_its_own(member: Member) -> None:
    with opened(member) as app:
        in_all = 0
        for sql, changed, rowid in STATEMENTS:
            app.execute(sql)
            in_all += changed
            assert (app.changes(), app.last_insert_rowid()) == (changed, rowid), sql
        assert app.total_changes() > in_all, "total_changes() counts what triggers write"


def test_an_update_hook_is_told_of_the_log_and_of_nothing_that_is_merged(group: Group, member: Member) -> None:
    with opened(member) as app:
        tables: list[str] = []
        app.set_update_hook(lambda _kind, _database, table, _rowid: tables.append(table))
        for sql, *_ in STATEMENTS:
            app.execute(sql)
        assert [name for name in tables if not name.startswith(PRIVATE)] == ["t"] * 4
        assert set(tables) == {"t", LOG}
        tables.clear()
        before = app.pragma("data_version")
        group.members[1].run("INSERT INTO t VALUES (20, 'from elsewhere')")
        group.settle()
        assert app.execute("SELECT v FROM t WHERE id = 20").fetchall() == [("from elsewhere",)]
        assert not tables
        assert app.pragma("data_version") != before


def of_all(session: apsw.Session) -> None:
    session.attach()


def by_name(session: apsw.Session) -> None:
    session.attach("t")


def filtered(session: apsw.Session) -> None:
    session.table_filter(lambda table: not table.startswith(PRIVATE))


@pytest.mark.parametrize(("attach", "others"), [(of_all, {LOG}), (by_name, set()), (filtered, set())])
def test_a_session_that_is_attached_to_all_tables_records_the_log(
    member: Member, attach: Callable[[apsw.Session], None], others: set[str]
) -> None:
    with opened(member) as app:
        session = apsw.Session(app, "main")
        attach(session)
        for sql, *_ in STATEMENTS:
            app.execute(sql)
        recorded = {change.name for change in apsw.Changeset.iter(session.changeset())}
        session.close()
        assert recorded == {"t"} | others


def test_an_authorizer_needs_to_allow_what_our_triggers_do_and_nothing_more(member: Member) -> None:
    with opened(member) as app:

        def only_its_own(code: int, table: str | None, _: str | None, __: str | None, trigger: str | None) -> int:
            private = bool(table) and str(table).startswith(PRIVATE)
            return (
                apsw.SQLITE_DENY if private and not (ours and (trigger or "").startswith(PRIVATE)) else apsw.SQLITE_OK
            )

        app.authorizer = only_its_own
        ours = False
        for sql, *_ in STATEMENTS:
            with pytest.raises(apsw.AuthError):
                app.execute(sql)
        ours = True
        for sql, *_ in STATEMENTS:
            app.execute(sql)
        with pytest.raises(apsw.AuthError):
            app.execute(f"DELETE FROM {LOG}")
        app.authorizer = None


def test_without_triggers_nothing_is_logged_and_at_depth_0_nothing_is_written(member: Member) -> None:
    with opened(member) as app:
        app.config(apsw.SQLITE_DBCONFIG_ENABLE_TRIGGER, 0)
        app.execute("UPDATE t SET v = 'unseen' WHERE id = 1")
        assert member.send() == 0
        app.config(apsw.SQLITE_DBCONFIG_ENABLE_TRIGGER, 1)
        app.limit(apsw.SQLITE_LIMIT_TRIGGER_DEPTH, 0)
        with pytest.raises(apsw.SQLError, match="nested too deep"):
            app.execute("UPDATE t SET v = 'refused' WHERE id = 2")
        app.limit(apsw.SQLITE_LIMIT_TRIGGER_DEPTH, 1)
        app.execute("UPDATE t SET v = 'seen' WHERE id = 2")
        assert member.send() == 1
