"""The mirror file: its creation, its positions and its state.

Invariant: except for node-private facts, the mirror holds exactly the fold of the stream up to its positions; its shape
follows the database's, and a change of shape alone publishes no row.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

import apsw

from harmonylite.db.mirror import conflict_journal, former_names, skipped_messages, stream_schema
from harmonylite.db.mirror.state import STATE, get_names, get_state, set_names, set_state
from harmonylite.db.sqlite.connection import attach, mapped, open_file, reading, rows, transaction, tune, value
from harmonylite.db.sqlite.file_access import follow, make_private
from harmonylite.db.sqlite.introspection import TableRules
from harmonylite.db.tracking import column_ids, layout
from harmonylite.db.tracking.triggers import HELD
from harmonylite.errors import DatabaseDamagedError, DatabaseError, MirrorDamagedError
from harmonylite.model import Position
from harmonylite.schema.sql import PRIVATE, quote
from harmonylite.wire import WireError, decode_named, decode_names, encode_named, encode_names

POSITION = quote(PRIVATE + "position")
TABLES = quote(PRIVATE + "tables")
OWN_FACTS = ("noted", "settled")
"""Facts about the database that move with the mirror's positions, and are beside them. ``noted``: the position that the
database recorded at the last commit of both files, see `merged_positions`; ``settled``: the id up to which the mirror
has everything that the database's log names, although the database may not have recorded that."""

LAYOUT = (
    {
        POSITION: "(shard INTEGER PRIMARY KEY, seq INTEGER NOT NULL, resume INTEGER NOT NULL, created TEXT NOT NULL,"
        f" aborted BLOB, newest BLOB, {', '.join(f'{fact} INTEGER' for fact in OWN_FACTS)})",
        STATE: "(name TEXT PRIMARY KEY, value) WITHOUT ROWID",
        TABLES: "(name TEXT PRIMARY KEY, id INTEGER) WITHOUT ROWID",
    }
    | former_names.LAYOUT
    | stream_schema.LAYOUT
    | column_ids.LAYOUT
    | skipped_messages.LAYOUT
    | conflict_journal.LAYOUT
)

PAIR = "pair"
"""A random word that database and mirror share since they were last paired; a copy of a mirror has none."""

UNWRITABLE = "unwritable"
DROPPED = 0
"""The number of a table that was dropped here: a table that gets its name is a new one."""

PAGE_BYTES = 2_048
"""Page size of a new mirror: half of SQLite's, as a one-row commit writes three pages. A smaller one slows a bulk."""
EVERY_TABLE = TableRules()


def make_mirror(path: Path, encoding: str) -> None:
    """Create an empty mirror file in the database's text encoding (SQLite: attached files must share it)."""
    with mapped(f"make {path}"):
        make_private(path)
    connection = open_file(path)
    try:
        connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
        connection.execute(f"PRAGMA encoding = '{encoding}'")
        connection.pragma("journal_mode", "wal")
    finally:
        connection.close()


def make_ready(path: Path, database: Path, encoding: str) -> None:
    """Create the mirror file if it is missing, and give it the access of ``database``. It keeps that access even if a
    person removes the database. No process may have it open. Raises DatabaseError.
    """
    if not path.exists():
        make_mirror(path, encoding)
    with mapped(f"set the mode and owner of {path}"):
        follow(path, database)


