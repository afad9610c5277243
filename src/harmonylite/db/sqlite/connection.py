"""Open SQLite files, always through the one SQLite library of this process, and map its errors.

Invariant: nothing else in this process opens the application's file: a bare ``open``/``close`` of it, or a second
SQLite library, would drop the locks that the first one holds (SQLite: howtocorrupt, section 2.2).
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

import apsw

from harmonylite.errors import (
    NO_ROOM,
    DatabaseBusyError,
    DatabaseDamagedError,
    DatabaseError,
    DiskFullError,
    RowRefusedError,
)
from harmonylite.schema.shape import STAND_IN
from harmonylite.schema.sql import quote

LOCK_WAIT_MS = 1000
"""How long one attempt waits for another connection's lock, in milliseconds, before the caller gets an error."""

CACHE = {"main": 32_768, "mirror": 32_768, "temp": 16_384}
"""Page cache of each schema in KiB; only large change sets fill it, and it is freed after them."""

CHECKPOINT_PAGES = 1_000
"""Pages of the database's write-ahead log that trigger a checkpoint: SQLite's own number."""
MIRROR_LOG_BYTES = 32 << 20
"""The same for the mirror, in bytes. It is more, because folds rewrite its pages, and each checkpoint syncs the disk
while an application writes."""

NO_RIGHTS = "this user must be able to read and write the file, and to make files beside it"

_READ = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
_WRITE = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_URI
_CREATE = _WRITE | apsw.SQLITE_OPEN_CREATE

_REFUSALS = (apsw.ConstraintError, apsw.MismatchError, apsw.TooBigError, apsw.SQLError)
"""SQLite's errors about a row; the last one comes from a function that an index or a generated column calls."""

T = TypeVar("T")


def open_file(path: Path, *, create: bool = False, read_only: bool = False) -> apsw.Connection:
    """Open one SQLite file. Raises DatabaseError when it doesn't exist or can't be opened."""
    flags = _READ if read_only else _CREATE if create else _WRITE
    with mapped(f"open {path}"):
        connection = apsw.Connection(str(path), flags=flags, statementcachesize=400)
        connection.set_busy_timeout(LOCK_WAIT_MS)
    return connection


def open_scratch() -> apsw.Connection:
    """Open an empty in-memory database, to try a statement."""
    return apsw.Connection(":memory:")


def open_unchanging(path: Path) -> apsw.Connection:
    """Open a file that no other process has open, to read it: no lock, no file beside it. Raises DatabaseError."""
    with mapped(f"open {path}"):
        return apsw.Connection(f"file:{uri_path(path)}?immutable=1", flags=_READ)


@contextmanager
def reading(path: Path) -> Iterator[apsw.Connection]:
    """Provide a read-only connection to the file ``path``. Raises DatabaseError, also for errors of the body."""
    connection = open_file(path, read_only=True)
    try:
        with mapped(f"read {path}"):
            yield connection
    finally:
        connection.close()


def attach(connection: apsw.Connection, path: Path, name: str, *, read_only: bool = False) -> None:
    """Attach the file ``path`` as schema ``name``."""
    uri = "file:" + uri_path(path) + ("?mode=ro" if read_only else "")
    with mapped(f"attach {path}"):
        connection.execute(f"ATTACH ? AS {quote(name)}", (uri,))


def uri_path(path: Path) -> str:
    """Escape what a SQLite URI would read as its own (SQLite: uri, section 3.1)."""
    return str(path.absolute()).replace("%", "%25").replace("?", "%3f").replace("#", "%23")


def stand_in(*given: Any) -> str | int | float | bytes:
    """Return a value, always the same one, that is practically unique; ``given``: its affinity, and a key's texts."""
    affinity, *key = given
    made = sha256(chr(0).join(key).encode()).digest()
    if affinity in ("TEXT", "BLOB"):
        return made[:8].hex() if affinity == "TEXT" else made[:8]
    number = int.from_bytes(made[:6])
    return float(number) if affinity == "REAL" else number


def configure(connection: apsw.Connection) -> None:
    """Set up a node's connection: only its own triggers run, and constraints that the origin checked are ignored."""
    connection.config(apsw.SQLITE_DBCONFIG_ENABLE_TRIGGER, 0)
    connection.pragma("synchronous", "normal")
    for name in ("foreign_keys", "automatic_index"):
        connection.pragma(name, 0)
    for name in ("ignore_check_constraints", "recursive_triggers", "temp_store", "trusted_schema"):
        connection.pragma(name, 1)


