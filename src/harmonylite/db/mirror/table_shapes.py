"""Keep the shapes of the mirror's tables in step with the database's.

Invariant: a change of shape alone publishes no row: values keep their column, also under another name. If that is
uncertain, the table is marked, and compared whole.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import partial

import apsw

from harmonylite.db.mirror import former_names
from harmonylite.db.mirror.altering import (
    MirrorTables,
    altered,
    into_mirror,
    make_index,
    steps_between,
)
from harmonylite.db.mirror.mirror_file import (
    DROPPED,
    TABLES,
    set_table_id,
    table_ids,
)
from harmonylite.db.mirror.pouring import known_pairs, pour
from harmonylite.db.mirror.state import get_names, set_names
from harmonylite.db.mirror.stream_shapes import StreamShapes, loosened
from harmonylite.db.sqlite.capabilities import why_unwritable
from harmonylite.db.sqlite.connection import rows, value
from harmonylite.db.sqlite.introspection import find_shape
from harmonylite.db.tracking import column_ids
from harmonylite.db.tracking.column_ids import Columns
from harmonylite.db.tracking.column_renames import checked, found_by_values
from harmonylite.schema.columns import columns_of
from harmonylite.schema.names import folded
from harmonylite.schema.shape import TableShape
from harmonylite.schema.sql import PRIVATE, quote
from harmonylite.schema.table_text import Moves

UNLIKE = "unlike"
"""The fact of the mirror with the tables that must be compared whole."""


def conforming(
    shapes: Iterable[TableShape],
    mirror: MirrorTables,
    known: Mapping[str, Columns],
    columns: Mapping[str, Columns] | None = None,
    stream: StreamShapes | None = None,
) -> set[str]:
    """Return the tables whose shape the ``mirror`` has already: `conform` would not change them.

    ``known``: the columns of the mirror's tables; ``columns``: those of each table, and ``stream``, as there.
    """
    found = set()
    for shape in shapes:
        there, wanted, sql = mirror.indexes.get(shape.name, {}), shape.indexes, shape.mirror_sql
        if columns is not None and stream is not None:
            if known.get(shape.name) != columns[shape.name]:
                continue
            wanted = tuple(stream.indexes_of(shape, there.values(), columns[shape.name]))
            sql = stream.definition_of(shape, columns[shape.name])
        if mirror.tables.get(shape.name) == sql and there.keys() == set(wanted):
            found.add(shape.name)
    return found


def conform(
    connection: apsw.Connection,
    shape: TableShape,
    noted: Moves | None = None,
    *,
    columns: Columns | None = None,
    stream: StreamShapes | None = None,
    mirror: MirrorTables | None = None,
) -> bool:
    """Give the mirror's table the shape of the database's; True if it is a new, empty table.

    Values keep their column's name. Renames are ``noted``; otherwise a column whose name alone changed is recognized
    by its place, unless the rows contradict. ``columns``: which columns of the stream's the database's are, where that
    is known; ``stream``: the stream's schema; ``mirror``: what was read of its tables. The caller holds a transaction.
    """
    there = column_ids.read(connection, "mirror", shape.name)
    mirror = MirrorTables.read(connection, shape.name) if mirror is None else mirror
    made, old_sql = mirror.indexes.get(shape.name, {}), mirror.tables.get(shape.name)
    indexes, mirror_sql = list(shape.indexes), shape.mirror_sql
    if columns is not None:
        if there != columns:
            column_ids.put(connection, "mirror", shape.name, columns)
        stream = StreamShapes.read(connection) if stream is None else stream
        indexes = stream.indexes_of(shape, made.values(), columns)
        mirror_sql = stream.definition_of(shape, columns)
    if old_sql is None:
        connection.execute(into_mirror(mirror_sql, "CREATE TABLE "))
        for sql in indexes:
            make_index(connection, sql)
        return True
    if old_sql == mirror_sql and made.keys() == set(indexes) and _same_columns(there, columns):
        return False
    before = mirrored(connection, shape.name)
    pairs: Sequence[tuple[str, str]] = []
    if before is not None and columns is not None and there:
        pairs = column_ids.pairs(before, there, shape, columns)
    elif before is not None:
        pairs = _pairs(connection, before, shape, f"mirror.{quote(shape.name)}", noted)
    steps = None if before is None else steps_between(old_sql, mirror_sql, pairs)
    lost = False
    if steps is None or not altered(connection, shape.name, mirror_sql, indexes, steps):
        lost = _rebuild(
            connection, shape, mirror_sql, indexes, pairs, streamed=columns is not None, fills=before is not None
        )
    if before is not None:
        former_names.columns_moved(connection, before, shape, pairs, noted=noted is not None or columns is not None)
        converted = columns is not None and _converted(connection, before, shape, pairs)
        if _may_differ(before, shape, pairs) or lost or converted:
            set_unlike(connection, {*unlike(connection), shape.name})
    return False


def keep_alone(connection: apsw.Connection, shape: TableShape) -> None:
    """Keep a table in the mirror only, so that what others write to it is kept, if the mirror can hold its rows."""
    connection.execute("SAVEPOINT keep")
    try:
        conform(connection, shape)
        if why_unwritable(connection, shape, "mirror"):
            connection.execute("ROLLBACK TO keep")
    except apsw.SQLError:
        connection.execute("ROLLBACK TO keep")
    finally:
        connection.execute("RELEASE keep")


def mirrored(connection: apsw.Connection, name: str) -> TableShape | None:
    """Return the shape of a table of the mirror, None where it has none of exactly that name that can be written."""
    try:
        shape, _ = find_shape(connection, name, "mirror")
    except apsw.SQLError:
        return None
    readable = shape is not None and shape.name == name and not why_unwritable(connection, shape, "mirror")
    return shape if readable else None


def _rebuild(
    connection: apsw.Connection,
    shape: TableShape,
    mirror_sql: str,
    indexes: Sequence[str],
    pairs: Sequence[tuple[str, str]],
    *,
    streamed: bool,
    fills: bool,
) -> bool:
    """Make a mirror's table once more and pour its rows over; return whether a unique index of the stream had no room.

    ``streamed``: see `_fill`; ``fills`` False: the rows can't be read.
    """
    aside = quote(PRIVATE + "aside")
    connection.execute("PRAGMA legacy_alter_table = ON")
    for index in MirrorTables.read(connection, shape.name).indexes.get(shape.name, {}).values():
        connection.execute(f"DROP INDEX mirror.{quote(index)}")
    connection.execute(f"ALTER TABLE mirror.{quote(shape.name)} RENAME TO {aside}")
    connection.execute(into_mirror(mirror_sql, "CREATE TABLE "))
    for sql in indexes:
        make_index(connection, sql)
    if fills:
        _fill(connection, shape, mirror_sql, indexes, pairs, aside, as_streamed=streamed)
    lost = fills and streamed and bool(indexes) and _lost(connection, shape, aside)
    connection.execute(f"DROP TABLE mirror.{aside}")
    return lost


def _fill(
    connection: apsw.Connection,
    shape: TableShape,
    mirror_sql: str,
    indexes: Sequence[str],
    pairs: Sequence[tuple[str, str]],
    aside: str,
    *,
    as_streamed: bool,
) -> None:
    """Pour the old rows into the new table; where a STRICT one refuses them, into one that is not STRICT.

    ``as_streamed``: what a row lacks is filled in by the constraints of the mirror's table, which the stream knows.
    The values that a migration converted come behind it, and the table is made once more then.
    """
    like = find_shape(connection, shape.name, "mirror")[0] if as_streamed else None
    pour_over = partial(pour, connection, shape, pairs, f"mirror.{aside}", like=like, further=bool(indexes))
    try:
        pour_over()
    except apsw.ConstraintError as error:
        if getattr(error, "extendedresult", 0) != apsw.SQLITE_CONSTRAINT_DATATYPE:
            raise
        connection.execute(f"DROP TABLE mirror.{quote(shape.name)}")
        connection.execute(into_mirror(loosened(mirror_sql), "CREATE TABLE "))
        for sql in indexes:
            make_index(connection, sql)
        pour_over()


def _lost(connection: apsw.Connection, shape: TableShape, aside: str) -> bool:
    """Return whether a unique index had no room for some of the rows."""
    there = f"(SELECT count(*) FROM mirror.{quote(shape.name)}) < (SELECT count(*) FROM mirror.{aside})"
    return bool(value(connection, f"SELECT {there}"))


def _may_differ(before: TableShape, after: TableShape, pairs: Sequence[tuple[str, str]]) -> bool:
    """Return whether a column may hold another one's values, without a logged row: it is new, or both changed names."""
    kept, came = {old for old, _ in pairs}, {new for _, new in pairs}
    names = {new: old for old, new in pairs}
    order = [names[c.name] for c in after.columns if c.name in names]
    if order != [c.name for c in before.columns if c.name in set(order)]:
        return True
    return any(not c.pseudo and c.name not in kept for c in before.columns) and any(
        not c.pseudo and c.name not in came for c in after.columns
    )


