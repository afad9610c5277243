"""Which tables and columns of the stream's schema the database's are.

Invariant: what a table or a column of the file was known as, it is known as under any name; what nothing is known of
is new, and its application's.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace

import apsw

from harmonylite.db.mirror import mirror_file, table_moves, table_shapes
from harmonylite.db.mirror.by_hand import ByHand
from harmonylite.db.mirror.state import get_state
from harmonylite.db.mirror.stream_schema import has_catalog, read_catalog, write_catalog
from harmonylite.db.sqlite.connection import rows
from harmonylite.db.sqlite.introspection import Inventory
from harmonylite.db.tracking import column_ids
from harmonylite.db.tracking.captured_schema import captured_schema, has_captured, write
from harmonylite.db.tracking.column_ids import Columns
from harmonylite.db.tracking.triggers import trigger_tables
from harmonylite.schema.catalog import identified, tables_of
from harmonylite.schema.columns import columns_of
from harmonylite.schema.names import folded
from harmonylite.schema.section import GONE, Known
from harmonylite.schema.table_text import without


def begin(
    connection: apsw.Connection,
    now: Sequence[Known],
    captured: Sequence[Known],
    columns: dict[int, Columns],
    *,
    joined: bool,
) -> list[Known]:
    """Begin to know identities where a file or its mirror knows none yet; the transaction writes both.

    The first node of all gives them by names; so does one whose files an earlier version left. One that until now took
    additions alone finds them by what became of names. ``now``: the schema of the file, which counts as captured where
    nothing does; ``columns``: those of tables, by number, which change with it. Return what counts as captured.
    """
    known = list(now) if not joined or not captured else captured
    begin_catalog(connection, known, joined=joined)
    catalog = read_catalog(connection)
    if joined and captured and not any(k.id for k in captured):
        by_hand = ByHand(connection, captured, {k.key: k for k in now}, catalog)
        known = by_hand.base()
        for number, ids in by_hand.ids.items():
            here = columns.get(number, {})
            here.update({name: replace(column, id=ids.get(name, "")) for name, column in here.items()})
    kept = [tied_by_name(k, catalog) for k in known if joined or k.key in catalog]
    tied = [k for k in kept if k is not None]
    write(connection, tied, captured)
    by_number = {k.number: k for k in tied if k.id and k.number}
    stream = tables_of(catalog.values())
    for table in (k for k in now if k.kind == "table" and k.number in columns):
        here, base = columns[table.number], by_number.get(table.number)
        valid = set() if base is None else {id_ for _, id_ in (*base.columns, *_columns_of(stream.get(base.id)))}
        for name, column in here.items():
            if column.id not in valid:
                here[name] = replace(column, id="")
        if base is not None and not any(column.id for column in here.values()):
            _tie_columns(base, here)
    named = {k.name: columns[k.number] for k in now if k.kind == "table" and k.number in columns}
    column_ids.write_all(connection, "mirror", named)
    return tied


def _columns_of(known: Known | None) -> tuple[tuple[str, str], ...]:
    return () if known is None else known.columns


def begin_catalog(connection: apsw.Connection, known: Sequence[Known], *, joined: bool) -> None:
    """Let ``known`` be the stream's schema where a mirror knows none, or its node is alone with it."""
    alone = not joined and not get_state(connection, "mirror", "whole")
    if known and (alone or not has_catalog(connection)):
        write_catalog(connection, [identified(k, f"={folded(k.name)}") for k in known])


def keep_none(connection: apsw.Connection, *, joined: bool) -> None:
    """Know the stream's schema, and of no table of the database which one of that it is; the transaction writes both.

    Where additions alone travel, no merge keeps that up to date while a person migrates.
    """
    begin_catalog(connection, captured_schema(connection), joined=joined)
    column_ids.forget_all(connection)


def tied_by_name(known: Known, catalog: Mapping[tuple[str, str], Known]) -> Known | None:
    """Return an object with the identity that the stream knows under its name, None where it knows none."""
    if known.kind != "table" or known.id or not columns_of(known.sql):
        return known
    there = catalog.get(known.key)
    if there is None or there.kind != "table":
        return None
    here = columns_of(known.sql)
    tied = replace(known, id=there.id, columns=tuple((name, id_) for name, id_ in there.columns if name in here))
    return without_columns(tied, here.keys() - dict(tied.columns).keys())


