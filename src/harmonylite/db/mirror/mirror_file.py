"""The mirror file: make it, keep its tables' shapes in step with the database's, and its positions and state.

Invariant: apart from what is named node-private, the mirror holds the fold of the stream up to its positions and
nothing else; its shape follows the database's, and a change of shape alone makes no row traffic.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import apsw

from harmonylite.db.mirror import conflict_journal, schema_history, skipped_messages
from harmonylite.db.sqlite.connection import mapped, open_file, rows, value
from harmonylite.db.sqlite.file_access import follow, make_private
from harmonylite.db.sqlite.introspection import TableRules, read_inventory
from harmonylite.db.tracking.column_renames import checked
from harmonylite.errors import DatabaseError, MirrorDamagedError
from harmonylite.model import Position
from harmonylite.schema.shape import TableShape
from harmonylite.schema.sql import PRIVATE, quote
from harmonylite.wire import WireError, decode_named, decode_names, encode_named, encode_names

POSITION = quote(PRIVATE + "position")
STATE = quote(PRIVATE + "state")
TABLES = quote(PRIVATE + "tables")

PAIR = "pair"
"""A random word that database and mirror share since they were last brought together; a copy of a mirror has none."""

EVERY_TABLE = TableRules()


def make_mirror(path: Path, encoding: str) -> None:
    """Make an empty mirror file, in the database's text encoding (SQLite: attached files must share it)."""
    with mapped(f"make {path}"):
        make_private(path)
    connection = open_file(path)
    try:
        connection.execute(f"PRAGMA encoding = '{encoding}'")
        connection.pragma("journal_mode", "wal")
    finally:
        connection.close()


def make_ready(path: Path, database: Path, encoding: str) -> None:
    """Make the mirror file where it is missing, and give it the access of ``database``, which it then remembers: also
    when somebody removes that. Nobody has it open. Raises DatabaseError.
    """
    if not path.exists():
        make_mirror(path, encoding)
    with mapped(f"set the mode and owner of {path}"):
        follow(path, database)


def use_wal(path: Path) -> None:
    """Put a mirror file into WAL mode."""
    connection = open_file(path)
    try:
        connection.pragma("journal_mode", "wal")
    finally:
        connection.close()


def prepare(connection: apsw.Connection, schema: str = "mirror") -> None:
    """Make our own tables in the mirror where they are missing."""
    execute = connection.execute
    execute(
        f"CREATE TABLE IF NOT EXISTS {schema}.{POSITION}"
        "(shard INTEGER PRIMARY KEY, seq INTEGER NOT NULL, resume INTEGER NOT NULL, created TEXT NOT NULL,"
        " aborted BLOB, newest BLOB)"
    )
    execute(f"CREATE TABLE IF NOT EXISTS {schema}.{STATE}(name TEXT PRIMARY KEY, value) WITHOUT ROWID")
    execute(f"CREATE TABLE IF NOT EXISTS {schema}.{TABLES}(name TEXT PRIMARY KEY, id INTEGER) WITHOUT ROWID")
    schema_history.prepare(connection, schema)
    skipped_messages.prepare(connection, schema)
    for sql in conflict_journal.TABLES:
        execute(sql.replace("mirror.", f"{schema}.", 1))


def positions(connection: apsw.Connection, schema: str) -> dict[int, Position]:
    """Return the positions that stand in ``main`` or ``mirror``, by shard; raises as `unreadable`."""
    listed = rows(connection, f"SELECT shard, seq, resume, created, aborted, newest FROM {schema}.{POSITION}")
    try:
        return {
            shard: Position(shard, seq, resume, created, tuple(decode_names(aborted)), decode_named(newest))
            for shard, seq, resume, created, aborted, newest in listed
        }
    except WireError as error:
        raise unreadable(schema, str(error)) from error


def unreadable(schema: str, why: str) -> DatabaseError:
    """Return the error for a file whose own facts can't be read: a mirror is made from a snapshot then."""
    if schema == "mirror":
        return MirrorDamagedError(f"the mirror does not say where it stands: {why}")
    return DatabaseError(f"the file does not say where it stands: {why}")


def set_positions(connection: apsw.Connection, schema: str, moved: Mapping[int, Position]) -> None:
    """Write positions into ``main`` or ``mirror``, within the transaction of the rows that they stand for."""
    connection.executemany(
        f"INSERT OR REPLACE INTO {schema}.{POSITION} VALUES (?, ?, ?, ?, ?, ?)",
        [
            (p.shard, p.seq, p.resume, p.created, encode_names(p.aborted), encode_named(p.newest))
            for p in moved.values()
        ],
    )


def get_state(connection: apsw.Connection, schema: str, name: str) -> Any:
    """Return a fact of ``main`` or ``mirror``, None when it isn't there."""
    return value(connection, f"SELECT value FROM {schema}.{STATE} WHERE name = ?", (name,))


def set_state(connection: apsw.Connection, schema: str, name: str, new: str | float | None) -> None:
    """Set a fact of ``main`` or ``mirror``."""
    connection.execute(f"INSERT OR REPLACE INTO {schema}.{STATE} VALUES (?, ?)", (name, new))


def table_ids(connection: apsw.Connection) -> dict[str, int | None]:
    """Return the tables of the mirror by name, with the id in the log of those that the database has too."""
    return dict(rows(connection, f"SELECT name, id FROM mirror.{TABLES}"))


