"""Damaged files: find them, quarantine them, and rebuild the database from its mirror.

Invariant: a damaged file is never deleted or written to; it stays beside the new file, under a name with the time. Rows
of a damaged database that were never published go into the new one.
"""

from __future__ import annotations

import glob
import logging
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain, count
from pathlib import Path
from typing import Any

import apsw

from harmonylite.changes.epochs import Lineage
from harmonylite.db.capture import merge_base
from harmonylite.db.mirror import conflict_journal
from harmonylite.db.mirror.positions import read_lineage
from harmonylite.db.replica import Replica
from harmonylite.db.replica_options import ReplicaOptions
from harmonylite.db.snapshot import SIDE_FILES, begin_hidden, fill, install_mirror, put_in_place, seal
from harmonylite.db.sqlite.connection import attach, mapped, open_file, reading, rows, value
from harmonylite.db.sqlite.deadline import Deadline
from harmonylite.db.sqlite.encryption import is_encrypted
from harmonylite.db.sqlite.lossless import exact_rows, marks
from harmonylite.db.tracking.tracked_table import TrackedTable
from harmonylite.db.tracking.triggers import BASE, HELD, LOG, OVERRULED, STATE, trigger_tables
from harmonylite.db.tracking.watermarks import new_rows
from harmonylite.errors import DatabaseDamagedError, DatabaseEncryptedError, DatabaseError
from harmonylite.model import RawText
from harmonylite.schema.sql import quote

log = logging.getLogger(__name__)

LINES = 50
"""How many findings a check returns at most."""
VIRTUAL = ("malformed inverted index", "unable to validate the inverted index", "In RTree")
"""How findings about virtual tables begin (SQLite: fts3, fts5 and rtree)."""


def damage(path: Path, *, thorough: bool = False, deadline: Deadline | None = None) -> str:
    """Return what is wrong with an SQLite file, "" if nothing is (SQLite: PRAGMA quick_check).

    ``thorough``: also check that indexes agree with their tables (PRAGMA integrity_check), which takes several times as
    long. Raises OverdueError when ``deadline`` ends.
    """
    check = "integrity_check" if thorough else "quick_check"
    try:
        if Path(f"{path}-journal").exists():
            _roll_back(path)
        connection = open_file(path, read_only=True)
        try:
            connection.pragma("ignore_check_constraints", 1)  # a merge of columns may break one; that is no damage
            with mapped(f"check {path}"), (deadline or Deadline()).bounding(connection):
                listed = _check(connection, check)
        finally:
            connection.close()
    except DatabaseError as error:  # of any kind: "unsupported file format" where the header is plain
        if is_encrypted(path):
            return str(DatabaseEncryptedError(path))
        if isinstance(error, DatabaseDamagedError):
            return str(error)
        raise
    # What an index of the application's says of itself (SQLite checks virtual tables too) is no damage of the file.
    found = [line for line in listed if line != "ok" and not line.startswith(VIRTUAL)]
    return "; ".join(found[:3])


def _check(connection: apsw.Connection, check: str) -> list[str]:
    """Return the lines of a check, of every table that can be checked where one needs what this process lacks.

    SQLite refuses the whole check for the collation of one column, or the function of one index; that is no damage.
    """
    try:
        return [str(line) for (line,) in rows(connection, f"PRAGMA {check}({LINES})")]
    except apsw.SQLError as error:
        found: list[str] = []
        for (name,) in rows(connection, "SELECT name FROM sqlite_schema WHERE type = 'table'"):
            try:
                found += [str(line) for (line,) in rows(connection, f"PRAGMA {check}({quote(name)})")]
            except apsw.SQLError as missing:
                log.info("skipped the check of table %(table)s: %(reason)s", {"table": name, "reason": missing})
        log.debug("checked table by table: %(error)s", {"error": error})
        return found


def _roll_back(path: Path) -> None:
    """Roll back what a crash left half written; a read-only connection can't (SQLite: SQLITE_READONLY_ROLLBACK)."""
    connection = open_file(path)
    try:
        with mapped(f"roll {path} back"):
            value(connection, "SELECT count(*) FROM sqlite_schema")
    finally:
        connection.close()


