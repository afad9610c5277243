"""Check whether the database holds what its mirror assumes, although the database has not noted it.

A change set of this node that comes back moves the mirror alone, for its rows are in the database already. After a
power cut, or where a backup was put back, they need not be.

Invariant: each row of such a change set is as in the mirror, or was logged after it, or the whole database is compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import apsw

from harmonylite.changes.reassembler import Fragment
from harmonylite.db.mirror import mirror_file
from harmonylite.db.mirror.conflict_journal import recent_behind
from harmonylite.db.mirror.positions import database_lineage, is_older
from harmonylite.db.mirror.schema_history import Named, Own
from harmonylite.db.sqlite.connection import value
from harmonylite.db.sqlite.lossless import insert_rows
from harmonylite.db.tracking.change_log import ChangeLog
from harmonylite.db.tracking.installed import Installed
from harmonylite.db.tracking.tracked_table import TrackedTable
from harmonylite.db.tracking.triggers import HELD
from harmonylite.model import Position
from harmonylite.schema.shape import any_differs
from harmonylite.schema.sql import quote
from harmonylite.wire import TableBlock, Updates


def lacks_own(
    connection: apsw.Connection, installed: Installed, log: ChangeLog, node: str, *, newest: bool = False
) -> bool:
    """Return whether rows that ``node`` published, and that the database does not say it has, are not in it.

    True, too, where that is unknown: they were too many to be kept. ``newest``: ask for the last change set alone,
    which no earlier state of the file has. Runs in a transaction of the caller's.
    """
    noted = mirror_file.positions(connection, "main")
    seqs = {
        s: noted.get(s, Position(s)).seq for s, p in database_lineage(connection).positions.items() if p != noted.get(s)
    }
    fragments = recent_behind(connection, node, seqs, 1 if newest else -1)
    if not fragments:
        return False
    upto = mirror_file.settled(connection)
    # Any row above a watermark may have been written by now; after a restart that decides nothing.
    if log.refresh(installed.by_id, above=newest) < upto:
        return True
    if not all(fragment.blocks for fragment in fragments):
        return not newest
    # Until the node is restarted, what is not pending any more is not logged any more.
    since = -1 if newest else upto
    own = Own(Named(connection, installed.tables, installed.numbers, installed.names), fragments)
    asked = {table.id: table for table, part in own if _ask(connection, table, part)}
    missing = [value(connection, _missing(table), (since,)) is not None for table in asked.values()]
    for table in asked.values():
        table.empty("touched")
    return any(missing)


def settled_at_start(connection: apsw.Connection, *, lacks: bool) -> int:
    """Return up to which id of the log nothing is pending, as the mirror knows; ``lacks``: what `lacks_own` found."""
    if lacks:
        mirror_file.forget_noted(connection)
    if lacks or is_older(connection):
        return 0
    return mirror_file.settled(connection)


def unname_landed(
    connection: apsw.Connection, installed: Installed, log: ChangeLog, fragments: Sequence[Fragment]
) -> None:
    """Take logged rows for not pending that look as ``fragments``, which this node published, found or left them: the
    database went back to a time when its log still named them. Runs in a transaction of the caller's.
    """
    named = Named(connection, installed.tables, installed.numbers, installed.names)
    own = [(table, part) for table, part in Own(named, fragments) if table.logged]
    for table, part in own:
        if list(table.shape.names) != part.columns or part.keys != len(table.shape.keys):
            continue
        columns, width = table.column_list, len(part.columns)
        images = [
            *part.deletes,
            *part.inserts,
            *(row for group in part.updates for row in (*group.rows, *_found(group))),
        ]
        insert_rows(connection, f"INSERT INTO {table.scratch('image')}({columns})", width, images)
        gone = [row[: part.keys] for row in (*part.deletes, *part.inserts)]
        insert_rows(connection, f"INSERT OR IGNORE INTO {table.scratch('touched')}({table.key_list})", part.keys, gone)
    for table in {table.id: table for table, _ in own}.values():
        shape = table.shape
        there = f"SELECT 1 FROM {table.main} AS d WHERE {shape.same('d', 'x')}"
        deleted = f"SELECT 1 FROM {table.scratch('touched')} AS t WHERE {table.keys_equal('t.k', 'x.k')}"
        log.drop(
            table,
            f"EXISTS ({there} AND {table.as_captured('d')}) OR (NOT EXISTS ({there}) AND EXISTS ({deleted}))",
        )
        for kind in ("image", "touched"):
            table.empty(kind)


def _found(group: Updates) -> list[list[Any]]:
    """Return rows as their writer last saw them before it updated them."""
    found = []
    for row, old in zip(group.rows, group.old, strict=True):
        before = dict(zip(group.changed, old, strict=True))
        found.append([before.get(i, value) for i, value in enumerate(row)])
    return found


def _ask(connection: apsw.Connection, table: TrackedTable, part: TableBlock) -> bool:
    """Put the keys of ``part`` among the touched ones; False: they are not what keys of ``table`` are now, or its
    triggers don't see all that becomes of its rows.
    """
    if list(table.shape.names[: part.keys]) != part.columns[: part.keys] or part.keys != len(table.shape.keys):
        return False
    if table.shape.blind:
        return False
    images = [*part.deletes, *part.inserts, *(row for group in part.updates for row in group.rows)]
    into = f"INSERT OR IGNORE INTO {table.scratch('touched')}({table.key_list})"
    insert_rows(connection, into, part.keys, [row[: part.keys] for row in images])
    return True


def _missing(table: TrackedTable) -> str:
    """Return the statement that finds a touched row that differs, and that is neither logged above an id nor held."""
    shape = table.shape
    logged = f"SELECT 1 FROM {table.scratch('logged')} AS l WHERE {table.keys_equal('l.k', 'x.k')} AND l.id > ?"
    held = " AND ".join(f"h.k{i} IS x.k{i}" for i in range(len(shape.keys)))
    here, there = (
        f"EXISTS (SELECT 1 FROM {place} AS {alias} WHERE {shape.same(alias, 'x')})"
        for place, alias in ((table.main, "d"), (table.mirror, "m"))
    )
    columns = [shape.columns[i] for i in shape.compared]
    other = any_differs((c, shape.read(c, "d"), shape.read(c, "m")) for c in columns)
    differs = (
        f"EXISTS (SELECT 1 FROM {table.main} AS d CROSS JOIN {table.mirror} AS m ON {shape.same('m', 'x')}"
        f" WHERE {shape.same('d', 'x')} AND ({other}))"
    )
    return (
        f"SELECT 1 FROM {table.scratch('touched')} AS x WHERE NOT EXISTS ({logged})"
        f" AND NOT EXISTS (SELECT 1 FROM main.{quote(HELD)} AS h WHERE h.t = {table.id} AND {held})"
        f" AND ({here} IS NOT {there} OR {differs}) LIMIT 1"
    )
