"""Swap the mirror file under an open replica.

Invariant: the old mirror stays in place until the new one's rows are committed to the database; after a crash midway
the old one is still there, and the swap can be repeated. The file is replaced only while nothing else has it open: a
connection that survived the swap would share the new file's ``-shm`` and ``-wal``, and checkpoint it into the old one
when it closes. So `Readers` counts copies and digests, which read the mirror on separate threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

import apsw

from harmonylite.db.mirror import mirror_file, table_shapes
from harmonylite.db.mirror.database_schema import sent_there
from harmonylite.db.mirror.former_names import carry_over, gone_columns
from harmonylite.db.sqlite.connection import attach, mapped, reading, uri_path, value
from harmonylite.db.sqlite.introspection import TableRules, read_inventory
from harmonylite.errors import DatabaseBusyError, DatabaseError, EncodingError, MirrorDamagedError, SchemaWaitError
from harmonylite.schema.names import folded
from harmonylite.schema.shape import TableShape


@contextmanager
def exchanged(
    connection: apsw.Connection, current: Path, incoming: Path, readers: Readers, attach_again: Callable[[], None]
) -> Iterator[None]:
    """Attach ``incoming`` as ``mirror``, and the mirror ``current`` as ``base``, while the block runs.

    If the block succeeds, ``incoming`` replaces ``current``. Raises DatabaseBusyError while another process reads the
    mirror.
    """
    mirror_file.use_wal(incoming)
    with readers.alone():
        with mapped(f"checkpoint {current}"):
            if value(connection, "PRAGMA mirror.wal_checkpoint(TRUNCATE)"):
                raise DatabaseBusyError(f"the mirror {current} can't be exchanged while another process reads it")
            connection.execute("DETACH base")
            connection.execute("DETACH mirror")
        done = False
        try:
            attach(connection, incoming, "mirror")
            with mapped(f"attach {current}"):
                connection.execute("ATTACH ? AS base", ("file:" + uri_path(current) + "?immutable=1",))
            carry_over(connection)
            yield
            done = True
        finally:
            there = {name for (_, name, _) in connection.execute("PRAGMA database_list")}
            for name in ("base", "mirror"):
                if name in there:
                    connection.execute(f"DETACH {name}")
            if done:
                incoming.replace(current)
            try:
                attach_again()
            except (DatabaseError, apsw.Error) as error:
                # A connection without a mirror is useless: the files are opened again.
                raise MirrorDamagedError(f"the mirror {current} can't be attached again: {error}") from error


def must_share_encoding(connection: apsw.Connection, database: Path, incoming: Path) -> None:
    """Raise EncodingError if the mirror file ``incoming`` has another text encoding than ``database``.

    SQLite then refuses to attach it (SQLite: lang_attach), also UTF-16le to UTF-16be.
    """
    with reading(incoming) as other:
        mine, theirs = str(connection.pragma("encoding")), str(other.pragma("encoding"))
    if mine != theirs:
        raise EncodingError(database, mine, theirs)


def must_fit(connection: apsw.Connection, rules: TableRules, incoming: Path, *, whole: bool = False) -> dict[str, str]:
    """Return sentences on the columns of the mirror file ``incoming`` that have another affinity than here.

    Raises SchemaWaitError if it has a column that this database's table never had, or, ``whole``, lacks a column of
    this database: a mirror follows its database's schema, so it would lose that column's values.
    """
    attach(connection, incoming, "incoming", read_only=True)
    try:
        mine = {folded(name): shape for name, shape in read_inventory(connection, rules).tables.items()}
        there = read_inventory(connection, mirror_file.EVERY_TABLE, "incoming").tables
        sent = sent_there(connection, "incoming")
        for name, shape in mine.items() if whole else ():
            found = next((other.names for other in there.values() if folded(other.name) == name), ())
            if lacks := [column for column in shape.names if column not in found]:
                raise SchemaWaitError(f"a snapshot has no column {lacks[0]} of table {shape.name}")
        for name, theirs in there.items():
            here = mine.get(folded(name))
            gone = gone_columns(connection, here.name) if here is not None else set(theirs.names)
            if sent is not None:  # the stream has no values of columns that its own database had not sent yet
                gone |= {column for column in theirs.names if folded(column) not in sent.get(folded(name), ())}
            lost = [column for column in table_shapes.lost(theirs, here) if column not in gone]
            if lost:
                what = f"a snapshot has column {lost[0]} of table {name}"
                raise SchemaWaitError(f"{what}, which this database does not have")
        return _unlike(mine, there.values())
    finally:
        connection.execute("DETACH incoming")


def _unlike(mine: Mapping[str, TableShape], there: Iterable[TableShape]) -> dict[str, str]:
    """Return the affinities that differ between this database and a snapshot, by table and column."""
    found = {}
    for theirs in there:
        shape = mine.get(folded(theirs.name))
        known = {folded(column.name): column.affinity for column in theirs.columns}
        for column in shape.columns if shape is not None else ():
            other = known.get(folded(column.name), column.affinity)
            if shape is not None and other != column.affinity:
                found[f"{shape.name}.{column.name}"] = (
                    f"column {column.name} of table {shape.name} has the affinity {column.affinity} here and {other} in"
                    " the cluster: one value may be kept in two types and compare unlike; declare it alike everywhere"
                )
    return found


class Readers:
    """Counts the readers of one mirror file; safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._count = 0

    def enter(self) -> None:
        """Begin to read; raises DatabaseBusyError during a swap."""
        with self._lock:
            if self._count < 0:
                raise DatabaseBusyError("the mirror is being exchanged")
            self._count += 1

    def leave(self) -> None:
        """End what `enter` began."""
        with self._lock:
            self._count -= 1

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Read while the block runs; raises DatabaseBusyError during a swap."""
        self.enter()
        try:
            yield
        finally:
            self.leave()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep readers out while the block runs; raises DatabaseBusyError when there is one."""
        with self._lock:
            if self._count:
                raise DatabaseBusyError("the mirror can't be exchanged while it is copied or digested")
            self._count = -1
        try:
            yield
        finally:
            with self._lock:
                self._count = 0
