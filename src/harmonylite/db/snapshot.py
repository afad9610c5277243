"""Make a snapshot from a mirror, and a database from a snapshot.

Invariant: a snapshot is the mirror's state at one commit, positions inside, and nothing private of the node that took
it; a database appears under its name whole or not at all, with the access rights of the one before it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Concatenate, Literal, ParamSpec, TypeVar

import apsw

from harmonylite.changes.epochs import Lineage
from harmonylite.db.mirror import mirror_file
from harmonylite.db.mirror.conflict_journal import recent_ends
from harmonylite.db.mirror.database_schema import remembered
from harmonylite.db.mirror.file_facts import finish, lay_out
from harmonylite.db.mirror.positions import begin_epoch, read_lineage
from harmonylite.db.mirror.state import get_state
from harmonylite.db.mirror.stream_schema import has_catalog, read_catalog
from harmonylite.db.replica import Replica
from harmonylite.db.replica_options import ReplicaOptions
from harmonylite.db.sqlite.connection import attach, mapped, open_file, reading, rows, transaction, value
from harmonylite.db.sqlite.deadline import Deadline
from harmonylite.db.sqlite.file_access import Access, access_of, make_file, make_private
from harmonylite.db.sqlite.introspection import TableRules
from harmonylite.db.sqlite.overwriting import Seen
from harmonylite.db.sqlite.untrusted_ddl import SECONDS, Definition, apply, decode
from harmonylite.errors import DatabaseBusyError, DatabaseError
from harmonylite.schema.catalog import Catalog
from harmonylite.schema.section import key_of
from harmonylite.schema.sql import is_private
from harmonylite.schema.table_text import normal

log = logging.getLogger(__name__)

SIDE_FILES = ("-wal", "-shm", "-journal")
"""Suffixes of SQLite's files beside a database."""

P = ParamSpec("P")
T = TypeVar("T")


def save_copy(source: Path, target: Path, *, beginning: Callable[[Lineage], Lineage] | None = None) -> Lineage:
    """Write the mirror ``source`` as it is now into the new file ``target``; return its lineage.

    ``beginning``: makes of that where a new history begins; the copy then begins there. Opens its own connection and
    may run on any thread; the application's file is not touched. The caller keeps the mirror from being exchanged.
    ``target`` is for this user alone.
    """
    with mapped(f"make {target}"):
        make_private(target)
    reader = open_file(source, read_only=True)
    try:
        with mapped(f"copy {source}"):
            reader.pragma("page_size", mirror_file.PAGE_BYTES)  # the copy's
            reader.execute("VACUUM INTO ?", (str(target),))
    finally:
        reader.close()
    copy = open_file(target)
    try:
        with transaction(copy, f"make a snapshot of {source}"):
            if not get_state(copy, "main", "whole"):
                raise DatabaseError(f"the mirror {source} was just made and holds nothing yet")
            mirror_file.forget_node(copy)
            if beginning is not None:
                begin_epoch(copy, beginning(read_lineage(copy, "main")))
        return read_lineage(copy, "main")
    finally:
        copy.close()


def save_mirror(
    options: ReplicaOptions, target: Path, *, beginning: Callable[[Lineage], Lineage] | None = None
) -> Lineage:
    """Write a replica's mirror as it is now into the new file ``target``; see `save_copy`."""
    with options.readers.reading():
        return save_copy(options.mirror, target, beginning=beginning)


def lineage_of(snapshot: Path) -> Lineage:
    """Return a snapshot's lineage."""
    with reading(snapshot) as connection:
        return read_lineage(connection, "main")


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


def make_schema(
    connection: apsw.Connection, snapshot: Path, deadline: Deadline, stream: TableRules | None = None
) -> None:
    """Make every table, index, view and trigger that the snapshot's database had, in one transaction.

    ``stream``: rules of a node in a cluster where all changes travel: the tables that they want are the stream's.
    Raises DefinitionError for what is none of these, OverdueError.
    """
    with reading(snapshot) as source:
        listed = remembered(source)
        if stream is not None and has_catalog(source, "main"):
            listed = _of_stream(listed, read_catalog(source, "main"), stream)
    with transaction(connection, "make the schema", immediate=True):
        left_out = apply(connection, listed, deadline.within(SECONDS))
    for definition, why in left_out.items():
        log.warning("left %(object)s out of the new database: %(reason)s", {"object": definition, "reason": why})