def tune(connection: apsw.Connection) -> None:
    """Set the page caches of a node's connection, and checkpoint its write-ahead logs once they are long.

    Like SQLite itself, it retries a failed checkpoint after the next commit.
    """
    for schema, kibibytes in CACHE.items():
        connection.execute(f"PRAGMA {schema}.cache_size = -{kibibytes}")
    page = int(value(connection, "PRAGMA mirror.page_size"))
    most = {"main": CHECKPOINT_PAGES, "mirror": MIRROR_LOG_BYTES // page}

    def copy(connection: apsw.Connection, schema: str, grown: int) -> int:
        if grown >= most[schema]:
            with suppress(apsw.Error):
                connection.wal_checkpoint(schema, apsw.SQLITE_CHECKPOINT_PASSIVE)
        return apsw.SQLITE_OK

    connection.set_wal_hook(copy)
    connection.create_scalar_function(STAND_IN, stand_in, deterministic=True)


@contextmanager
def mapped(doing: str) -> Iterator[None]:
    """Map SQLite's errors to ours: locks to DatabaseBusyError, no room (or none for a temporary file) to DiskFullError,
    all others to DatabaseError.
    """
    try:
        yield
    except (apsw.BusyError, apsw.LockedError) as error:
        raise DatabaseBusyError(f"{doing}: another connection holds the lock ({error})") from error
    except apsw.FullError as error:
        raise DiskFullError(f"{doing}: no room is left on the disk") from error
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise DatabaseError(f"{doing}: {error.strerror}", advice=NO_RIGHTS) from error
        if error.errno not in NO_ROOM:
            raise
        raise DiskFullError(f"{doing}: {error.strerror}") from error
    except (apsw.CorruptError, apsw.NotADBError) as error:
        if getattr(error, "extendedresult", 0) == apsw.SQLITE_CORRUPT_VTAB:  # an index of the application, not the file
            raise DatabaseError(f"{doing}: {type(error).__name__}: {error}") from error
        raise DatabaseDamagedError(f"{doing}: {error}") from error
    except (apsw.CantOpenError, apsw.ReadOnlyError, apsw.PermissionsError) as error:
        raise DatabaseError(f"{doing}: {error}", advice=NO_RIGHTS) from error
    except _REFUSALS as error:
        raise RowRefusedError(f"{doing}: {type(error).__name__}: {error}") from error
    except apsw.Error as error:
        raise DatabaseError(f"{doing}: {type(error).__name__}: {error}") from error


@contextmanager
def transaction(connection: apsw.Connection, doing: str, *, immediate: bool = False) -> Iterator[None]:
    """Run the body in one transaction: commit at its end, roll back if it raises.

    Within a transaction of the caller it is a part of that, which an error that it raises must end. An interrupted
    BEGIN may have begun a transaction.
    """
    with mapped(doing):
        if bool(connection.in_transaction):
            yield
            return
        try:
            connection.execute("BEGIN IMMEDIATE" if immediate else "BEGIN")
            yield
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise


def try_or_undo(connection: apsw.Connection, work: Callable[[], T]) -> tuple[bool, T | None]:
    """Run ``work`` in a savepoint. Return (True, result), or roll back and return (False, None) on a unique violation.

    Any other constraint raises.
    """
    connection.execute("SAVEPOINT attempt")
    try:
        result = work()
    except apsw.ConstraintError as error:
        connection.execute("ROLLBACK TO attempt")
        connection.execute("RELEASE attempt")
        if is_unique(error):
            return False, None
        raise
    connection.execute("RELEASE attempt")
    return True, result


def execute_or_not(connection: apsw.Connection, sql: str) -> bool:
    """Run one statement; False, with nothing changed, on a unique violation. Other constraints raise.

    A failed statement undoes itself (SQLite: lang_conflict, ABORT); use `try_or_undo` for several statements.
    """
    try:
        connection.execute(sql)
    except apsw.ConstraintError as error:
        if is_unique(error):
            return False
        raise
    return True


def is_unique(error: apsw.ConstraintError) -> bool:
    """Return whether the error is a violation of a unique index or of the key."""
    return getattr(error, "extendedresult", 0) in (
        apsw.SQLITE_CONSTRAINT_UNIQUE,
        apsw.SQLITE_CONSTRAINT_PRIMARYKEY,
        apsw.SQLITE_CONSTRAINT_ROWID,
    )


def compile_only(connection: apsw.Connection, sql: str) -> None:
    """Compile one statement without running it or reading its program. Raises apsw.Error."""
    cursor = connection.cursor()
    cursor.exec_trace = (
        _refuse  # called after the compilation and before the first step: EXPLAIN's own rows may be invalid
    )
    with suppress(apsw.ExecTraceAbort):
        cursor.execute(f"EXPLAIN {sql}", can_cache=False)


def _refuse(*_: object) -> bool:
    return False


def rows(connection: apsw.Connection, sql: str, bindings: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
    """Run one statement and return all its rows."""
    return connection.execute(sql, bindings).fetchall()


def value(connection: apsw.Connection, sql: str, bindings: Sequence[Any] = ()) -> Any:
    """Run one statement and return the first value of its first row, None when there is no row."""
    row = connection.execute(sql, bindings).fetchone()
    return None if row is None else row[0]
