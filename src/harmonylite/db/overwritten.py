"""Recover when a program overwrote the database's file, ignoring its write-ahead log.

The file is then consistent, but the log holds pages of another one. A transaction that brings all of the file into the
log makes every connection see it, including open ones, because a commit invalidates their caches.

Invariant: what the program logged counts as never sent, and is compared with the mirror. Rows that were pending before,
and may exist nowhere else, are kept in a file beside the database.
"""

from __future__ import annotations

import logging
import time
from contextlib import closing
from pathlib import Path

import apsw

from harmonylite.backoff import Backoff
from harmonylite.db.mirror import mirror_file
from harmonylite.db.repair import aside_of, damage
from harmonylite.db.replica import Replica
from harmonylite.db.snapshot import drop
from harmonylite.db.sqlite.connection import mapped, open_file, transaction
from harmonylite.db.sqlite.file_access import access_of, make_file, make_private
from harmonylite.errors import OVERWRITTEN, DatabaseBusyError

log = logging.getLogger(__name__)

SECONDS = 10.0
"""How long a program may take to write the file, or hold the write lock, before the recovery gives up."""
TOPIC = "overwritten"


def take_in(replica: Replica) -> None:
    """Take in what was written over the database of ``replica``, which has to be closed afterwards, if anything was.

    Warnings about it are added to the options' sentences. What is not a sound database within `SECONDS` stays there,
    for the check at the next opening. Raises DatabaseError; then call it again.
    """
    if not replica.file.look():
        return
    path, seen, copy = replica.options.database, replica.options.seen, replica.options.folder / "overwritten.db"
    with transaction(replica.connection, "count what was logged as never sent"):
        mirror_file.forget_noted(replica.connection)
        mirror_file.set_settled(replica.connection, None)
    kept = _keep(replica) if replica.pending_rows() else None
    why = _copied(replica, copy)
    if why:
        log.error("the database %s was overwritten by what is no sound database: %s", path, why)
    else:
        replica.options.said[TOPIC] = _sentence(path, kept)
    seen.found = False


def _copied(replica: Replica, copy: Path) -> str:
    """Bring the file's content into the log by way of ``copy``; return why not, "" when it is there."""
    why, backoff, deadline = "it is still being written", Backoff(first=0.02, most=0.5), time.monotonic() + SECONDS
    try:
        while time.monotonic() < deadline or not why:
            make_private(copy)
            # an empty file is a database without a table, and what is there while a program begins to write
            if replica.file.copy(copy) and copy.stat().st_size and not (why := damage(copy)):
                try:
                    _bring(copy, replica.connection)
                except DatabaseBusyError:
                    if time.monotonic() >= deadline:
                        raise
                else:
                    return ""
            drop(copy)
            time.sleep(backoff.failed(time.monotonic()))
    finally:
        drop(copy)
    return why


def _bring(copy: Path, connection: apsw.Connection) -> None:
    """Make the file ``copy`` what the database holds. Raises DatabaseBusyError.

    The connection has the log open: for one that is opened now there is none, where it is empty and the file's header,
    as the program wrote it, doesn't speak of one (SQLite: fileformat2, section 1.3.3).
    """
    size = connection.pragma("page_size")
    with closing(open_file(copy)) as source, mapped("take in what was written over the database"):
        if source.pragma("page_size") != size:  # the log is made of pages of this size
            source.pragma("journal_mode", "delete")
            source.pragma("page_size", size)
            source.execute("VACUUM")
        with connection.backup("main", source, "main") as copying:
            copying.step()


def _keep(replica: Replica) -> Path:
    """Keep what connections saw last, with rows that were pending, as far as it still fits together."""
    aside = aside_of(replica.options.database, TOPIC)
    make_file(aside, access_of(replica.options.database))
    with (
        mapped(f"keep {aside}"),
        closing(open_file(aside)) as target,
        target.backup("main", replica.connection, "main") as copying,
    ):
        copying.step()
    return aside


def _sentence(path: Path, kept: Path | None) -> str:
    when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    lost = f"; rows were pending, look for them in {kept}, the file as SQLite had it before" if kept else ""
    return f"the database {path} was overwritten at {when}: {OVERWRITTEN}{lost}"
