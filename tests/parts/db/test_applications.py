"""Applications as they are: their triggers, full-text indexes, foreign keys, hardened and old SQLite libraries."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import apsw
import pytest

from harmonylite.db.sqlite.introspection import TableRules
from tests.parts.db.fix_replicas import PAIRED, Group, Member

FTS = (
    "CREATE TABLE docs(id INTEGER PRIMARY KEY, body TEXT)",
    "CREATE VIRTUAL TABLE docs_fts USING fts5(body, content='docs', content_rowid='id')",
    "CREATE TRIGGER docs_ai AFTER INSERT ON docs BEGIN"
    " INSERT INTO docs_fts(rowid, body) VALUES (new.id, new.body); END",
    "CREATE TRIGGER docs_ad AFTER DELETE ON docs BEGIN"
    " INSERT INTO docs_fts(docs_fts, rowid, body) VALUES ('delete', old.id, old.body); END",
    "CREATE TRIGGER docs_au AFTER UPDATE ON docs BEGIN"
    " INSERT INTO docs_fts(docs_fts, rowid, body) VALUES ('delete', old.id, old.body);"
    " INSERT INTO docs_fts(rowid, body) VALUES (new.id, new.body); END",
)


def found(member: Member, word: str) -> list[int]:
    """Return the rows that the full-text index finds, after a look at its soundness."""
    member.run("INSERT INTO docs_fts(docs_fts, rank) VALUES ('integrity-check', 1)")
    return [row[0] for row in member.run("SELECT rowid FROM docs_fts WHERE docs_fts MATCH ? ORDER BY 1", (word,))]


def test_a_full_text_index_kept_by_triggers_is_right_on_every_node(group: Group) -> None:
    members = group.several(3, *FTS)
    a, b, _ = members
    a.run("INSERT INTO docs VALUES (1, 'red fox'), (2, 'blue fox'), (3, 'red bird')")
    group.settle()
    b.run("UPDATE docs SET body = 'blue bird' WHERE id = 3")
    a.run("DELETE FROM docs WHERE id = 2")
    group.equal("docs")
    for member in members:
        assert set(member.replica.tables) == {"docs"}
        assert (found(member, "red"), found(member, "blue"), found(member, "fox")) == ([1], [3], [1])


HERE_ALONE = {
    "before insert": "BEFORE INSERT ON docs WHEN norm(new.body) <> new.body BEGIN SELECT raise(ABORT, 'no'); END",
    "before update": "BEFORE UPDATE ON docs BEGIN SELECT raise(ABORT, 'no') WHERE norm(new.body) <> new.body; END",
    "delete": "AFTER DELETE ON docs WHEN norm(old.body) = '-' BEGIN SELECT raise(ABORT, 'no'); END",
    "a table": "AFTER INSERT ON docs BEGIN INSERT INTO words VALUES (norm(new.body)); END",
    "a collation": "AFTER UPDATE ON docs BEGIN DELETE FROM words WHERE word = new.body COLLATE german; END",
}
"""Triggers that only the application can run. It has a function and a collation that the node lacks."""


def unchanged(*values: Any) -> Any:
    """Return the one value: a function that the application has."""
    return values[0]


@pytest.mark.parametrize("trigger", HERE_ALONE.values(), ids=HERE_ALONE)
def test_a_trigger_that_this_node_cannot_run_keeps_no_other_from_running(group: Group, trigger: str) -> None:
    members = []
    for _ in range(2):
        member = group.member(*FTS, "CREATE TABLE words(word)", rules=TableRules(exclude=("words",)))
        member.app.create_scalar_function("norm", unchanged, 1, deterministic=True)
        member.app.create_collation("german", lambda one, other: (one > other) - (one < other))
        member.run(f"CREATE TRIGGER here_alone {trigger}")
        member.replica.reinstall()
        members.append(member)
    a, b = members
    a.run("INSERT INTO docs VALUES (1, 'red fox'), (2, 'blue fox')")
    group.settle()
    b.run("UPDATE docs SET body = 'blue bird' WHERE id = 2")
    group.equal("docs")
    for member in members:
        assert (found(member, "fox"), found(member, "bird")) == ([1], [2])
    warned = [text for name, text in b.replica.warnings.items() if name == "trigger here_alone"]
    if "words" in trigger:
        assert len(warned) == 1
        assert "does not run for rows of other nodes" in warned[0]
        assert "no such" in warned[0]
    else:
        assert warned == [], "it writes nothing, so nothing lacks what it would have written"


def test_a_trigger_that_writes_through_a_view_runs_on_every_node(group: Group) -> None:
    ddl = (
        *FTS[:2],
        "CREATE VIEW indexed AS SELECT id, body FROM docs",
        "CREATE TRIGGER docs_ai AFTER INSERT ON docs BEGIN INSERT INTO indexed VALUES (new.id, new.body); END",
        "CREATE TRIGGER indexed_ii INSTEAD OF INSERT ON indexed BEGIN"
        " INSERT INTO docs_fts(rowid, body) VALUES (new.id, new.body); END",
    )
    a, b = group.several(2, *ddl)
    a.run("INSERT INTO docs VALUES (1, 'red fox')")
    group.equal("docs")
    assert found(b, "fox") == [1]
    assert not b.replica.warnings


def test_a_trigger_whose_clause_would_be_overruled_is_named(group: Group) -> None:
    """findings/sqlite-or-abort-is-not-the-default.sh: a clause of the statement rules in its triggers too."""
    ddl = (
        "CREATE TABLE t(id INTEGER PRIMARY KEY, u UNIQUE ON CONFLICT IGNORE)",
        "CREATE TABLE seen(u UNIQUE)",
        "CREATE TRIGGER t_i AFTER INSERT ON t BEGIN INSERT OR IGNORE INTO seen VALUES (new.u % 2); END",
    )
    a, b = group.several(2, *ddl, rules=TableRules(exclude=("seen",)))
    a.run("INSERT INTO t VALUES (1, 1), (2, 2), (3, 3)")
    assert group.equal("t") == [(1, 1), (2, 2), (3, 3)]
    assert "it says OR in a statement of its own" in b.replica.warnings["trigger t_i"]
    c = group.member(*(each.replace(" ON CONFLICT IGNORE", "") for each in ddl), rules=TableRules(exclude=("seen",)))
    group.equal("t")
    assert c.run("SELECT u FROM seen ORDER BY u") == [(0,), (1,)]
    assert not c.replica.warnings


def test_an_rtree_does_not_keep_a_node_from_starting(group: Group) -> None:
    a, b = group.several(
        2, "CREATE TABLE places(id INTEGER PRIMARY KEY, name)", "CREATE VIRTUAL TABLE tree USING rtree(id, x0, x1)"
    )
    a.run("INSERT INTO places VALUES (1, 'here')")
    a.run("INSERT INTO tree VALUES (1, 0, 1)")
    assert group.equal("places") == [(1, "here")]
    assert set(b.replica.tables) == {"places"}


def test_triggers_that_write_replicated_tables_run_once_where_the_application_writes(group: Group) -> None:
    ddl = (
        "CREATE TABLE t(id INTEGER PRIMARY KEY, v)",
        "CREATE TABLE audit(id INTEGER PRIMARY KEY, what TEXT)",
        "CREATE TRIGGER t_i AFTER INSERT ON t BEGIN INSERT INTO audit(what) VALUES ('insert ' || new.id); END",
        "CREATE TRIGGER t_u AFTER UPDATE ON t BEGIN INSERT INTO audit(what) VALUES ('update ' || new.id); END",
    )
    a, _, _ = group.several(3, *ddl)
    a.run("INSERT INTO t VALUES (7, 'x')")
    group.settle()
    a.run("UPDATE t SET v = 'y'")
    assert group.equal("t", "audit") == [(1, "insert 7"), (2, "update 7")]


def test_a_trigger_that_another_one_fires_runs_on_every_node_too(group: Group) -> None:
    ddl = (
        "CREATE TABLE t(id INTEGER PRIMARY KEY, v)",
        "CREATE TABLE local_one(id, v)",
        "CREATE TABLE local_two(n)",
        "CREATE TRIGGER t_i AFTER INSERT ON t BEGIN INSERT INTO local_one VALUES (new.id, new.v); END",
        "CREATE TRIGGER one_i AFTER INSERT ON local_one BEGIN INSERT INTO local_two VALUES (new.id * 10); END",
        "CREATE TRIGGER one_d AFTER DELETE ON local_one BEGIN DELETE FROM local_two; END",
    )
    a, b = group.several(2, *ddl, rules=TableRules(exclude=("local_*",)))
    a.run("INSERT INTO t VALUES (7, 'x'), (8, 'y')")
    group.settle()
    for member in (a, b):
        assert member.run("SELECT * FROM local_two") == [(70,), (80,)]
        assert not member.replica.warnings


def test_a_trigger_that_another_one_fires_and_that_writes_both_kinds_is_named_in_a_warning(group: Group) -> None:
    ddl = (
        "CREATE TABLE t(id INTEGER PRIMARY KEY)",
        "CREATE TABLE local_one(id)",
        "CREATE TABLE local_two(id)",
        "CREATE TABLE seen(id INTEGER PRIMARY KEY)",
        "CREATE TRIGGER t_i AFTER INSERT ON t BEGIN INSERT INTO local_one VALUES (new.id); END",
        "CREATE TRIGGER one_i AFTER INSERT ON local_one BEGIN"
        " INSERT INTO local_two VALUES (new.id); INSERT INTO seen VALUES (new.id); END",
    )
    a, b = group.several(2, *ddl, rules=TableRules(exclude=("local_*",)))
    a.run("INSERT INTO t VALUES (7)")
    assert group.equal("seen") == [(7,)]
    assert b.run("SELECT * FROM local_one") == [(7,)]
    assert "it writes seen, which is replicated, and tables that are not" in b.replica.warnings["trigger one_i"]


def test_a_trigger_that_writes_both_kinds_of_tables_is_named_in_a_warning(group: Group) -> None:
    ddl = (
        "CREATE TABLE t(id INTEGER PRIMARY KEY)",
        "CREATE TABLE seen(id)",
        "CREATE TABLE mine(id)",
        "CREATE TRIGGER both AFTER INSERT ON t BEGIN INSERT INTO seen VALUES (1); INSERT INTO mine VALUES (1); END",
    )
    a = group.member(*ddl, rules=TableRules(exclude=("mine",)))
    assert a.replica.warnings["trigger both"] == (
        "trigger both of t does not run for rows of other nodes, so what it keeps (a search index, a sum) lacks them:"
        " it writes seen, which is replicated, and tables that are not"
    )


@pytest.mark.parametrize("on", ["DELETE", "UPDATE"])
def test_what_foreign_keys_cascade_to_happens_on_every_node(group: Group, on: str) -> None:
    a, b = group.several(
        2,
        "CREATE TABLE parent(id INTEGER PRIMARY KEY, v)",
        "CREATE TABLE child(id INTEGER PRIMARY KEY, p INT REFERENCES parent ON DELETE CASCADE ON UPDATE CASCADE)",
        "CREATE TABLE loose(id INTEGER PRIMARY KEY, p INT REFERENCES parent ON DELETE SET NULL ON UPDATE SET NULL)",
    )
    for member in (a, b):
        member.app.pragma("foreign_keys", 1)
    a.run("INSERT INTO parent VALUES (1, 'x'), (2, 'y')")
    b.receive()
    a.run("INSERT INTO child VALUES (10, 1), (20, 2)")
    a.run("INSERT INTO loose VALUES (10, 1), (20, 2)")
    group.settle()
    b.run("DELETE FROM parent WHERE id = 1" if on == "DELETE" else "UPDATE parent SET id = 5 WHERE id = 1")
    assert group.equal("parent", "child") == ([(20, 2)] if on == "DELETE" else [(10, 5), (20, 2)])
    assert group.equal("loose") == [(10, None), (20, 2)]
    for member in (a, b):
        assert member.run("PRAGMA foreign_key_check") == []


def harden(app: apsw.Connection) -> None:
    """Let the application's connection distrust its schema and defend itself."""
    app.pragma("trusted_schema", 0)
    app.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 1)
    app.config(apsw.SQLITE_DBCONFIG_DQS_DML, 0)
    app.config(apsw.SQLITE_DBCONFIG_DQS_DDL, 0)
    app.config(apsw.SQLITE_DBCONFIG_ENABLE_VIEW, 0)