def _converted(
    connection: apsw.Connection, before: TableShape, shape: TableShape, pairs: Sequence[tuple[str, str]]
) -> bool:
    """Return whether a column of the mirror's table got another affinity: its values were converted.

    The database's may have been converted in other steps: 7 becomes '7.0' by way of REAL.
    """
    after = find_shape(connection, shape.name, "mirror")[0]
    kept = [(a, b) for a, b in pairs if after is not None and a in before.names and b in after.names]
    return after is not None and any(before.column(a).affinity != after.column(b).affinity for a, b in kept)


def unlike(connection: apsw.Connection) -> set[str]:
    """Return the tables that must be compared whole: database and mirror may differ without a log entry."""
    return get_names(connection, "mirror", UNLIKE)


def set_unlike(connection: apsw.Connection, names: Collection[str]) -> None:
    """Store which tables must be compared whole."""
    set_names(connection, "mirror", UNLIKE, names)


def _same_columns(there: Columns, here: Columns | None) -> bool:
    """Return whether the mirror's columns of these names are the database's."""
    if here is None or not there:
        return True
    return all(name in there and there[name].is_same(column) for name, column in here.items())


def _pairs(
    connection: apsw.Connection, before: TableShape, shape: TableShape, aside: str, noted: Moves | None
) -> Sequence[tuple[str, str]]:
    """Return old and new names of the columns that keep their values; ``aside``: the table with the old columns."""
    if noted is not None:
        return known_pairs(before, shape, noted)
    number = table_ids(connection).get(shape.name)
    guessed = carried(before, shape)
    if number == DROPPED:
        return [(old, new) for old, new in guessed if old == new]
    return checked(connection, shape, guessed, aside, number)


