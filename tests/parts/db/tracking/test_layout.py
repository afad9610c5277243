"""Our own tables have the columns that this version needs, whichever version made them, and keep their values."""

from __future__ import annotations

from collections.abc import Mapping

import apsw
import pytest

from harmonylite.db.mirror import mirror_file
from harmonylite.db.sqlite.connection import rows
from harmonylite.db.tracking import column_ids, layout
from harmonylite.db.tracking.triggers import WAITING, private_tables
from harmonylite.schema.sql import PRIVATE, quote
from tests.parts.db.fix_replicas import PAIRED, Group

EARLIER = {
    "the captured schema": ("schema", "type, name, tbl, sql, id"),
    "a change that waits": (
        "waiting",
        "id INTEGER PRIMARY KEY, node TEXT, why TEXT, kind TEXT, name TEXT, tbl, old, new",
    ),
}
"""Tables of the application's file as versions before this one made them."""


def columns(connection: apsw.Connection, table: str) -> set[str]:
    """Return the columns of a table whose name is quoted."""
    return {name for (name,) in rows(connection, "SELECT name FROM pragma_table_info(?)", (table[1:-1],))}


@pytest.mark.parametrize(
    "tables", [private_tables(3) | column_ids.LAYOUT, mirror_file.LAYOUT], ids=["database", "mirror"]
)
def test_each_column_that_a_table_of_ours_may_lack_is_added(tables: Mapping[str, str]) -> None:
    wanted = apsw.Connection(":memory:")
    assert layout.make(wanted, "main", tables) == tables.keys()
    lacked = 0
    for table in tables:
        listed = rows(wanted, "SELECT name FROM pragma_table_info(?) WHERE pk = 0", (table[1:-1],))
        for (column,) in listed:
            older = apsw.Connection(":memory:")
            layout.make(older, "main", tables)
            older.execute(f"ALTER TABLE {table} DROP COLUMN {quote(column)}")
            assert layout.make(older, "main", tables) == set()
            assert all(columns(older, each) == columns(wanted, each) for each in tables), (table, column)
            lacked += 1
    assert lacked > len(tables)


@pytest.mark.parametrize("earlier", EARLIER)
def test_a_file_with_a_table_of_an_earlier_version_is_opened_and_replicates(group: Group, earlier: str) -> None:
    a, b = group.several(2, PAIRED, apply_schema="all")
    a.run("INSERT INTO t VALUES (1, 'x', 10)")
    group.settle()
    b.stop()
    table, made = EARLIER[earlier]
    name = quote(PRIVATE + table)
    kept = [column for column in columns(b.app, name) if f" {column}" in f" {made}"]
    listed = ", ".join(kept)
    b.run('DROP VIEW IF EXISTS "__harmonylite__status"')
    b.run(f"CREATE TABLE other({made}); INSERT INTO other({listed}) SELECT {listed} FROM {name}")
    b.run(f"DROP TABLE {name}; ALTER TABLE other RENAME TO {name}")
    b.start()
    a.run("UPDATE t SET a = 'of a' WHERE id = 1")
    b.run("INSERT INTO t VALUES (4, 'of b', 40); ALTER TABLE t ADD COLUMN c")
    assert group.equal("t")[0] == (1, "of a", 10, None)


def test_what_an_earlier_version_let_wait_waits_still(group: Group) -> None:
    _, b = group.pair()
    b.stop()
    b.run(f"DROP TABLE {WAITING}; CREATE TABLE {WAITING}({EARLIER['a change that waits'][1]})")
    waits = ("x", "it can't be made", "index", "t_a", "t", None, "CREATE UNIQUE INDEX t_a ON t(a)")
    b.run(f"INSERT INTO {WAITING}(node, why, kind, name, tbl, old, new) VALUES (?, ?, ?, ?, ?, ?, ?)", waits)
    b.start()
    (found,) = b.replica.waiting_schema()
    assert (found.ddl, found.node, found.why) == (waits[-1], "x", "it can't be made")