def attached(app: apsw.Connection) -> None:
    """Nothing to do: the statement names the attached schema itself."""
    app.execute("ATTACH ':memory:' AS other")
    app.execute("CREATE TABLE other.t(id, v)")


@pytest.mark.parametrize("prepare", [harden, attached])
def test_hardened_and_attaching_applications_write_as_ever(group: Group, prepare: Callable[..., None]) -> None:
    a, _ = group.several(2, "CREATE TABLE t(id INTEGER PRIMARY KEY, u UNIQUE, v)")
    prepare(a.app)
    a.run("INSERT INTO main.t VALUES (1, 'u', 1), (2, 'w', 2)")
    a.run("INSERT OR REPLACE INTO main.t VALUES (3, 'u', 3)")
    a.run("UPDATE main.t SET id = id + 10, v = NULL WHERE id = 2")
    a.run("DELETE FROM main.t WHERE id = 3")
    assert group.equal("t") == [(12, "w", None)]


def test_a_database_that_is_attached_elsewhere_is_captured(group: Group) -> None:
    a, _ = group.several(2, "CREATE TABLE t(id INTEGER PRIMARY KEY, v)")
    other = apsw.Connection(":memory:")
    other.execute("ATTACH ? AS shop", (str(a.options.database),))
    other.execute("INSERT INTO shop.t VALUES (1, 'from outside')")
    other.execute("UPDATE shop.t SET v = v || '!'")
    other.close()
    assert group.equal("t") == [(1, "from outside!")]


