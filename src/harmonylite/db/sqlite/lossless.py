"""Read values bit for bit, also text that is invalid in its encoding, which apsw can't return as a string; and read
many rows in steps, large enough for speed, small enough for memory.

Invariant: a value that is read and written again is equal in type and in every bit; every row comes once, in order.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import apsw

from harmonylite.model import RawText

GROUP = 50
"""Values that share one column which says which of them are text (SQLite: limits, 2,000 columns of a result)."""
CODECS = {"UTF-8": "utf-8", "UTF-16le": "utf-16-le", "UTF-16be": "utf-16-be"}

STEP_BYTES = 4_000_000
"""Bytes of a step, about, estimated by its first row."""


def codec_of(connection: apsw.Connection) -> str:
    """Return Python's name of the encoding that text has in the connection's files."""
    return CODECS[str(connection.pragma("encoding"))]


def as_text(data: bytes, codec: str = "utf-8") -> str | RawText:
    """Return the text whose bytes are ``data``, as RawText if ``codec`` can't decode them."""
    try:
        return data.decode(codec)
    except UnicodeDecodeError:
        return RawText(data)


def exact(expressions: Iterable[str]) -> str:
    """Return a list of columns that yields each expression, text as bytes, and which of them are text; see `decode`."""
    listed = list(expressions)
    values = [f"CASE typeof({e}) WHEN 'text' THEN CAST({e} AS BLOB) ELSE {e} END" for e in listed]
    groups = [listed[start : start + GROUP] for start in range(0, len(listed), GROUP)]
    return ", ".join([*values, *("'' || " + " || ".join(f"(typeof({e}) = 'text')" for e in group) for group in groups)])


def decode(row: tuple[Any, ...], skip: int = 0, codec: str = "utf-8") -> tuple[Any, ...]:
    """Convert a row that `exact` selected back into values; the first ``skip`` values are plain."""
    found = len(row) - skip
    end = skip + found - -(-found // (GROUP + 1))
    texts = "".join(row[end:])
    if "1" not in texts:
        return row[:end]
    values = (as_text(v, codec) if t == "1" else v for v, t in zip(row[skip:end], texts, strict=True))
    return (*row[:skip], *values)


def exact_rows(
    connection: apsw.Connection, expressions: Iterable[str], rest: str, bindings: Sequence[Any] = ()
) -> Iterator[tuple[Any, ...]]:
    """Run ``SELECT expressions rest`` and yield its rows bit for bit; don't change those rows meanwhile."""
    codec = codec_of(connection)
    for row in connection.execute(f"SELECT {exact(expressions)} {rest}", bindings):
        yield decode(row, 0, codec)


def same_bits(left: object, right: object) -> bool:
    """Return whether two SQLite values are the same, type and sign of zero included."""
    return type(left) is type(right) and (repr(left) == repr(right) if isinstance(left, float) else left == right)


def insert_rows(connection: apsw.Connection, insert: str, width: int, values: list[list[Any]]) -> None:
    """Run ``insert`` for each row; text that isn't UTF-8 goes in as bytes that SQLite takes for text."""
    several = len(values) > 1  # if a single row can't be bound, nothing was inserted
    if several:
        connection.execute("SAVEPOINT staging")
    try:
        connection.executemany(f"{insert} VALUES ({', '.join('?' * width)})", values)
    except TypeError:
        if several:
            connection.execute("ROLLBACK TO staging")
        for row in values:
            places, bound = marks(row)
            connection.execute(f"{insert} VALUES ({places})", bound)
    if several:
        connection.execute("RELEASE staging")


def marks(values: Iterable[Any]) -> tuple[str, list[Any]]:
    """Return placeholders and bindings for ``values``; raw text is bound as bytes that SQLite takes for text."""
    listed = list(values)
    places = ", ".join("CAST(? AS TEXT)" if isinstance(v, RawText) else "?" for v in listed)
    return places, [v.data if isinstance(v, RawText) else v for v in listed]


def step(found: Iterator[tuple[Any, ...]], most: int) -> list[tuple[Any, ...]]:
    """Return the next ``most`` rows, fewer where the first one is large; none at the end."""
    first = next(found, None)
    if first is None:
        return []
    large = sum(_length(value) for value in first)
    return [first, *islice(found, min(most - 1, STEP_BYTES // (large + 1)))]


def _length(value: object) -> int:
    if isinstance(value, str | bytes):
        return len(value)
    return len(value.data) if isinstance(value, RawText) else 0
