"""With how many digits a real number becomes text: as many as the application's SQLite library writes.

SQLite writes 17 from 3.53 on, and wrote 15 before. An index on an expression, a generated column or a full-text index
may hold such a text. Rows that the node wrote with other digits would be missing from the index for the application,
and what it deletes would stay there (seen with 3.40 beside 3.54: findings/sqlite-reals-as-text-by-version.sh).

Invariant: a connection's digits follow what another library wrote into the file; this process's own writes say nothing.
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
"""Where page 1 has the number of the library that wrote it last (SQLite: fileformat2, section 1.3.16)."""
_LOG_HEADER, _FRAME_HEADER, _PAGE_SIZE = 32, 24, 8
"""Bytes of the write-ahead log's header, of a frame's, and where the former has the page size (section 4.1)."""
_MOST_FRAMES = 20_000


def use(connection: apsw.Connection, digits: int) -> None:
    """Have ``connection`` convert with ``digits``; 0: as it does."""
    if digits:
        connection.config(apsw.SQLITE_DBCONFIG_FP_DIGITS, digits)


def digits_of(connection: apsw.Connection) -> int:
    """Return with how many digits ``connection`` converts."""
    return int(connection.config(apsw.SQLITE_DBCONFIG_FP_DIGITS, -1))


def digits_there(connection: apsw.Connection) -> int:
    """Return with how many digits the SQLite library converts that wrote the database last, if it is not this one.

    As far as header and write-ahead log of the database say so; 0: they say nothing. The bytes are read by SQLite
    itself, whose locks another descriptor would drop.
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
    for frame in range(_MOST_FRAMES):
        at = _LOG_HEADER + frame * (_FRAME_HEADER + size)
        page = _number(connection, _LOG, at)
        if not page:
            break
        if page == 1:
            found.append(_number(connection, _LOG, at + _FRAME_HEADER + _WRITER))
    return found


def _number(connection: apsw.Connection, file: int, offset: int) -> int:
    try:
        whole, data = connection.read("main", file, offset, 4)
    except apsw.Error:  # there is no write-ahead log
        return 0
    return int.from_bytes(data) if whole else 0