@pytest.mark.parametrize("recursive", [0, 1])
def test_what_sqlite_tells_the_application_of_its_own_writes_is_not_bent(group: Group, recursive: int) -> None:
    a, _ = group.several(2, "CREATE TABLE t(id INTEGER PRIMARY KEY, u UNIQUE, v)")
    a.app.pragma("recursive_triggers", recursive)
    a.run("INSERT INTO t VALUES (10, 'a', 1), (20, 'b', 2), (30, 'c', 3)")
    group.settle()

    def told() -> tuple[int, int]:
        return a.app.last_insert_rowid(), a.app.changes()

    a.run("INSERT INTO t VALUES (5, 'd', 4)")
    assert told() == (5, 1)
    a.run("INSERT OR REPLACE INTO t VALUES (6, 'd', 5)")
    assert told() == (6, 1)
    a.run("UPDATE t SET v = v + 1, id = id + 1 WHERE id >= 20")
    assert told() == (6, 2)
    upsert = "INSERT INTO t VALUES (7, 'a', 0) ON CONFLICT(u) DO UPDATE SET v = v + excluded.id RETURNING id, v"
    assert a.run(upsert) == [(10, 8)]
    assert told() == (6, 1)
    a.run("DELETE FROM t WHERE id > 20")
    assert told() == (6, 2)
    with pytest.raises(apsw.ConstraintError):
        a.run("INSERT OR ROLLBACK INTO t VALUES (8, 'e', 0), (9, 'a', 0)")
    assert group.equal("t") == [(10, "a", 8), (6, "d", 5)]


