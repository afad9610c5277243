"""Renumbering: give the database's own rows the numbers that they have in the mirror, and update references.

Invariant: a renumbered row keeps its values and its log entry, and no row of another record moves with it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

import apsw

from harmonylite.db.apply import numbers
from harmonylite.db.capture import merge_base
from harmonylite.db.mirror.schema_history import Own
from harmonylite.db.sqlite.connection import rows
from harmonylite.db.tracking.change_log import ChangeLog
from harmonylite.db.tracking.tracked_table import TrackedTable
from harmonylite.schema.sql import PRIVATE, quote

PAIRS = f"temp.{quote(PRIVATE + 'renumbered')}"
"""Old and new numbers of one table's rows, and an unused one, for rows that swap numbers."""


def settle_own(connection: apsw.Connection, log: ChangeLog, tables: Mapping[str, TrackedTable], own: Own) -> None:
    """Apply to the database what the fold of this node's own change sets decided: the numbers of rows, and what the
    writer last saw. The transaction writes the database, and the merge follows.
    """
    moved: dict[str, dict[int, int]] = {}
    for fragment in own.fragments:
        for name, numbered in own.named.moved.get(fragment.id, {}).items():
            moved.setdefault(name, {}).update(numbered)
    for table in _in_order(tables.values()) if moved else ():
        if pairs := moved.get(table.shape.name):
            _settle(connection, log, tables, table, pairs)
    if moved:
        log.refresh({table.id: table for table in tables.values()}, above=False)
    if own.fragments and merge_base.any_there(connection):
        merge_base.lay_over(connection, own)


def find_again(
    connection: apsw.Connection, log: ChangeLog, tables: Mapping[str, TrackedTable], known: Collection[str], own: Own
) -> None:
    """Renumber pending records that a newer mirror has under other numbers, and update references.

    Otherwise such a record would be published again, under a number that another one has in the mirror.
    ``known``: the tables that ``base`` has.
    """
    for table in _in_order(tables[name] for name in known):
        if table.logged and (pairs := numbers.of_new_rows(connection, table)):
            _settle(connection, log, tables, table, pairs)
            for fragment in own.fragments:
                own.named.moved.setdefault(fragment.id, {})[table.shape.name] = pairs
            log.refresh({table.id: table for table in tables.values()}, above=False)


def join(
    connection: apsw.Connection, log: ChangeLog, tables: Mapping[str, TrackedTable], joining: Iterable[TrackedTable]
) -> None:
    """Renumber rows of ``joining``, which were never merged, so that both files' rows have a number."""
    for table in _in_order(joining):
        if pairs := numbers.of_database(connection, table):
            _pair(connection, pairs)
            log.drop(table, f"x.k0 IN (SELECT old FROM {PAIRS})")
            for child, column in _children(tables, table):
                connection.execute(_refer(child, column))
            _move(connection, table)
            log.watermarks.raise_all([table])  # a row that got a higher number is not new


def _in_order(tables: Iterable[TrackedTable]) -> list[TrackedTable]:
    return sorted((table for table in tables if table.shape.identity), key=lambda table: table.shape.rank)


def _settle(
    connection: apsw.Connection,
    log: ChangeLog,
    tables: Mapping[str, TrackedTable],
    table: TrackedTable,
    pairs: Mapping[int, int],
) -> None:
    """Renumber the rows of one table whose number differs from the mirror's."""
    _pair(connection, pairs)
    _make_room(connection, table)
    shape, logged = table.shape, table.scratch("logged")
    key, there = shape.read(shape.keys[0], "d"), shape.read(shape.keys[0], "m")
    own = [f"d.{quote(name)}" for name in shape.identity]
    # If the writer deleted its row meanwhile, or after a crash, the mirror's record has its number already.
    connection.execute(
        f"UPDATE {PAIRS} SET stays = 1 WHERE old IN (SELECT {key} FROM {table.main} AS d CROSS JOIN {table.mirror} AS m"
        f" ON {there} = {key} WHERE {key} IN (SELECT old FROM {PAIRS}) AND {numbers.same_record(table, 'm', own)})"
    )
    for child, column in _children(tables, table):
        _follow(connection, log, child, column)
    _move(connection, table)
    known = f"p.aside IS NOT NULL OR p.new NOT IN (SELECT {key} FROM {table.main} AS d)"
    moved = f"FROM {PAIRS} AS p CROSS JOIN {logged} AS l ON l.k0 = p.old WHERE {known}"
    found = rows(connection, f"SELECT p.old, p.new, l.id {moved}")
    log.append(table, f"SELECT p.new {moved}")
    log.drop(table, f"x.k0 IN (SELECT p.old {moved})")
    connection.executemany(f"INSERT OR REPLACE INTO {logged}(k0, id) VALUES (?, ?)", [(new, n) for _, new, n in found])
    table.logged += len(found)
    merge_base.forget(connection, table, [[old] for old, _, _ in found])