def _of_stream(listed: Sequence[Definition], catalog: Catalog, rules: TableRules) -> list[Definition]:
    """Return what a database that follows the stream's schema begins with: what its donor had not sent is not in it."""
    tables = [decode((k.kind, k.name, k.table, k.sql)) for k in catalog.values() if k.kind == "table"]
    others = [d for d in listed if d.kind != "table" and rules.wanted(d.table)]
    same = [d for d in others if (k := catalog.get(key_of(d.kind, d.name))) and normal(k.sql) == normal(d.sql)]
    return [*tables, *same, *(d for d in listed if not rules.wanted(d.table))]


def has_tables(path: Path) -> bool:
    """Return whether a database holds any table of the application's."""
    connection = open_file(path, read_only=True)
    try:
        with mapped(f"read {path}"):
            names = rows(connection, "SELECT name FROM sqlite_schema WHERE type = 'table'")
    finally:
        connection.close()
    return any(not is_private(name) and not name.startswith("sqlite_") for (name,) in names)


def begin_hidden(options: ReplicaOptions, snapshot: Path, deadline: Deadline, *, into: Path | None = None) -> Replica:
    """Open a replica whose database no application sees yet: it has the schema that ``snapshot`` remembers, and no row.

    ``snapshot`` becomes the mirror. `fill` brings the rows in, `offer` puts the database in its place, or `pour` its
    content ``into`` the file that is there. ``deadline`` may end it.
    """
    building = begin_database(options, snapshot, deadline, into=into)
    install_mirror(options, snapshot)
    return _open(options, building)


def _open(options: ReplicaOptions, building: Path) -> Replica:
    """Open ``building`` in the database's place; what is made here takes all rows, also where the node takes none."""
    made: Literal["all", "additive"] = "all" if options.sends_all else "additive"
    replica = Replica(replace(options, database=building, replicate=True, apply_schema=made, seen=Seen()))
    replica.open()
    return replica


def begin_database(
    options: ReplicaOptions,
    snapshot: Path,
    deadline: Deadline,
    *,
    access: Access | None = None,
    into: Path | None = None,
) -> Path:
    """Make the schema that ``snapshot`` remembers in a new file beside the database; return the file.

    It has ``access``, else that of the database, else that of the mirror, which has the one of the database before.
    ``into``: the file whose page size it has, for `pour`.
    """
    building = options.database.with_name(f".{options.database.name}.building")
    with mapped(f"make {building}"):
        drop(building)
        make_file(building, access or access_of(options.database, options.mirror))
    connection = open_file(building)
    try:
        page_size = None
        if into is not None:
            with reading(into) as given:
                page_size = int(value(given, "PRAGMA page_size"))
        with reading(snapshot) as source:
            connection.execute(f"PRAGMA encoding = '{source.pragma('encoding')}'")
            lay_out(connection, source, page_size)
        connection.pragma("journal_mode", "wal")
        make_schema(connection, snapshot, deadline, options.rules if options.sends_all else None)
    except BaseException:
        connection.close()
        drop(building)
        raise
    connection.close()
    return building


def drop(building: Path) -> None:
    """Remove a database that no application has seen, and what SQLite left beside it."""
    for side in ("", *SIDE_FILES):
        Path(f"{building}{side}").unlink(missing_ok=True)


def fill_database(options: ReplicaOptions, building: Path, deadline: Deadline) -> Replica:
    """Bring the mirror's rows into ``building``; return the open replica of both. See `fill`."""
    replica = _open(options, building)
    try:
        fill(replica, deadline)
    except BaseException:
        replica.close()
        drop(building)
        raise
    return replica