def without_columns(known: Known, names: Collection[str]) -> Known:
    """Return a table without some of its columns (folded)."""
    left = tuple((name, id_) for name, id_ in known.columns if name not in names)
    return replace(known, sql=without(known.sql, names) if names else known.sql, columns=left)


def _tie_columns(table: Known, columns: Columns) -> None:
    for name, id_ in table.columns:
        if name in columns:
            columns[name] = replace(columns[name], id=id_)


def retie(connection: apsw.Connection, live: Mapping[str, int]) -> list[Known]:
    """Let a table that a migration made once more be the one that had its name; ``live``: numbers, by name.

    Where the file has none of its name, it is gone, and one that gets the name later is another one. Return what counts
    as captured.
    """
    captured = captured_schema(connection)
    there, known = set(live.values()), {k.number for k in captured if k.number}
    named = {folded(name): number for name, number in live.items()}
    merged = {old: named[name] for name, old in table_moves.rebuilt(connection).items() if name in named}
    named = {name: number for name, number in named.items() if number not in merged.values()}
    names = {folded(name) for (name,) in rows(connection, "SELECT name FROM main.sqlite_schema WHERE type = 'table'")}
    kept = []
    for each in captured:
        number = merged.get(each.number) or named.get(folded(each.name), 0)
        if each.kind == "table" and each.id and each.number != GONE and each.number not in there:
            if number and number not in known:
                each = replace(each, number=number)
            elif each.number and folded(each.name) not in names:
                each = replace(each, number=GONE)
        kept.append(each)
    write(connection, kept, captured)
    table_moves.forget_rebuilt(connection)
    return kept


def number_of(connection: apsw.Connection, name: str, number: int | None, live: Collection[int]) -> int:
    """Return the number under which the columns of a table are known; ``number``: that of its triggers."""
    if number is not None:
        return number
    merged = table_moves.rebuilt(connection)
    if folded(name) in merged:
        return merged[folded(name)]
    live = {*live, *merged.values()}
    same = (k for k in captured_schema(connection, "table") if folded(k.name) == folded(name))
    return next((k.number for k in same if k.number not in live and k.number != GONE), 0)


def tie_mirrors(connection: apsw.Connection, numbers: Mapping[str, int], captured: Iterable[Known]) -> None:
    """Write down which of the stream's tables those of the mirror are; ``numbers``: the database's, by name."""
    known = {k.number: k.id for k in captured if k.kind == "table"}
    column_ids.set_tables(connection, {name: known.get(number, "") for name, number in numbers.items()})


def carried(connection: apsw.Connection, numbers: Mapping[str, int | None]) -> dict[str, int | None]:
    """Return the numbers of tables with those of tables that a merge rebuilt, which have no triggers yet."""
    if not has_captured(connection):
        return dict(numbers)
    live = {number for number in numbers.values() if number is not None}
    return {name: number_of(connection, name, number, live) or None for name, number in numbers.items()}


def find_mirrors(connection: apsw.Connection) -> None:
    """Know the tables of a mirror that another node made by their identity: they may have other names there."""
    if not has_captured(connection):
        return
    numbers = {k.id: k.number for k in captured_schema(connection, "table") if k.id and k.number}
    live = trigger_tables(connection)
    for name, number in mirror_file.table_ids(connection).items():
        id_ = column_ids.table_of(connection, name) if number is None else ""
        if id_ and numbers.get(id_) in live:
            mirror_file.set_table_id(connection, name, numbers[id_])


def find_columns(
    connection: apsw.Connection,
    inventory: Inventory,
    numbers: Mapping[str, int | None],
    seen: Mapping[str, Columns],
    *,
    joined: bool,
) -> dict[str, Columns]:
    """Return the columns of the database's tables, by name. ``seen``: what was found last, newer than what the
    database says. In one that is not ``joined`` they are the mirror's of their names.
    """
    live = {number for number in numbers.values() if number is not None}
    found = {}
    knows = has_captured(connection)
    mine = column_ids.read_all(connection) if knows else {}
    mirrors = column_ids.read_all(connection, "mirror")
    for name, shape in inventory.tables.items():
        number = number_of(connection, name, numbers.get(name), live) if knows else 0
        here = seen.get(name) or mine.get(number, {})
        there = mirrors.get(name, {})
        if not joined and there:
            here = there
        if not there and here:
            column_ids.write(connection, "mirror", name, here)
        found[name] = table_shapes.guess(connection, shape, number or None, there, here or there)
    return found