def guess(
    connection: apsw.Connection,
    shape: TableShape,
    number: int | None,
    there: Columns,
    here: Columns,
    first: int,
) -> Columns:
    """Return which columns of a table of the database are which, ``here``: what was known of them by their names.
    ``first``: the least number that no column has.

    A column whose name alone changed is known by its place, unless the rows say otherwise, and by its values.
    """
    names = list(columns_of(shape.sql))  # generated ones, too
    found = {name: here[name] for name in names if name in here}
    went, came = [n for n in here if n not in names], [n for n in names if n not in here]
    before = mirrored(connection, shape.name) if went and came else None
    if before is not None:
        table = f"mirror.{quote(shape.name)}"
        guessed = checked(connection, shape, carried(before, shape, anywhere=True), table, number)
        guessed = [*guessed, *found_by_values(connection, before, shape, guessed, table, number)]
        for old, new in guessed:
            source = there.get(folded(old))
            same = [n for n in went if source is not None and here[n].is_same(source)]
            if folded(new) in came and same:
                found[folded(new)] = here[same[0]]
    unknown = [name for name in names if name not in found or not found[name].number]  # another node's have none
    for place, name in enumerate(unknown):
        found[name] = column_ids.ColumnId(first + place, found[name].id if name in found else "")
    return found