def attach_to(connection: apsw.Connection, path: Path, database: Path) -> None:
    """Attach the mirror ``path``, created if missing, to ``database``'s connection. Raises MirrorDamagedError.

    It is attached twice: as ``mirror``, and as ``base``, which reads the last committed state.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        make_ready(path, database, mine := str(connection.pragma("encoding")))
        _must_share_encoding(path, mine)
        attach(connection, path, "mirror")
        with transaction(connection, f"prepare {path}"):
            prepare(connection)
        attach(connection, path, "base", read_only=True)
        connection.execute("PRAGMA mirror.synchronous = normal")
        tune(connection)
    except (DatabaseDamagedError, apsw.NotADBError, apsw.CorruptError) as error:
        raise MirrorDamagedError(f"the mirror {path} is damaged: {error}") from error


def _must_share_encoding(path: Path, mine: str) -> None:
    """Raise MirrorDamagedError if the application replaced the database by a file with another text encoding."""
    with reading(path) as mirror:
        theirs = str(mirror.pragma("encoding"))
        empty = value(mirror, "SELECT 1 FROM sqlite_schema LIMIT 1") is None  # its encoding is not settled
    if theirs != mine and not empty:
        raise MirrorDamagedError(f"the mirror {path} keeps its text in {theirs}, the database in {mine}")


def use_wal(path: Path) -> None:
    """Switch a mirror file to WAL mode."""
    connection = open_file(path)
    try:
        connection.pragma("journal_mode", "wal")
    finally:
        connection.close()


def prepare(connection: apsw.Connection, schema: str = "mirror") -> None:
    """Bring our own tables in the mirror to their `layout`."""
    layout.make(connection, schema, LAYOUT)
    _move_own_facts(connection, schema)


def _move_own_facts(connection: apsw.Connection, schema: str) -> None:
    """Take over the values of `OWN_FACTS` that an earlier version kept elsewhere."""
    earlier = f"{schema}.{quote(PRIVATE + 'noted')}"
    if rows(connection, "SELECT 1 FROM pragma_table_info(?, ?)", (PRIVATE + "noted", schema)):
        known = f"(SELECT n.seq FROM {earlier} AS n WHERE n.shard = p.shard)"
        settled = f"(SELECT value FROM {schema}.{STATE} WHERE name = 'settled')"
        connection.execute(f"UPDATE {schema}.{POSITION} AS p SET noted = {known}, settled = {settled}")
        connection.execute(f"DROP TABLE {earlier}")
        set_state(connection, schema, "settled", None)


def positions(connection: apsw.Connection, schema: str) -> dict[int, Position]:
    """Return the positions in ``main`` or ``mirror``, by shard; raises as `unreadable`."""
    columns = "shard, seq, resume, created, aborted, newest"
    listed = rows(connection, f"SELECT {columns} FROM {schema}.{POSITION} WHERE shard >= 0")
    try:
        return {
            shard: Position(shard, seq, resume, created, tuple(decode_names(aborted)), decode_named(newest))
            for shard, seq, resume, created, aborted, newest in listed
        }
    except WireError as error:
        raise unreadable(schema, str(error)) from error


def unreadable(schema: str, why: str) -> DatabaseError:
    """Return the error for a file whose facts can't be read; a snapshot then replaces a mirror."""
    if schema == "mirror":
        return MirrorDamagedError(f"the mirror's positions can't be read: {why}")
    return DatabaseError(f"the file's positions can't be read: {why}")


def set_positions(connection: apsw.Connection, schema: str, moved: Mapping[int, Position]) -> None:
    """Write positions into ``main`` or ``mirror``, in the transaction of the rows that they cover."""
    names = ("seq", "resume", "created", "aborted", "newest")
    connection.executemany(
        f"INSERT INTO {schema}.{POSITION}(shard, {', '.join(names)}) VALUES (?, ?, ?, ?, ?, ?)"
        f" ON CONFLICT DO UPDATE SET {', '.join(f'{name} = excluded.{name}' for name in names)}",
        [
            (p.shard, p.seq, p.resume, p.created, encode_names(p.aborted), encode_named(p.newest))
            for p in moved.values()
        ],
    )


def set_database_positions(connection: apsw.Connection, moved: Mapping[int, Position]) -> None:
    """Record positions of the mirror in the database, in a transaction that writes both files."""
    set_positions(connection, "main", moved)
    connection.executemany(
        f"UPDATE mirror.{POSITION} SET noted = ? WHERE shard = ?", [(p.seq, p.shard) for p in moved.values()]
    )


def went_back(connection: apsw.Connection) -> bool:
    """Return whether the database records less than ``noted`` in its mirror: a backup was put back meanwhile."""
    sql = (
        f"SELECT 1 FROM mirror.{POSITION} AS m LEFT JOIN main.{POSITION} AS d ON d.shard = m.shard"
        " WHERE coalesce(d.seq, 0) < m.noted"
    )
    return value(connection, sql) is not None


def note_equal(connection: apsw.Connection) -> None:
    """Set ``noted`` in the mirror for positions that both files have: a crash came between their commits."""
    connection.execute(
        f"UPDATE mirror.{POSITION} AS m SET noted = m.seq FROM main.{POSITION} AS d"
        " WHERE d.shard = m.shard AND d.seq = m.seq AND m.noted IS NOT m.seq"
    )


def forget_noted(connection: apsw.Connection, schema: str = "mirror") -> None:
    """Forget ``noted``, so that only the database's own record counts; ``schema``: as which the mirror is attached."""
    connection.execute(f"UPDATE {schema}.{POSITION} SET noted = -1")


def set_settled(connection: apsw.Connection, upto: int | None, schema: str = "mirror") -> None:
    """Set ``settled`` in the mirror, see `OWN_FACTS`."""
    connection.execute(f"UPDATE {schema}.{POSITION} SET settled = ?", (upto,))


def settled(connection: apsw.Connection) -> int:
    """Return ``settled``, 0 if it was never set."""
    return int(value(connection, f"SELECT max(settled) FROM mirror.{POSITION} WHERE typeof(settled) = 'integer'") or 0)