def _pair(connection: apsw.Connection, pairs: Mapping[int, int]) -> None:
    """Store ``pairs``. ``stays``: the row under the old number is another record, and keeps it."""
    connection.execute(f"CREATE TABLE IF NOT EXISTS {PAIRS}(old INTEGER PRIMARY KEY, new UNIQUE, aside, stays)")
    connection.execute(f"DELETE FROM {PAIRS}")
    connection.executemany(f"INSERT OR IGNORE INTO {PAIRS}(old, new, stays) VALUES (?, ?, 0)", pairs.items())


def _make_room(connection: apsw.Connection, table: TrackedTable) -> None:
    """Renumber rows that were inserted here meanwhile under a number that the mirror has for another record."""
    shape = table.shape
    key, there = shape.read(shape.keys[0], "d"), shape.read(shape.keys[0], "m")
    own = [f"d.{quote(name)}" for name in shape.identity]
    record = f"SELECT 1 FROM {table.mirror} AS m WHERE {there} = {key} AND {numbers.same_record(table, 'm', own)}"
    new = f"SELECT new FROM {PAIRS} WHERE new NOT IN (SELECT old FROM {PAIRS})"
    written = f"{key} IN ({new}) AND EXISTS (SELECT 1 FROM {table.scratch('logged')} AS l WHERE l.k0 = {key})"
    sitting = f"SELECT {key} FROM {table.main} AS d WHERE {written} AND NOT EXISTS ({record})"
    top = (
        f"SELECT max((SELECT ifnull(max({key}), 0) FROM {table.main} AS d),"
        f" (SELECT ifnull(max({there}), 0) FROM {table.mirror} AS m), (SELECT max(new) FROM {PAIRS}))"
    )
    connection.execute(
        f"INSERT INTO {PAIRS}(old, new, stays) SELECT n.k, ({top}) + row_number() OVER (ORDER BY n.k), 0"
        f" FROM ({sitting.replace(key, f'{key} AS k', 1)}) AS n"
    )


def _move(connection: apsw.Connection, table: TrackedTable) -> None:
    """Renumber the rows, including those that swap numbers. A row gives way to the same record from another node."""
    key = quote(table.shape.rowid if table.shape.keys[0].pseudo else table.shape.keys[0].name)
    lowest = f"SELECT min(0, ifnull(min({key}), 0)) FROM {table.main}"
    moving = f"NOT p.stays AND p.old IN (SELECT {key} FROM {table.main})"
    numbered = f"SELECT p.old, row_number() OVER (ORDER BY p.old) AS n FROM {PAIRS} AS p WHERE {moving}"
    connection.execute(f"UPDATE {PAIRS} AS p SET aside = ({lowest}) - n.n FROM ({numbered}) AS n WHERE n.old = p.old")
    going = f"FROM {PAIRS} AS p WHERE p.aside IS NOT NULL"
    for source, target in (("old", "aside"), ("aside", "new")):
        if target == "new":
            connection.execute(f"DELETE FROM {table.main} WHERE {key} IN (SELECT p.new {going})")
        connection.execute(
            f"{table.update_verb} {table.main} AS d SET {key} = p.{target} {going} AND d.{key} = p.{source}"
        )


def _children(tables: Mapping[str, TrackedTable], table: TrackedTable) -> Sequence[tuple[TrackedTable, str]]:
    """Return the tables and columns that refer to numbers of ``table``."""
    name = table.shape.name
    return [(child, column) for child in tables.values() for column, to in child.shape.refers if to == name]


def _refer(child: TrackedTable, column: str) -> str:
    """Return the statement that updates all references."""
    new = f"(SELECT p.new FROM {PAIRS} AS p WHERE p.old = d.{quote(column)})"
    return (
        f"UPDATE OR IGNORE {child.main} AS d SET {quote(column)} = {new}"
        f" WHERE d.{quote(column)} IN (SELECT old FROM {PAIRS} WHERE NOT stays)"
    )


def _follow(connection: apsw.Connection, log: ChangeLog, child: TrackedTable, column: str) -> None:
    """Update references that were written here and are not published; all others come from the mirror."""
    shape = child.shape
    logged = f"EXISTS (SELECT 1 FROM {child.scratch('logged')} AS x WHERE {shape.same('d', 'x')})"
    published = (
        f"SELECT 1 FROM {child.mirror} AS m WHERE {shape.same_row('m', 'd')} AND m.{quote(column)} = d.{quote(column)}"
    )
    connection.execute(f"{_refer(child, column)} AND {logged} AND NOT EXISTS ({published})")
    if shape.column(column).key >= 0:  # the log names them by their former key
        log.append(
            child,
            f"SELECT {shape.read_key('d')} FROM {child.main} AS d WHERE d.{quote(column)} IN (SELECT new FROM {PAIRS})",
        )
