"""Notice that a program wrote directly to the database's file, bypassing its write-ahead log.

While the log is in use only checkpoints write the file, and record their progress in the ``-shm`` (SQLite: walformat,
section 2.1). A program that keeps the whole file in memory and writes it back, or copies another one over it, takes no
lock and records nothing: the pages in connections' caches and in the log then don't belong to the file.

Invariant: it opens no descriptor, as closing one would drop this process's locks (SQLite: howtocorrupt, section 2.2).
It reads the file through the connection's own, and never calls a state overwritten that a checkpoint may explain.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, NamedTuple

import apsw
from msgspec import Meta

from harmonylite.db.sqlite.file_access import write_private
from harmonylite.db.sqlite.wal_mode import Wal
from harmonylite.errors import DatabaseOverwrittenError, ForeignError
from harmonylite.foreign import Codec, Seq

HEADER = 100
"""Bytes of the file's header, which records its last change (SQLite: fileformat2, section 1.3)."""
WAL_VERSIONS, VERSIONS_AT = b"\2\2", 18
"""The header's version bytes in WAL mode, and their offset."""
STATE_AT, STATE = 32, struct.Struct("8s56xI28xI")
"""Offset and format of the checkpoint's progress in the ``-shm`` (SQLite: walformat, section 2.1)."""
REGION = 32_768
"""Bytes of the first part of the ``-shm``."""
CHECKPOINT_LOCK = 1
"""SQLite's number of the lock that a checkpoint holds."""
CHUNK = 1 << 20
"""Bytes read at once."""

_File = ctypes.c_void_p
_READ = _WRITE = ctypes.CFUNCTYPE(ctypes.c_int, _File, ctypes.c_void_p, ctypes.c_int, ctypes.c_int64)
_MAP = ctypes.CFUNCTYPE(ctypes.c_int, _File, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_void_p)
_LOCK = ctypes.CFUNCTYPE(ctypes.c_int, _File, ctypes.c_int, ctypes.c_int, ctypes.c_int)
_AT_READ, _AT_WRITE, _AT_MAP, _AT_LOCK = 2, 3, 13, 14
"""Their indexes among a file's methods (SQLite: c3ref/io_methods)."""
_TAKE, _LET_GO = 2 | 4, 1 | 4
"""Flags of a shared lock on the ``-shm``."""

Stat = tuple[int, int, int, int]
"""Device, inode, modification time in nanoseconds, and size."""


class Checkpointed(NamedTuple):
    """How far the log is copied into the file. ``log``: its salt, which changes when it restarts.

    ``copied``, ``begun``: the newest frame in the file, and the newest one that a checkpoint began to copy.
    """

    log: bytes
    copied: int
    begun: int


Sight = tuple[Stat, Checkpointed, bytes]
"""The state of the file at one moment; the last item is its header."""


class Noted(NamedTuple):
    """What the next process needs of a `Sight`, see `Checkpointed`; ``size``: bytes of the file."""

    size: Seq
    log: Annotated[bytes, Meta(max_length=8)]
    copied: Seq
    begun: Seq
    header: Annotated[bytes, Meta(max_length=HEADER)]


NOTE = "seen.json"
CODEC = Codec("how the database's file was when it was last looked at", Noted)


class Seen:
    """The state of the file at the last check; ``found``: it was overwritten, and not taken over yet. It outlives a
    connection, and in the file ``note`` also this process.
    """

    def __init__(self, note: Path | None = None) -> None:
        self.last: Sight | None = None
        self.found = False
        self._note, self._noted = note, None if note is None else _read(note)

    def saw(self, sight: Sight) -> None:
        """Record that this is the present state of the file."""
        self.last = stat, state, header = sight
        noted = Noted(stat[-1], *state, header)
        if self._note is not None and noted != self._noted:
            with suppress(OSError):
                write_private(self._note, CODEC.encode(noted))
                self._noted = noted

    @property
    def noted(self) -> Noted | None:
        """The state that the previous process recorded, None if it is unknown or this process has recorded one."""
        return self._noted if self.last is None else None


def _read(note: Path) -> Noted | None:
    with suppress(OSError, ForeignError):
        return CODEC.decode(note.read_bytes())
    return None