def set_aside(path: Path) -> Path:
    """Give a damaged file and its side files a name that says when; return it."""
    aside = aside_of(path)
    for side in ("", *SIDE_FILES):
        if Path(f"{path}{side}").exists():
            Path(f"{path}{side}").replace(f"{aside}{side}")
    return aside


def was_set_aside(path: Path) -> bool:
    """Return whether a damaged file of this name was ever quarantined."""
    return any(path.parent.glob(f"{glob.escape(path.name)}.damaged-*"))


def aside_of(path: Path, what: str = "damaged") -> Path:
    """Return an unused name that says when ``path`` was ``what``."""
    name = f"{path.name}.{what}-{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}"
    names = chain([name], (f"{name}-{number}" for number in count(2)))
    return next(aside for each in names if not (aside := path.with_name(each)).exists())


def begin_healing(options: ReplicaOptions, mirror: Path, deadline: Deadline) -> Replica:
    """Open a replica that is to take a damaged database's place; no application sees it yet, and no row is in it.

    ``mirror``, a copy of the mirror or a snapshot, is taken over; the node's own files stay where they are. The new
    database has the access of the damaged one. ``deadline`` may end it.
    """
    scratch = options.folder / "healing"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(mode=0o700)
    return begin_hidden(replace(options, folder=scratch), mirror, deadline)


def save_pending(replica: Replica, damaged: Path, deadline: Deadline) -> int:
    """Fill a replica that `begin_healing` opened, and bring over what the damaged database's log names; return how many
    rows that was.

    They are pending there on top of the mirror as it is now, which must be the one that they were written on.
    """
    fill(replica, deadline)
    return _save_pending(replica, damaged)


def finish_healing(options: ReplicaOptions, replica: Replica) -> Path:
    """Put a healed database in the damaged one's place, then its mirror; return where the damaged one is kept.

    A crash in between leaves the database ahead of its mirror, as one between two commits does. Connections of the
    application that are open stay with the damaged file. Raises DatabaseError with the damaged file where it was.
    """
    path, building, mirror = options.database, replica.options.database, replica.options.mirror
    seal(replica)
    aside = aside_of(path)
    os.link(path, aside)
    for side in SIDE_FILES:
        if Path(f"{path}{side}").exists():
            Path(f"{path}{side}").replace(f"{aside}{side}")
    put_in_place(building, path)
    install_mirror(options, mirror)
    shutil.rmtree(mirror.parent, ignore_errors=True)
    return aside


def readable_lineage(damaged: Path) -> Lineage:
    """Return the positions of a damaged database, the very beginning where they can't be read."""
    try:
        with reading(damaged) as connection:
            return read_lineage(connection, "main")
    except DatabaseError:
        return Lineage()


def _save_pending(replica: Replica, damaged: Path) -> int:
    """Bring the rows that the damaged database's log names into the new database, as far as they can be read."""
    connection = replica.connection
    saved = lost = 0
    try:
        with _attached(connection, damaged):
            state = f"damaged.{quote(STATE)}"
            cleared = int(value(connection, f"SELECT value FROM {state} WHERE name = 'cleared'") or 0)
            for number, name in trigger_tables(connection, "damaged").items():
                table = replica.tables.get(name)
                if table is None:
                    continue
                _hold_back(connection, table, number)
                for key in _logged_keys(connection, table, number, cleared):
                    outcome = _save_row(connection, table, key)
                    saved, lost = saved + (outcome == "saved"), lost + (outcome == "lost")
                    if outcome == "saved":
                        _save_base(connection, table, number, key)
            connection.execute(f"INSERT INTO {conflict_journal.LOCAL} SELECT * FROM damaged.{quote(OVERRULED)}")
    except (DatabaseError, apsw.Error) as error:
        log.warning(
            "stopped reading the log of the damaged database %(database)s: %(error)s",
            {"database": damaged, "error": error},
        )
    if lost:
        log.warning(
            "lost %(rows)d rows that were never published with the damaged database %(database)s",
            {"rows": lost, "database": damaged},
        )
    if saved:
        replica.keep_mine()
    return saved


