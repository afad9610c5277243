"""How many digits a real number has as text: as many as the application's SQLite library writes.

SQLite writes 17 since 3.53, and wrote 15 before. An index on an expression, a generated column or a full-text index
may hold such a text. If the node wrote other digits, the application would miss rows in the index, and rows that it
deletes would stay there (seen with 3.40 beside 3.54: findings/sqlite-reals-as-text-by-version.sh).

Invariant: a connection's digits follow the last other library that wrote the file; this process's writes don't count.
"""

from __future__ import annotations

import apsw

from harmonylite.db.sqlite.connection import mapped

OLDER, NEWER = 15, 17
SINCE = 3_053_000
"""The first library, as SQLITE_VERSION_NUMBER, that writes `NEWER` digits."""

OWN = apsw.SQLITE_VERSION_NUMBER
_FILE, _LOG = 0, 1
_WRITER = 96
"""Offset in page 1 of the version of the library that wrote it last (SQLite: fileformat2, section 1.3.16)."""
_LOG_HEADER, _FRAME_HEADER, _PAGE_SIZE = 32, 24, 8
"""Bytes of the write-ahead log's header, of a frame's, and the offset of the page size in the former (section 4.1)."""
_LOG_SALTS, _FRAME_SALTS, _SALTS = 16, 8, 8
"""Where the log's header and a frame's have their salts, and their bytes: a frame of an earlier log has others."""
_MOST_FRAMES = 20_000


def use(connection: apsw.Connection, digits: int) -> None:
    """Make ``connection`` convert with ``digits``; 0: with its default."""
    if digits:
        connection.config(apsw.SQLITE_DBCONFIG_FP_DIGITS, digits)


def digits_of(connection: apsw.Connection) -> int:
    """Return the digits with which ``connection`` converts."""
    return int(connection.config(apsw.SQLITE_DBCONFIG_FP_DIGITS, -1))


def digits_there(connection: apsw.Connection) -> int:
    """Return the digits of the SQLite library that wrote the database last, if it is not this one.

    Header and write-ahead log name that library; 0: they don't. SQLite itself reads the bytes, because another
    descriptor would drop its locks.
    """
    with mapped("read who wrote the database"):
        found = [_number(connection, _FILE, _WRITER), *_in_log(connection)]
    library = next((version for version in reversed(found) if version not in (0, OWN)), 0)
    return 0 if not library else NEWER if library >= SINCE else OLDER


def _in_log(connection: apsw.Connection) -> list[int]:
    size = _number(connection, _LOG, _PAGE_SIZE)
    if not size:
        return []
    found = []
    salts = _bytes(connection, _LOG, _LOG_SALTS, _SALTS)
    for frame in range(_MOST_FRAMES):
        at = _LOG_HEADER + frame * (_FRAME_HEADER + size)
        header = _bytes(connection, _LOG, at, _FRAME_SALTS + _SALTS)
        if not header or header[_FRAME_SALTS:] != salts:
            break
        if int.from_bytes(header[:4]) == 1:
            found.append(_number(connection, _LOG, at + _FRAME_HEADER + _WRITER))
    return found


def _number(connection: apsw.Connection, file: int, offset: int) -> int:
    return int.from_bytes(_bytes(connection, file, offset, 4))


def _bytes(connection: apsw.Connection, file: int, offset: int, count: int) -> bytes:
    """Return bytes of the file or its log; none where it ends before."""
    try:
        whole, data = connection.read("main", file, offset, count)
    except apsw.Error:  # there is no write-ahead log
        return b""
    return bytes(data) if whole else b""