class Overwriting:
    """Checks whether the main database's file was overwritten, between `open` and `close` and on the caller's thread.

    ``wal``: whether it has a log. Once the file was overwritten, the connection's cache is wrong; close it then.
    """

    def __init__(self, database: Path, seen: Seen, wal: Wal) -> None:
        self._seen, self._wal = seen, wal
        self._path = str(database)
        self._file: ctypes.c_void_p | None = None

    def open(self, connection: apsw.Connection) -> None:
        """Check the file of a connection that has read, from now on."""
        pointer = ctypes.c_void_p()
        connection.file_control("main", apsw.SQLITE_FCNTL_FILE_POINTER, ctypes.addressof(pointer))
        methods = ctypes.cast(pointer, ctypes.POINTER(ctypes.POINTER(ctypes.c_void_p)))[0]
        self._read, self._write, self._map, self._lock = (
            kind(methods[at])
            for kind, at in ((_READ, _AT_READ), (_WRITE, _AT_WRITE), (_MAP, _AT_MAP), (_LOCK, _AT_LOCK))
        )
        self._file = pointer
        with suppress(OSError):
            if self._seen.last is not None and self._seen.last[0][:2] != self._stat()[:2]:  # another file has the name
                self._seen.last, self._seen.found = None, False
        self.overwritten()

    def close(self) -> None:
        """Check no more: the connection is closed next."""
        self._file = None

    def overwritten(self) -> bool:
        """Return whether the file was overwritten since it was last seen.

        Also False while that is unknown; the next check compares with the last known state.
        """
        if self._file is None:
            return False
        if not self._seen.found and self._wal.reached:
            with suppress(OSError):
                self._seen.found = self._compare()
        return self._seen.found

    def check(self) -> None:
        """Raise DatabaseOverwrittenError if it was overwritten."""
        if self.overwritten():
            raise DatabaseOverwrittenError(self._path)

    def _compare(self) -> bool:
        state, stat, seen = self._checkpointed(), self._stat(), self._seen.last
        if seen is not None and stat == seen[0]:
            if state.begun == state.copied:
                self._seen.saw((stat, state, seen[2]))
            return False
        header = self._header()
        if (state, stat) != (self._checkpointed(), self._stat()):
            return False
        if seen is None or seen[0][:2] != stat[:2]:
            self._seen.saw((stat, state, header))
            return False
        if seen[1] == state and state.begun == state.copied:
            return self._unexplained(state, stat, seen)
        self._seen.saw((stat, state, header))
        # a checkpoint wrote it, or was interrupted; but no checkpoint changes the header's version
        return header != seen[2] and not says_wal(header)

    def _unexplained(self, state: Checkpointed, stat: Stat, seen: Sight) -> bool:
        """Return whether no checkpoint explains the change of the file since ``seen``."""
        with self._no_checkpoint() as alone:
            now = self._header()
            if not alone or (state, stat) != (self._checkpointed(), self._stat()):
                return False
            self._seen.saw((stat, state, now))
        return (stat[-1], now) != (seen[0][-1], seen[2])

    def copy(self, target: Path) -> bool:
        """Copy the file, without its log, over the file ``target``; False: it was written meanwhile."""
        stat, state, header = self._stat(), self._checkpointed(), self._header()
        size = stat[-1]
        with target.open("wb") as file:
            for start in range(0, size, CHUNK):
                file.write(self._bytes(start, min(CHUNK, size - start)))
        self._seen.saw((stat, state, header))
        return (stat, state) == (self._stat(), self._checkpointed())

    def say_wal(self) -> None:
        """Write WAL mode into the file's header. The log has the whole content: until it is copied, the next process
        that opens the file would consider it overwritten again.
        """
        if says_wal(self._header()):
            return
        if code := self._write(self._file, WAL_VERSIONS, len(WAL_VERSIONS), VERSIONS_AT):
            raise OSError(f"SQLite's error {code} at the header of {self._path}")
        self._seen.saw((self._stat(), self._checkpointed(), self._header()))

    def _stat(self) -> Stat:
        found = os.stat(self._path)  # noqa: PTH116 - half the time of Path.stat, and it runs at each commit
        return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size

    def _header(self) -> bytes:
        return self._bytes(0, HEADER)

    def _bytes(self, start: int, size: int) -> bytes:
        """Return bytes of the file, zeros after its end."""
        read = ctypes.create_string_buffer(size)
        if (code := self._read(self._file, read, size, start)) not in (0, apsw.SQLITE_IOERR_SHORT_READ):
            raise OSError(f"SQLite's error {code} at byte {start} of {self._path}")
        return read.raw

    def _checkpointed(self) -> Checkpointed:
        at = ctypes.c_void_p()
        code = self._map(self._file, 0, REGION, 0, ctypes.addressof(at))
        if code or at.value is None:
            raise OSError(f"SQLite's error {code} at the -shm of {self._path}")
        return Checkpointed(*STATE.unpack(ctypes.string_at(at.value + STATE_AT, STATE.size)))

    @contextmanager
    def _no_checkpoint(self) -> Iterator[bool]:
        """Block checkpoints while the block runs; False: one is running."""
        alone = not self._lock(self._file, CHECKPOINT_LOCK, 1, _TAKE)
        try:
            yield alone
        finally:
            if alone:
                self._lock(self._file, CHECKPOINT_LOCK, 1, _LET_GO)


def says_wal(header: bytes) -> bool:
    """Return whether a file's header names WAL mode."""
    return header[VERSIONS_AT : VERSIONS_AT + len(WAL_VERSIONS)] == WAL_VERSIONS