def forget_node(connection: apsw.Connection) -> None:
    """Remove node-private facts from a copy of a mirror, the connection's main file."""
    prepare(connection, "main")
    _under_stream_names(connection)
    connection.execute(f"UPDATE main.{TABLES} SET id = NULL")
    connection.execute(f"UPDATE main.{column_ids.COLUMNS} SET number = 0")
    connection.execute(f"UPDATE main.{POSITION} SET {', '.join(f'{name} = NULL' for name in OWN_FACTS)}")
    set_state(connection, "main", PAIR, None)


def _under_stream_names(connection: apsw.Connection) -> None:
    """Give the tables of a copy the names that the stream has for them; what its node is still to send is not in it."""
    columns, known = column_ids.COLUMNS, stream_schema.read_catalog(connection, "main")
    names = {table.id: table.name for table in known.values() if table.id}
    listed = rows(connection, f"SELECT tbl, id FROM main.{columns} WHERE name = ''")
    moves = {table: names.get(id_, "") for table, id_ in listed if names.get(id_) != table}
    there = rows(connection, "SELECT name FROM main.sqlite_schema WHERE type = 'table'")
    unsent = {name for (name,) in there} - {table for table, _ in listed}
    # one without an identity is this node's own, which waits for a name that the stream has given to another table
    moves |= dict.fromkeys(unsent & set(moves.values()), "")
    connection.execute("PRAGMA legacy_alter_table = ON")
    for place, (table, name) in enumerate(moves.items()):
        if name:
            connection.execute(f"ALTER TABLE main.{quote(table)} RENAME TO {quote(f'{PRIVATE}aside{place}')}")
        else:
            connection.execute(f"DROP TABLE IF EXISTS main.{quote(table)}")
            connection.execute(f"DELETE FROM main.{columns} WHERE tbl = ?", (table,))
            connection.execute(f"DELETE FROM main.{TABLES} WHERE name = ?", (table,))
    for place, (table, name) in enumerate(moves.items()):
        for kept, column in ((columns, "tbl"), (TABLES, "name")) if name else ():
            connection.execute(f"UPDATE main.{kept} SET {column} = ? WHERE {column} = ?", (f"\0{place}", table))
    for place, name in enumerate(moves.values()):
        if name:
            connection.execute(f"ALTER TABLE main.{quote(f'{PRIVATE}aside{place}')} RENAME TO {quote(name)}")
        for kept, column in ((columns, "tbl"), (TABLES, "name")) if name else ():
            connection.execute(f"UPDATE main.{kept} SET {column} = ? WHERE {column} = ?", (name, f"\0{place}"))


def merged_positions(connection: apsw.Connection, mirror: str = "mirror") -> dict[int, Position]:
    """Return how far the database is merged, by shard; ``mirror``: the schema that its mirror is attached as.

    A change set that brought the database no row moved only the mirror's positions. So if the database records what
    ``noted`` says, it is as far as the mirror. If not, a crash or a restored backup came in between, and the database's
    own record counts.
    """
    own = positions(connection, "main")
    if not get_state(connection, "main", "joined"):
        return own
    noted = dict(rows(connection, f"SELECT shard, noted FROM {mirror}.{POSITION} WHERE noted IS NOT NULL"))
    there = positions(connection, mirror)
    own = {shard: Position(shard) for shard in there} | own
    return own | {s: p for s, p in there.items() if noted.get(s, 0) == own[s].seq <= p.seq}


def unwritable_before(connection: apsw.Connection) -> set[str]:
    """Return the tables that this process could not write, or that have not joined since it can."""
    return get_names(connection, "main", UNWRITABLE)


def remember_unwritable(connection: apsw.Connection, names: Collection[str]) -> None:
    """Store the next result of `unwritable_before`, within a transaction."""
    set_names(connection, "main", UNWRITABLE, names)


def held_rows(connection: apsw.Connection) -> int:
    """Return the number of rows that are held back."""
    return int(value(connection, f"SELECT count(*) FROM main.{quote(HELD)}"))


def table_ids(connection: apsw.Connection) -> dict[str, int | None]:
    """Return the tables of the mirror by name, with the log's id of those that the database has, too; `DROPPED`
    if the database dropped it, None if it never had it.
    """
    return dict(rows(connection, f"SELECT name, id FROM mirror.{TABLES}"))


def set_table_id(connection: apsw.Connection, name: str, number: int | None) -> None:
    """Record a table of the mirror; ``number``: see `table_ids`."""
    connection.execute(f"INSERT OR REPLACE INTO mirror.{TABLES} VALUES (?, ?)", (name, number))