def carried(before: TableShape, after: TableShape, *, anywhere: bool = False) -> list[tuple[str, str]]:
    """Return old and new names of the columns whose values a change of shape may keep.

    A renamed column is expected at its old place; ``anywhere``: at the places of the new ones.
    """
    old = [c.name for c in before.columns if not c.pseudo]
    new = [c.name for c in after.columns if not c.pseudo]
    pairs = [(name, name) for name in old if name in new]
    if anywhere:
        went, came = [name for name in old if name not in new], [name for name in new if name not in old]
    else:
        went, came = old, new
    if len(went) == len(came):
        alike = [(a, b) for a, b in zip(went, came, strict=True) if a not in new and b not in old]
        pairs += [(a, b) for a, b in alike if before.column(a).affinity == after.column(b).affinity]
    if before.rowid and after.rowid and not after.integer_key:
        pairs.append((before.rowid, after.rowid))
    return pairs


def lost(before: TableShape | None, after: TableShape | None) -> list[str]:
    """Return the columns whose values a change of shape loses; all of them if the table was dropped."""
    kept = {old for old, _ in carried(before, after)} if before is not None and after is not None else set()
    return [c.name for c in before.columns if not c.pseudo and c.name not in kept] if before is not None else []


def drop_if_empty(connection: apsw.Connection, name: str) -> bool:
    """Drop an empty table of the mirror; return whether it was empty."""
    there = "SELECT 1 FROM mirror.sqlite_schema WHERE type = 'table' AND name = ?"
    if value(connection, there, (name,)) is not None:
        if value(connection, f"SELECT 1 FROM mirror.{quote(name)} LIMIT 1") is not None:
            return False
        connection.execute(f"DROP TABLE mirror.{quote(name)}")
    forget_table(connection, name)
    return True


def forget_table(connection: apsw.Connection, name: str) -> None:
    """Forget a table that the mirror has no more."""
    connection.execute(f"DELETE FROM mirror.{TABLES} WHERE name = ?", (name,))
    column_ids.forget(connection, name)


def drop_gone(connection: apsw.Connection, name: str) -> None:
    """Drop a table of the mirror whose name another one gets: the application dropped it, and is still to say so."""
    connection.execute(f"DROP TABLE IF EXISTS mirror.{quote(name)}")
    forget_table(connection, name)


def rename_all(connection: apsw.Connection, names: Mapping[str, str]) -> None:
    """Rename tables of the mirror, by old names, like the database's; they may exchange names."""
    if not names:
        return
    known = table_ids(connection)
    connection.execute("PRAGMA legacy_alter_table = ON")
    aside = {old: f"{PRIVATE}aside{place}" for place, old in enumerate(names)}
    there = {name for (name,) in rows(connection, "SELECT name FROM mirror.sqlite_schema WHERE type = 'table'")}
    for steps in (
        aside,
        {aside[old]: new for old, new in names.items()},
    ):  # SQLite refuses a new name that differs in case only
        for old, new in steps.items():
            _rename(connection, old, new, there)
    for old in names:
        connection.execute(f"DELETE FROM mirror.{TABLES} WHERE name = ?", (old,))
    for old, new in names.items():
        set_table_id(connection, new, known[old])
        former_names.table_moved(connection, old, new)


def _rename(connection: apsw.Connection, old: str, new: str, there: set[str]) -> None:
    if old not in there:
        return
    connection.execute(f"ALTER TABLE mirror.{quote(old)} RENAME TO {quote(new)}")
    former_names.columns_follow(connection, old, new)
    column_ids.renamed(connection, old, new)
    there.discard(old)
    there.add(new)
