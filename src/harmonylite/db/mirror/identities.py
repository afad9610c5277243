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
from harmonylite.db.tracking.captured_schema import captured_schema, write
from harmonylite.db.tracking.column_ids import Columns
from harmonylite.schema.catalog import Catalog, identified, tables_of
from harmonylite.schema.columns import columns_of
from harmonylite.schema.names import folded
from harmonylite.schema.section import GONE, Known
from harmonylite.schema.table_text import without


def begin(
    connection: apsw.Connection,
    now: Sequence[Known],
    captured: Sequence[Known],
    columns: dict[int, Columns],
    mirrors: Mapping[str, Columns],
    *,
    joined: bool,
) -> tuple[list[Known], Catalog]:
    """Begin to know identities where a file or its mirror knows none yet; the transaction writes both.

    The first node of all gives them by names; so does one whose files an earlier version left. One that until now took
    additions alone finds them by what became of names. ``now``: the schema of the file, which counts as captured where
    nothing does; ``columns``: those of tables, by number, which change with it; ``mirrors``: those of the mirror's, by
    name. Return what counts as captured, and the stream's schema.
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
            if column.id and column.id not in valid:
                here[name] = replace(column, id="")
        if base is not None and not any(column.id for column in here.values()):
            _tie_columns(base, here)
    named = {k.name: columns[k.number] for k in now if k.kind == "table" and k.number in columns}
    column_ids.write_all(connection, "mirror", named, mirrors)
    return tied, catalog


def _columns_of(known: Known | None) -> tuple[tuple[str, str], ...]:
    return () if known is None else known.columns


def begin_catalog(connection: apsw.Connection, known: Sequence[Known], *, joined: bool) -> None:
    """Let ``known`` be the stream's schema where a mirror knows none, or its node is alone with it."""
    alone = not joined and not get_state(connection, "mirror", "whole")
    if known and (alone or not has_catalog(connection)):
        write_catalog(connection, [identified(k, f"={folded(k.name)}") for k in known])


def keep_none(connection: apsw.Connection, captured: Sequence[Known], *, joined: bool) -> None:
    """Know the stream's schema, and of no table of the database which one of that it is; the transaction writes both.

    Where additions alone travel, no merge keeps that up to date while a person migrates. ``captured``: what counts so.
    """
    begin_catalog(connection, captured, joined=joined)
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


def tie_mirrors(connection: apsw.Connection, numbers: Mapping[str, int], captured: Iterable[Known]) -> None:
    """Write down which of the stream's tables those of the mirror are; ``numbers``: the database's, by name."""
    known = {k.number: k.id for k in captured if k.kind == "table"}
    column_ids.set_tables(connection, {name: known.get(number, "") for name, number in numbers.items()})


def carried(
    connection: apsw.Connection, numbers: Mapping[str, int | None], captured: Iterable[Known]
) -> dict[str, int | None]:
    """Return the numbers of tables with those of tables that a merge rebuilt, which have no triggers yet."""
    merged = table_moves.rebuilt(connection)
    taken = {GONE, *merged.values(), *(number for number in numbers.values() if number is not None)}
    same = {folded(k.name): k.number for k in captured if k.number not in taken}
    named = {**same, **merged}
    return {name: n if n is not None else named.get(folded(name)) or None for name, n in numbers.items()}


def find_mirrors(
    connection: apsw.Connection, known: dict[str, int | None], captured: Iterable[Known], live: Collection[int]
) -> None:
    """Know the tables of a mirror that another node made by their identity: they may have other names there.

    ``known``: the mirror's tables, which change with it; ``live``: the numbers of the database's.
    """
    numbers = {k.id: k.number for k in captured if k.id and k.number in live}
    for name in [name for name, number in known.items() if number is None]:
        id_ = column_ids.table_of(connection, name)
        if id_ in numbers:
            known[name] = numbers[id_]
            mirror_file.set_table_id(connection, name, numbers[id_])


def find_columns(
    connection: apsw.Connection,
    inventory: Inventory,
    numbers: Mapping[str, int | None],
    seen: Mapping[str, Columns],
    *,
    knows: bool,
    joined: bool,
) -> tuple[dict[str, Columns], dict[str, Columns]]:
    """Return the columns of the database's tables, by name, and the mirror's.

    ``numbers``: see `carried`; ``seen``: what was found last, newer than what the database says; ``knows``: whether it
    says anything. In one that is not ``joined`` they are the mirror's of their names.
    """
    found = {}
    mine = column_ids.read_all(connection) if knows else {}
    mirrors = column_ids.read_all(connection, "mirror")
    known = [columns.values() for tables in (mine, mirrors, seen) for columns in tables.values()]
    first = 1 + max((column.number for columns in known for column in columns), default=0)
    for name, shape in inventory.tables.items():
        number = numbers.get(name) if knows else None
        here = seen.get(name) or mine.get(number, {})
        there = mirrors.get(name, {})
        if not joined and there:
            here = there
        if not there and here:
            mirrors[name] = here
            column_ids.put(connection, "mirror", name, here)
        found[name] = table_shapes.guess(connection, shape, number, there, here or there, first)
    return found, mirrors
