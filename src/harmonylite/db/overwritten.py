"""Recover when a program overwrote the database's file, ignoring its write-ahead log.

The file is then consistent, but the log holds pages of another one. A transaction that brings all of the file into the
log makes every connection see it, including open ones, because a commit invalidates their caches.

Invariant: what the program logged counts as never sent, and is compared with the mirror. Rows that were pending before,
and may exist nowhere else, are kept in a file beside the database.
"""

from __future__ import annotations

import logging
import shutil
import time
from contextlib import closing
from pathlib import Path

import apsw

from harmonylite.backoff import Backoff
from harmonylite.db.mirror import mirror_file
from harmonylite.db.repair import aside_of, damage
from harmonylite.db.replica import Replica
from harmonylite.db.replica_options import ReplicaOptions
from harmonylite.db.snapshot import drop
from harmonylite.db.sqlite import resting_file
from harmonylite.db.sqlite.connection import mapped, open_file, transaction
from harmonylite.db.sqlite.file_access import access_of, make_file, make_private
from harmonylite.db.sqlite.overwriting import Overwriting, Seen
from harmonylite.db.sqlite.wal_mode import Wal
from harmonylite.errors import OVERWRITTEN, DatabaseBusyError, DatabaseDamagedError

log = logging.getLogger(__name__)

SECONDS = 10.0
"""How long a program may take to write the file, or hold the write lock, before the recovery gives up."""
TOPIC = "overwritten"
UNSOUND = "found database %(database)s overwritten by a file that is no sound database: %(reason)s"


def take_in(replica: Replica) -> None:
    """Take in what was written over the database of ``replica``, which has to be closed afterwards, if anything was.

    Warnings about it are added to the options' sentences. What is not a sound database within `SECONDS` stays there,
    for the check at the next opening. Raises DatabaseError; then call it again.
    """
    if not replica.file.overwritten():
        return
    path, connection = replica.options.database, replica.connection
    _forget_what_was_sent(connection)
    kept = _keep(path, connection) if replica.pending_rows() else None
    if why := _copied(replica.file, connection, _copy_of(replica.options)):
        log.error(UNSOUND, {"database": path, "reason": why})
    else:
        lost = f"rows were pending, look for them in {kept}" if kept else ""
        replica.options.said[TOPIC] = _sentence(f"at {_now()}", path, lost)
    replica.options.seen.found = False


def take_in_at_start(options: ReplicaOptions) -> None:
    """Take in what was written over the database while no node had it open, if anything was beside its log.

    Belongs before this process opens the file. What is to be said of it is among the options' sentences. Raises
    DatabaseError; it is to be called again then.
    """
    path = options.database
    with mapped(f"look at {path}"):
        if not resting_file.was_overwritten(path, options.seen.noted):
            return
    if options.mirror.exists():
        with closing(open_file(options.mirror)) as connection:
            with transaction(connection, f"prepare {options.mirror}"):
                mirror_file.prepare(connection, "main")
            _forget_what_was_sent(connection, "main")
    with mapped(f"take in what was written over {path}"), resting_file.alone(path) as alone:
        kept = _part(path) if alone and resting_file.has_log(path) else None
    if not alone:
        kept = _take_in_beside_others(options)
    lost = f"rows that were pending may be in {kept}" if kept else ""
    when = "while no node ran" if options.seen.last is None else "while the node ran"
    options.said[TOPIC] = _sentence(f"{when}, which was noticed at {_now()}", path, lost)


def _forget_what_was_sent(connection: apsw.Connection, mirror: str = "mirror") -> None:
    with transaction(connection, "count what was logged as never sent"):
        mirror_file.forget_noted(connection, mirror)
        mirror_file.set_settled(connection, None, mirror)


def _part(path: Path) -> Path:
    """Keep the log, with a copy of the file, out of the way of the file, which is whole without it; return the copy."""
    aside = aside_of(path, TOPIC)
    make_file(aside, access_of(path))
    shutil.copyfile(path, aside)
    Path(f"{path}-wal").replace(f"{aside}-wal")
    Path(f"{path}-shm").unlink(missing_ok=True)
    return aside


def _take_in_beside_others(options: ReplicaOptions) -> Path | None:
    """Bring the file's content into the log that other processes have open; return what is kept of the log's."""
    path, wal, logged = options.database, Wal(), resting_file.has_log(options.database)
    if not logged:
        with mapped(f"open {path}"):
            resting_file.say_wal(path)
    with closing(open_file(path)) as connection, mapped(f"take in what was written over {path}"):
        connection.pragma("schema_version")
        wal.reached = connection.pragma("journal_mode") == "wal"
        sizes = (connection.pragma("page_size"), None)
        if not wal.reached or resting_file.log_page_size(path) not in sizes:
            raise DatabaseBusyError(f"the database {path} was overwritten, and other programs have the old one open")
        file = Overwriting(path, Seen(), wal)
        file.open(connection)
        kept = _keep(path, connection) if logged else None
        if why := _copied(file, connection, _copy_of(options)):
            raise DatabaseDamagedError(UNSOUND % (path, why))
    return kept


def _copied(file: Overwriting, connection: apsw.Connection, copy: Path) -> str:
    """Bring the file's content into the log by way of ``copy``; return why not, "" when it is there."""
    why, backoff, deadline = "it is still being written", Backoff(first=0.02, most=0.5), time.monotonic() + SECONDS
    try:
        while time.monotonic() < deadline or not why:
            make_private(copy)
            # an empty file is a database without a table, and what is there while a program begins to write
            if file.copy(copy) and copy.stat().st_size and not (why := damage(copy)):
                try:
                    _bring(copy, connection)
                except DatabaseBusyError:
                    if time.monotonic() >= deadline:
                        raise
                else:
                    file.say_wal()
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


def _keep(path: Path, connection: apsw.Connection) -> Path:
    """Keep what connections saw last, with rows that were pending, as far as it still fits together."""
    aside = aside_of(path, TOPIC)
    make_file(aside, access_of(path))
    with (
        mapped(f"keep {aside}"),
        closing(open_file(aside)) as target,
        target.backup("main", connection, "main") as copying,
    ):
        copying.step()
    return aside


def _copy_of(options: ReplicaOptions) -> Path:
    return options.folder / "overwritten.db"


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def _sentence(when: str, path: Path, lost: str) -> str:
    before = f"; {lost}, the file as SQLite had it before" if lost else ""
    return f"the database {path} was overwritten {when}: {OVERWRITTEN}{before}"