def _hold_back(connection: apsw.Connection, table: TrackedTable, number: int) -> None:
    """Hold the rows back that the damaged database does: a pending row there has a unique value of theirs."""
    keys = [f"k{i}" for i in range(len(table.shape.keys))]
    held = list(exact_rows(connection, keys, f"FROM damaged.{quote(HELD)} WHERE t = ?", (number,)))
    for key in held:
        here, bound = _at(table, key)
        connection.execute(f"DELETE FROM {table.main} AS d WHERE {here}", bound)
        places, values = marks(key)
        connection.execute(
            f"INSERT INTO main.{quote(HELD)}(t, {', '.join(keys)}) VALUES ({table.id}, {places})", values
        )


def _save_base(connection: apsw.Connection, table: TrackedTable, number: int, key: tuple[Any, ...]) -> None:
    """Copy what the writer last saw of a saved row, if others changed the row since."""
    connection.execute(
        f"INSERT OR IGNORE INTO {merge_base.BASE} "
        f"SELECT ?, key, row FROM damaged.{quote(BASE)} WHERE t = ? AND key = ?",
        (table.id, number, merge_base.key_of(table, key)),
    )


@contextmanager
def _attached(connection: apsw.Connection, path: Path) -> Iterator[None]:
    attach(connection, path, "damaged", read_only=True)
    try:
        yield
    finally:
        connection.execute("DETACH damaged")


def _logged_keys(connection: apsw.Connection, table: TrackedTable, number: int, cleared: int) -> set[tuple[Any, ...]]:
    """Return the keys of one table that can be read from the damaged log before the damage is met."""
    found: set[tuple[Any, ...]] = set()
    shape = table.shape
    by_key = [f"k{i}" for i in range(len(shape.keys))]
    by_rowid = [shape.read(column, "d") for column in shape.keys]
    try:
        named = f"FROM damaged.{quote(LOG)} WHERE t = ? AND id > ?"
        found.update(exact_rows(connection, by_key, named, (number, cleared)))
        for above, top in new_rows(connection, number, cleared, "damaged"):
            rowid = f"d.{quote(shape.rowid)}"
            new = f"FROM damaged.{quote(shape.name)} AS d WHERE {rowid} > ? AND {rowid} <= ?"
            found.update(exact_rows(connection, by_rowid, new, (above, top)))
    except apsw.Error as error:
        log.warning("stopped reading the log of the damaged database at its damage: %(error)s", {"error": error})
    return found


def _save_row(connection: apsw.Connection, table: TrackedTable, key: tuple[Any, ...]) -> str:
    """Bring one row over; return "saved", "equal", or "lost" where it can't be read or doesn't fit."""
    shape = table.shape
    here, bound = _at(table, key)
    reads = [shape.read(column, "d") for column in shape.columns]
    connection.execute("BEGIN IMMEDIATE")
    try:
        damaged = f"damaged.{quote(shape.name)}"
        there, mine = (
            list(exact_rows(connection, reads, f"FROM {each} AS d WHERE {here}", bound))
            for each in (damaged, table.main)
        )
        if there != mine:
            connection.execute(f"DELETE FROM {table.main} AS d WHERE {here}", bound)
        if there and there != mine:
            listed, values = marks(there[0])
            connection.execute(f"INSERT OR REPLACE INTO {table.main}({shape.write()}) VALUES ({listed})", values)
        connection.execute("COMMIT")
    except apsw.Error as error:
        connection.execute("ROLLBACK")
        log.info(
            "lost row %(row)s of table %(table)s with the damaged database: %(error)s",
            {"row": key, "table": shape.name, "error": error},
        )
        return "lost"
    return "equal" if there == mine else "saved"


def _at(table: TrackedTable, key: Sequence[Any]) -> tuple[str, list[Any]]:
    """Return the condition that row ``d`` has this key, and what it binds."""
    # numbered, for a condition may name a part of the key more than once
    places = [f"CAST(?{i} AS TEXT)" if isinstance(part, RawText) else f"?{i}" for i, part in enumerate(key, start=1)]
    return table.shape.same_as("d", places), [part.data if isinstance(part, RawText) else part for part in key]
