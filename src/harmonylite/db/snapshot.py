"""Make a snapshot from a mirror, and a database from a snapshot.

Invariant: a snapshot is the mirror as it was at one commit, positions inside, and nothing private of the node that took
it; a database appears under its name whole or not at all.
"""

from __future__ import annotations

import os
from pathlib import Path

import apsw

from harmonylite.db import mirror
from harmonylite.db.connection import mapped, open_file, rows, transaction
from harmonylite.db.remember import SCHEMA
from harmonylite.db.replica import Replica, ReplicaOptions
from harmonylite.model import Position
from harmonylite.schema.sql import is_private


def save_copy(source: Path, target: Path) -> dict[int, Position]:
    """Write the mirror ``source`` as it is now into the new file ``target``; return its positions.

    Opens its own connection and may run on any thread; the application's file is not touched.
    """
    reader = open_file(source, read_only=True)
    try:
        with mapped(f"copy {source}"):
            reader.execute("VACUUM INTO ?", (str(target),))
    finally:
        reader.close()
    copy = open_file(target)
    try:
        with transaction(copy, f"make a snapshot of {source}"):
            copy.execute(f"DELETE FROM main.{mirror.SKIP}")
            copy.execute(f"UPDATE main.{mirror.TABLES} SET id = NULL")
        return mirror.positions(copy, "main")
    finally:
        copy.close()


def make_schema(connection: apsw.Connection, snapshot: Path) -> None:
    """Make every table, index, view and trigger that the snapshot's database had, in one transaction."""
    source = open_file(snapshot, read_only=True)
    try:
        listed = rows(source, f"SELECT type, name, sql FROM {SCHEMA}")
    finally:
        source.close()
    with transaction(connection, "make the schema", immediate=True):
        for _, _, sql in sorted(listed, key=_rank):
            connection.execute(sql)


def _rank(item: tuple[str, str, str]) -> int:
    """Tables first, virtual ones after those that they index, then what refers to tables."""
    kind, _, sql = item
    if kind == "table":
        return 1 if sql.upper().startswith("CREATE VIRTUAL") else 0
    return {"index": 2, "view": 3, "trigger": 4}[kind]


def make_schema_in(path: Path, snapshot: Path) -> None:
    """Make the schema in a database file that exists and holds no table."""
    connection = open_file(path)
    try:
        make_schema(connection, snapshot)
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


def make_database(options: ReplicaOptions, snapshot: Path) -> None:
    """Make the database that does not exist from ``snapshot``, which becomes its mirror.

    The application's triggers on tables that are not replicated run for every row, so an FTS index is there too.
    """
    path = options.database
    building = path.with_name(f".{path.name}.building")
    for leftover in (building, Path(f"{building}-wal"), Path(f"{building}-shm")):
        leftover.unlink(missing_ok=True)
    connection = open_file(building, create=True)
    try:
        source = open_file(snapshot, read_only=True)
        encoding = source.pragma("encoding")
        source.close()
        connection.execute(f"PRAGMA encoding = '{encoding}'")
        connection.pragma("journal_mode", "wal")
        make_schema(connection, snapshot)
    finally:
        connection.close()
    install_mirror(options, snapshot)
    replica = Replica(
        ReplicaOptions(building, options.folder, options.node, options.session, options.shards, rules=options.rules)
    )
    replica.open()
    try:
        replica.reconcile(first=True)
    finally:
        replica.close()
    with building.open("rb") as finished:
        os.fsync(finished.fileno())
    building.replace(path)


def install_mirror(options: ReplicaOptions, snapshot: Path) -> None:
    """Put ``snapshot`` in the mirror's place; no replica may be open."""
    target = options.mirror
    target.parent.mkdir(parents=True, exist_ok=True)
    for leftover in (target, Path(f"{target}-wal"), Path(f"{target}-shm")):
        leftover.unlink(missing_ok=True)
    snapshot.replace(target)
    mirror.use_wal(target)
