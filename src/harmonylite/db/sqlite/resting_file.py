"""Whether the database's file was overwritten while no node had it open, by its bytes and those of its log.

Invariant: no connection of this process has the file open, as closing a descriptor drops this process's locks (SQLite:
howtocorrupt, section 2.2). It never calls a state overwritten that a checkpoint may explain, nor a file without a log:
such a file is complete, like a backup that was put back.
"""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from harmonylite.db.sqlite.encryption import HEADER as MAGIC
from harmonylite.db.sqlite.overwriting import (
    HEADER,
    REGION,
    STATE,
    STATE_AT,
    VERSIONS_AT,
    WAL_VERSIONS,
    Checkpointed,
    Noted,
    says_wal,
)

IN_USE = 128
"""The byte of the ``-shm`` on which each connection in WAL mode holds a shared lock (SQLite: walformat, section 2)."""
PENDING, LOCKS = 0x40000000, 512
"""Offset and number of a file's own lock bytes: no other process has it open while all are ours (SQLite: lockingv3)."""
PAGE_SIZE_AT, LARGEST_PAGE = 14, 65_536
"""Offset of the page size in the ``-shm``; the largest size is written as 1."""


def was_overwritten(database: Path, seen: Noted | None) -> bool:
    """Return whether a program overwrote the file ``database`` since ``seen``, and left its log there."""
    with suppress(FileNotFoundError):
        header = _start(database, HEADER)
        if len(header) < HEADER or not header.startswith(MAGIC):
            return False
        if not has_log(database) and not _in_use(database):
            return False
        if not says_wal(header):  # it does as long as there is a log
            return True
        state = _checkpointed(database)
        if seen is not None and state == (seen.log, seen.copied, seen.begun) and state.begun == state.copied:
            return (database.stat().st_size, header) != (seen.size, seen.header)
    return False


def has_log(database: Path) -> bool:
    """Return whether the write-ahead log has content."""
    with suppress(FileNotFoundError):
        return Path(f"{database}-wal").stat().st_size > 0
    return False


def log_page_size(database: Path) -> int | None:
    """Return the size of the pages in the log, None if it is unknown."""
    (found,) = struct.unpack_from("H", _shm(database).ljust(PAGE_SIZE_AT + 2, b"\0"), PAGE_SIZE_AT)
    return LARGEST_PAGE if found == 1 else found or None


@contextmanager
def alone(database: Path) -> Iterator[bool]:
    """Keep other processes from opening the file while the block runs; False: one has it open."""
    with database.open("r+b") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, LOCKS, PENDING)
        except OSError:
            yield False
        else:
            yield True


def say_wal(database: Path) -> None:
    """Write WAL mode into the header; other processes have the log open, and it is empty."""
    with database.open("r+b") as file:
        file.seek(VERSIONS_AT)
        file.write(WAL_VERSIONS)


def _in_use(database: Path) -> bool:
    with suppress(FileNotFoundError), Path(f"{database}-shm").open("rb") as file:
        asked = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, IN_USE, 1, 0)
        (kind,) = struct.unpack_from("h", fcntl.fcntl(file, fcntl.F_GETLK, asked))
        return bool(kind != fcntl.F_UNLCK)
    return False


def _checkpointed(database: Path) -> Checkpointed:
    return Checkpointed(*STATE.unpack_from(_shm(database).ljust(REGION, b"\0"), STATE_AT))


def _shm(database: Path) -> bytes:
    with suppress(FileNotFoundError):
        return _start(Path(f"{database}-shm"), REGION)
    return b""


def _start(path: Path, size: int) -> bytes:
    with path.open("rb") as file:
        return file.read(size)
