"""Make a snapshot from a mirror, and a database from a snapshot.

Invariant: a snapshot is the mirror as it was at one commit, positions inside, and nothing private of the node that took
it; a database appears under its name whole or not at all, with the access of the one before it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

import apsw

from harmonylite.changes.histories import Standing
from harmonylite.db import mirror
from harmonylite.db.access import Access, access_of, make_file, make_private
from harmonylite.db.connection import attach, mapped, open_file, reading, rows, transaction
from harmonylite.db.definitions import SECONDS, apply
from harmonylite.db.journal import recent_ends
from harmonylite.db.patience import Patience
from harmonylite.db.remember import remembered
from harmonylite.db.replica import Replica, ReplicaOptions
from harmonylite.db.standing import begin_anew, read_standing
from harmonylite.errors import DatabaseError
from harmonylite.schema.sql import is_private

P = ParamSpec("P")
T = TypeVar("T")


def save_copy(source: Path, target: Path, *, beginning: Callable[[Standing], Standing] | None = None) -> Standing:
    """Write the mirror ``source`` as it is now into the new file ``target``; return where it stands.

    ``beginning``: makes of that where a new history begins; the copy then stands there. Opens its own connection and
    may run on any thread; the application's file is not touched. The caller keeps the mirror from being exchanged.
    ``target`` is for this user alone.
    """
    with mapped(f"make {target}"):
        make_private(target)
    reader = open_file(source, read_only=True)
    try:
        with mapped(f"copy {source}"):
            reader.execute("VACUUM INTO ?", (str(target),))
    finally:
        reader.close()
    copy = open_file(target)
    try:
        with transaction(copy, f"make a snapshot of {source}"):
            if not mirror.get_state(copy, "main", "whole"):
                raise DatabaseError(f"the mirror {source} was just made and holds nothing yet")
            copy.execute(f"DELETE FROM main.{mirror.SKIP}")
            copy.execute(f"UPDATE main.{mirror.TABLES} SET id = NULL")
            mirror.set_state(copy, "main", mirror.PAIR, None)
            if beginning is not None:
                begin_anew(copy, beginning(read_standing(copy, "main")))
        return read_standing(copy, "main")
    finally:
        copy.close()


def standing_of(snapshot: Path) -> Standing:
    """Return where a snapshot stands."""
    with reading(snapshot) as connection:
        return read_standing(connection, "main")


def ends_of(snapshot: Path) -> dict[int, int]:
    """Return how many change sets of each shard a snapshot ever folded; see `recent_ends`."""
    with reading(snapshot) as connection:
        return recent_ends(connection, "main")


def reading_as_mirror(
    snapshot: Path, read: Callable[Concatenate[apsw.Connection, P], T], *args: P.args, **kwargs: P.kwargs
) -> T:
    """Return what ``read`` finds in a snapshot, as schema ``mirror`` of the connection that it is given."""
    with reading(snapshot) as connection:
        attach(connection, snapshot, "mirror", read_only=True)
        return read(connection, *args, **kwargs)


def make_schema(connection: apsw.Connection, snapshot: Path, patience: Patience) -> None:
    """Make every table, index, view and trigger that the snapshot's database had, in one transaction.

    Raises DefinitionError for what is none of these, OverdueError.
    """
    with reading(snapshot) as source:
        listed = remembered(source)
    with transaction(connection, "make the schema", immediate=True):
        apply(connection, listed, patience.within(SECONDS))


def make_schema_in(path: Path, snapshot: Path, patience: Patience) -> None:
    """Make the schema in a database file that exists and holds no table."""
    connection = open_file(path)
    try:
        make_schema(connection, snapshot, patience)
    finally:
        connection.close()


def has_tables(path: Path) -> bool:
    """Tell whether a database holds any table of the application's."""
    connection = open_file(path, read_only=True)
    try:
        with mapped(f"read {path}"):
            names = rows(connection, "SELECT name FROM sqlite_schema WHERE type = 'table'")
    finally:
        connection.close()
    return any(not is_private(name) and not name.startswith("sqlite_") for (name,) in names)


def make_database(options: ReplicaOptions, snapshot: Path, patience: Patience | None = None) -> None:
    """Make the database that does not exist from ``snapshot``, which becomes its mirror; ``patience`` may end it."""
    patience = patience or Patience()
    building = begin_database(options, snapshot, patience)
    install_mirror(options, snapshot)
    replica = fill_database(options, building, patience)
    replica.close()
    put_in_place(building, options.database)


def begin_database(
    options: ReplicaOptions, snapshot: Path, patience: Patience, *, access: Access | None = None
) -> Path:
    """Make the schema that ``snapshot`` remembers in a new file beside the database; return the file.

    It has ``access``, else that of the database, else that of the mirror, which has the one of the database before.
    """
    building = options.database.with_name(f".{options.database.name}.building")
    with mapped(f"make {building}"):
        _drop(building)
        make_file(building, access or access_of(options.database, options.mirror))
    connection = open_file(building)
    try:
        with reading(snapshot) as source:
            encoding = source.pragma("encoding")
        connection.execute(f"PRAGMA encoding = '{encoding}'")
        connection.pragma("journal_mode", "wal")
        make_schema(connection, snapshot, patience)
    except BaseException:
        connection.close()
        _drop(building)
        raise
    connection.close()
    return building


def _drop(building: Path) -> None:
    for side in ("", "-wal", "-shm"):
        Path(f"{building}{side}").unlink(missing_ok=True)


def fill_database(options: ReplicaOptions, building: Path, patience: Patience) -> Replica:
    """Bring the mirror's rows into ``building``; return the open replica of both.

    The application's triggers on tables that are not replicated run for every row, so an FTS index is there too; raises
    OverdueError when ``patience`` ends, however long they take.
    """
    replica = Replica(
        ReplicaOptions(
            building,
            options.folder,
            options.node,
            options.session,
            options.shards,
            rules=options.rules,
            readers=options.readers,
        )
    )
    replica.open()
    try:
        with patience.bounding(replica.connection), _unlogged(replica.connection):
            replica.reconcile(first=True)
    except BaseException:
        replica.close()
        _drop(building)
        raise
    return replica


@contextmanager
def _unlogged(connection: apsw.Connection) -> Iterator[None]:
    """Write pages once, straight into a new file that nobody knows yet; what is cut off is thrown away as a whole.

    A write-ahead log would have every page written twice. A journal in memory holds only what was in the file before.
    """
    for name, setting in (("journal_mode", "memory"), ("synchronous", "off")):
        connection.execute(f"PRAGMA main.{name} = {setting}")
    yield
    for name, setting in (("journal_mode", "wal"), ("synchronous", "normal")):
        connection.execute(f"PRAGMA main.{name} = {setting}")


def put_in_place(building: Path, path: Path) -> None:
    """Make the closed file ``building`` the database, in one step."""
    with building.open("rb") as finished:
        os.fsync(finished.fileno())
    building.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def install_mirror(options: ReplicaOptions, snapshot: Path) -> None:
    """Put ``snapshot`` in the mirror's place; no replica may be open. Raises DatabaseBusyError while it is read."""
    target = options.mirror
    target.parent.mkdir(parents=True, exist_ok=True)
    mirror.use_wal(snapshot)  # whoever opens and closes it last brings what its -wal holds into the file
    with options.readers.alone():
        for leftover in (target, Path(f"{target}-wal"), Path(f"{target}-shm")):
            leftover.unlink(missing_ok=True)
        snapshot.replace(target)