def set_table_id(connection: apsw.Connection, name: str, number: int | None) -> None:
    """Remember a table of the mirror; ``number`` None: the database has it no more."""
    connection.execute(f"INSERT OR REPLACE INTO mirror.{TABLES} VALUES (?, ?)", (name, number))


def conform(connection: apsw.Connection, shape: TableShape) -> bool:
    """Give the mirror's table the shape of the database's; True when it was made anew and is empty.

    Values stay under their column's name; a column whose name alone changed is known by its place, unless the rows say
    otherwise. The caller holds a transaction.
    """
    execute = connection.execute
    old_sql = value(connection, "SELECT sql FROM mirror.sqlite_schema WHERE type = 'table' AND name = ?", (shape.name,))
    made = {r[0] for r in rows(connection, "SELECT sql FROM mirror.sqlite_schema WHERE type = 'index' AND tbl_name = ?"
                               " AND sql IS NOT NULL", (shape.name,))}  # fmt: skip
    if old_sql == shape.sql and made == set(shape.indexes):
        return False
    if old_sql is None:
        execute(_into_mirror(shape.sql, "CREATE TABLE "))
    else:
        execute("PRAGMA legacy_alter_table = ON")
        aside = quote(PRIVATE + "aside")
        before = read_inventory(connection, EVERY_TABLE, "mirror").tables.get(shape.name)
        for (index,) in rows(connection, "SELECT name FROM mirror.sqlite_schema WHERE type = 'index' AND tbl_name = ?"
                             " AND sql IS NOT NULL", (shape.name,)):  # fmt: skip
            execute(f"DROP INDEX mirror.{quote(index)}")
        execute(f"ALTER TABLE mirror.{quote(shape.name)} RENAME TO {aside}")
        execute(_into_mirror(shape.sql, "CREATE TABLE "))
        for sql in shape.indexes:
            execute(_into_mirror(sql, "CREATE UNIQUE INDEX "))
        if before is not None:
            number = table_ids(connection).get(shape.name)
            pairs = checked(connection, shape, carried(before, shape), f"mirror.{aside}", number)
            schema_history.columns_moved(connection, before, shape, pairs)
            into = ", ".join(quote(new) for _, new in pairs)
            out = ", ".join(f"a.{quote(old)}" for old, _ in pairs)
            if pairs:
                given = {new for _, new in pairs}
                rest = {shape.columns[i].name: filler for i, filler in shape.fillers.items()}
                for name in rest.keys() - given:
                    into, out = f"{into}, {quote(name)}", f"{out}, {rest[name]}"
                keys = [old for old, new in pairs if any(c.name == new for c in shape.keys)]
                # where a new unique index has no room for two of the rows, the same one stays on every node
                order = ", ".join(f"a.{quote(old)} COLLATE BINARY" for old in keys if shape.unique)
                execute(
                    f"INSERT OR REPLACE INTO mirror.{quote(shape.name)}({into}) SELECT {out} FROM mirror.{aside} AS a"
                    f"{' ORDER BY ' * bool(order)}{order}"
                )
        execute(f"DROP TABLE mirror.{aside}")
        return False
    for sql in shape.indexes:
        execute(_into_mirror(sql, "CREATE UNIQUE INDEX "))
    return True


def carried(before: TableShape, after: TableShape) -> list[tuple[str, str]]:
    """Return the old and new names of the columns whose values a change of shape may keep."""
    old = [c.name for c in before.columns if not c.pseudo]
    new = [c.name for c in after.columns if not c.pseudo]
    pairs = [(name, name) for name in old if name in new]
    if len(old) == len(new):
        pairs += [(a, b) for a, b in zip(old, new, strict=True) if a not in new and b not in old]
    if before.rowid and after.rowid and not after.integer_key:
        pairs.append((before.rowid, after.rowid))
    return pairs


def lost(before: TableShape | None, after: TableShape | None) -> list[str]:
    """Return the columns whose values a change of shape does not keep; all where there is no table any more."""
    kept = {old for old, _ in carried(before, after)} if before is not None and after is not None else set()
    return [c.name for c in before.columns if not c.pseudo and c.name not in kept] if before is not None else []


def rename(connection: apsw.Connection, old: str, new: str) -> None:
    """Rename a table of the mirror as the database's was."""
    connection.execute("PRAGMA legacy_alter_table = ON")
    aside = PRIVATE + "aside"  # SQLite refuses a name that differs in case alone
    connection.execute(f"ALTER TABLE mirror.{quote(old)} RENAME TO {quote(aside)}")
    connection.execute(f"ALTER TABLE mirror.{quote(aside)} RENAME TO {quote(new)}")
    connection.execute(f"DELETE FROM mirror.{TABLES} WHERE name = ?", (old,))
    schema_history.table_moved(connection, old, new)


def _into_mirror(sql: str, start: str) -> str:
    """Point a CREATE statement, as SQLite keeps it, at the mirror: nothing stands between ``start`` and the name."""
    if not sql.startswith(start):
        raise ValueError(f"SQLite keeps a statement that does not start with {start!r}: {sql[:60]!r}")
    return f"{start}mirror.{sql[len(start) :]}"