def fill(replica: Replica, deadline: Deadline) -> None:
    """Copy the mirror's rows into a database that no application sees yet.

    The application's triggers on tables that are not replicated run for every row, so an FTS index is there too; raises
    OverdueError when ``deadline`` ends, however long they take.
    """
    with deadline.bounding(replica.connection), _unlogged(replica.connection):
        replica.reconcile(first=True)
        with transaction(replica.connection, "finish the database"):
            finish(replica.connection)


@contextmanager
def _unlogged(connection: apsw.Connection) -> Iterator[None]:
    """Write pages once, straight into a new file that no other process knows yet; a partial file is thrown away as a
    whole.

    A write-ahead log would have every page written twice. A journal in memory holds only what was in the file before.
    """
    for name, setting in (("journal_mode", "memory"), ("synchronous", "off")):
        connection.execute(f"PRAGMA main.{name} = {setting}")
    yield
    for name, setting in (("journal_mode", "wal"), ("synchronous", "normal")):
        connection.execute(f"PRAGMA main.{name} = {setting}")


def seal(replica: Replica) -> None:
    """Close a replica whose database no application sees yet, with everything in that file itself and none beside it.

    Raises DatabaseError, and the replica is closed all the same.
    """
    try:
        with mapped(f"checkpoint {replica.options.database}"):
            if value(replica.connection, "PRAGMA main.wal_checkpoint(TRUNCATE)"):
                raise DatabaseBusyError(f"{replica.options.database} can't be finished while another process reads it")
    finally:
        replica.close()


def put_in_place(building: Path, path: Path) -> None:
    """Make the closed file ``building`` the database, in one step."""
    _sync(building)
    building.replace(path)
    _sync(path.parent)


def offer(building: Path, path: Path) -> None:
    """Make the closed file ``building`` the database that does not exist, in one step.

    Raises DatabaseError where there is one by now. SQLite would take a write-ahead log that a deleted database left
    behind for this one's (SQLite: howtocorrupt, section 1.4): it goes first.
    """
    _sync(building)
    if not path.exists():
        for side in SIDE_FILES:
            Path(f"{path}{side}").unlink(missing_ok=True)
    try:
        path.hardlink_to(building)
    except FileExistsError:
        raise DatabaseError(f"the database {path} was made by another program meanwhile") from None
    building.unlink()
    _sync(path.parent)


def pour(building: Path, path: Path) -> None:
    """Bring all that the closed file ``building`` holds into the database ``path``, in one transaction.

    Others who have it open see no table, then all rows (SQLite: c3ref/backup_finish). Raises DatabaseError where
    a program made a table there meanwhile, DatabaseBusyError.
    """
    source, target = open_file(building), open_file(path)
    try:
        with mapped(f"fill {path}"):
            if target.pragma("journal_mode", "wal") != "wal":
                raise DatabaseBusyError(f"{path} can't be filled while another connection keeps it out of WAL mode")
            with target.backup("main", source, "main") as copying:
                copying.step(0)  # takes the write lock, so that no application makes a table after the check
                if has_tables(path):
                    raise DatabaseError(f"the database {path} was made by another program meanwhile")
                copying.step()
    finally:
        target.close()
        source.close()


def _sync(path: Path) -> None:
    """Sync a file, or a folder's list of files, to disk."""
    there = os.open(path, os.O_RDONLY)
    try:
        os.fsync(there)
    finally:
        os.close(there)


def install_mirror(options: ReplicaOptions, snapshot: Path) -> None:
    """Put ``snapshot`` in the mirror's place; no replica may be open. Raises DatabaseBusyError while it is read."""
    target = options.mirror
    target.parent.mkdir(parents=True, exist_ok=True)
    mirror_file.use_wal(snapshot)  # the last one to close it brings what its -wal holds into the file
    with options.readers.alone():
        for leftover in (target, Path(f"{target}-wal"), Path(f"{target}-shm")):
            leftover.unlink(missing_ok=True)
        snapshot.replace(target)
