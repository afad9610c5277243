"""Watermarks at a restart: rows that are above one, and pending for that reason alone, stay pending."""

from __future__ import annotations

from contextlib import closing

import pytest

from harmonylite.db.mirror.mirror_file import forget_noted
from harmonylite.db.sqlite.connection import open_file
from tests.parts.db.fix_replicas import Group

ANEW = {
    "replaced": ("INSERT OR REPLACE INTO k VALUES ('b', {})",),
    "deleted and inserted": ("DELETE FROM k WHERE id = 'b'", "INSERT INTO k VALUES ('b', {})"),
    "inserted as another one": ("INSERT INTO k VALUES ('c{0}', {0})", "INSERT OR REPLACE INTO k VALUES ('b', {0})"),
}
"""How a row gets another number."""


@pytest.mark.parametrize("migrated", ["CREATE TABLE another(id INTEGER PRIMARY KEY)", "ALTER TABLE k ADD COLUMN w", ""])
@pytest.mark.parametrize("anew", ANEW)
def test_a_row_with_another_number_is_not_undone_by_what_its_node_wrote_before(
    group: Group, anew: str, migrated: str
) -> None:
    """It was written to while a change set was under way, so the database may be older than its mirror."""
    tables = "CREATE TABLE k(id TEXT PRIMARY KEY NOT NULL, v INT)", "CREATE TABLE t(id INTEGER PRIMARY KEY)"
    a, b = group.several(2, *tables, apply_schema="all")
    a.run("INSERT INTO k VALUES ('a', 1), ('b', 1)")
    group.settle()
    a.replica.note()
    for value in (2, 3, 4):
        for sql in ANEW[anew]:
            a.run(sql.format(value))
        if value < 4:
            a.send()
        if value < 3:
            a.run("INSERT INTO t DEFAULT VALUES")
            a.receive()
    a.stop()
    with closing(open_file(a.options.mirror)) as mirror:
        forget_noted(mirror, "main")  # as after the node founded its cluster, or was cut off between two commits
    if migrated:
        a.run(migrated)
    a.start()
    a.receive()
    assert a.run("SELECT v FROM k WHERE id = 'b'") == [(4,)]
    group.settle()
    group.equal("k")
    assert b.run("SELECT v FROM k WHERE id = 'b'") == [(4,)]