OTHER_LIBRARY = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("PRAGMA foreign_keys = ON")
for sql in sys.argv[2:]:
    connection.execute(sql)
connection.close()
print(sqlite3.sqlite_version)
"""


def test_an_application_with_another_sqlite_library_writes_and_is_captured(group: Group) -> None:
    a, b = group.several(2, "CREATE TABLE t(id INTEGER PRIMARY KEY, u UNIQUE, v)")
    statements = [
        "INSERT INTO t VALUES (1, 'u', 'x'), (2, 'w', 'y')",
        "INSERT INTO t VALUES (1, 'z', 'x') ON CONFLICT(id) DO UPDATE SET v = 'upserted'",
        "INSERT OR REPLACE INTO t VALUES (3, 'w', 'replaced')",
        "ALTER TABLE t ADD COLUMN more",
        "UPDATE t SET more = 1 WHERE id = 1",
    ]
    command = [sys.executable, "-c", OTHER_LIBRARY, str(a.options.database), *statements]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    b.run("ALTER TABLE t ADD COLUMN more")
    assert group.equal("t") == [(1, "u", "upserted", 1), (3, "w", "replaced", None)]


def test_generated_columns_are_worked_out_on_every_node_and_not_sent(group: Group) -> None:
    a, b = group.several(
        2, "CREATE TABLE t(id INTEGER PRIMARY KEY, n INT, twice AS (n * 2) STORED, thrice INT AS (n * 3), u TEXT)"
    )
    a.run("INSERT INTO t(id, n, u) VALUES (1, 4, 'x')")
    group.settle()
    b.run("UPDATE t SET n = 5")
    assert group.equal("t") == [(1, 5, "x")]
    assert a.run("SELECT twice, thrice FROM t") == b.run("SELECT twice, thrice FROM t") == [(10, 15)]


def test_a_check_that_a_column_merge_breaks_does_not_stop_anything(group: Group) -> None:
    a, b = group.several(2, "CREATE TABLE t(id INTEGER PRIMARY KEY, low INT, high INT, CHECK (low < high))")
    a.run("INSERT INTO t VALUES (1, 3, 5)")
    group.settle()
    a.run("UPDATE t SET low = 4")
    b.run("UPDATE t SET high = 4")
    assert group.equal("t") == [(1, 4, 4)]


def test_tables_that_are_excluded_stay_where_they_are(group: Group) -> None:
    rules = TableRules(include=("*",), exclude=("cache_*",))
    a, b = group.several(
        2, "CREATE TABLE t(id INTEGER PRIMARY KEY)", "CREATE TABLE cache_x(id INTEGER PRIMARY KEY)", rules=rules
    )
    a.run("INSERT INTO cache_x VALUES (1)")
    a.run("INSERT INTO t VALUES (1)")
    group.equal("t")
    assert b.run("SELECT * FROM cache_x") == []


def test_a_table_that_is_decided_by_row_keeps_one_writers_row(group: Group) -> None:
    a, b = group.several(2, "CREATE TABLE t(id INTEGER PRIMARY KEY, x, y)", rules=TableRules(by_row=("t",)))
    a.run("INSERT INTO t VALUES (1, 0, 0)")
    group.settle()
    a.run("UPDATE t SET x = 'a'")
    b.run("UPDATE t SET y = 'b'")
    assert group.equal("t") == [(1, 0, "b")]
    assert ("x", "a", 0) in {(c.column, c.overruled, c.winning) for c in a.replica.conflicts()}


EARLY = {
    "an insert": (
        "AFTER INSERT ON T BEGIN SELECT raise (IGNORE) WHERE new.a = 'quiet'; SELECT 1; END",
        "INSERT INTO t VALUES (-5, 'quiet', 1), (5, 'quiet', 1)",
        "INSERT INTO t VALUES (-6, 'quiet', 1), (6, 'quiet', 1)",
    ),
    "an update": (
        "AFTER UPDATE ON t BEGIN SELECT RAISE(IGNORE) WHERE new.a IS old.a; SELECT 1; END",
        "UPDATE t SET b = b + 1",
        "UPDATE t SET b = b + 10",
    ),
    "a new key": (
        "AFTER UPDATE ON t BEGIN SELECT RAISE(IGNORE) WHERE new.a IS old.a; SELECT 1; END",
        "UPDATE t SET id = 9 WHERE id = 2",
        "UPDATE t SET id = 10 WHERE id = 9",
    ),
    "a delete": (
        "AFTER DELETE ON t WHEN old.a = 'quiet' BEGIN SELECT RAISE(IGNORE); END",
        "DELETE FROM t WHERE id = 1",
        "DELETE FROM t WHERE id = 2",
    ),
}
"""A trigger that ends early, and two statements that it hides from triggers that are older."""


@pytest.mark.parametrize("when", ["seen first", "written at once", "node stopped"])
@pytest.mark.parametrize("change", EARLY)
def test_a_newer_trigger_that_ignores_hides_no_change(group: Group, change: str, when: str) -> None:
    """findings/sqlite-early-return-skips-other-triggers.sh: the newest trigger keeps the older ones from running."""
    trigger, *statements = EARLY[change]
    a, _ = group.several(2, PAIRED)
    a.run("INSERT INTO t VALUES (1, 'quiet', 1), (2, 'quiet', 2), (3, 'loud', 3)")
    group.equal("t")
    if when == "node stopped":
        a.stop()
    a.run(f"CREATE TRIGGER early {trigger}")
    if when == "seen first":
        group.settle()
    for statement in statements:
        a.run(statement)
        if when == "node stopped" and statement is statements[0]:
            a.start()
        assert group.equal("t") == sorted(a.run("SELECT * FROM t"), key=repr)
