"""The shard of a row: a stable hash of table and key.

Invariant: keys that SQLite holds equal get the same shard, on every node and in every version of this program.
"""

from __future__ import annotations

from zlib import crc32

from harmonylite.model import RawText, Row, SqlValue
from harmonylite.schema.names import folded
from harmonylite.schema.shape import TableShape
from harmonylite.wire import encode_value


def plain(value: SqlValue, collation: str = "BINARY") -> SqlValue:
    """Map values that SQLite compares equal to one value: ``1.0`` is ``1`` (SQLite: datatype3, section 7)."""
    if isinstance(value, float) and value.is_integer() and -(2.0**63) <= value < 2.0**63:
        return int(value)
    if collation == "BINARY":
        return value
    if isinstance(value, str):
        return _folded(value.encode(), collation).decode()
    return RawText(_folded(value.data, collation)) if isinstance(value, RawText) else value


def _folded(data: bytes, collation: str) -> bytes:
    """Map texts that a collation of SQLite's holds equal to one; NOCASE knows ASCII letters only."""
    return data.lower() if collation == "NOCASE" else data.rstrip(b" ") if collation == "RTRIM" else data


def home_of(shape: TableShape, shards: int) -> int:
    """Return the shard of all rows of a *pinned* table."""
    return 0 if shape.numbered else shard_of(shape.name, (), shards)


def shard_of(table: str, key: Row, shards: int) -> int:
    """Return the shard in ``range(shards)`` of a row.

    CRC-32 of the MessagePack array ``[table, key...]``, modulo ``shards``, with the table's name in small letters of
    ASCII. An empty key gives the shard of the table
    itself, where every row of a *pinned* table lives: one with further unique indexes (rows can displace each other,
    so their order matters) or with a key column that isn't compared as BINARY.
    """
    if shards == 1:
        return 0
    return crc32(encode_value([folded(table), *map(plain, key)])) % shards
