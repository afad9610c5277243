"""Read values bit for bit, also text that is not UTF-8, which the SQLite library can't hand over as a string."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import apsw

from harmonylite.model import RawText


def as_text(data: bytes) -> str | RawText:
    """Return the text whose bytes are ``data``, as RawText where they aren't UTF-8."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return RawText(data)


def exact(expressions: Iterable[str]) -> str:
    """Return a list of columns that yields each expression as bytes and type; see `decode`."""
    return ", ".join(
        f"CASE typeof({e}) WHEN 'text' THEN CAST({e} AS BLOB) ELSE {e} END, typeof({e})" for e in expressions
    )


def decode(row: tuple[Any, ...], skip: int = 0) -> tuple[Any, ...]:
    """Turn what `exact` selected back into values; the first ``skip`` values stand for themselves."""
    return (*row[:skip], *(as_text(row[i]) if row[i + 1] == "text" else row[i] for i in range(skip, len(row), 2)))


def exact_rows(connection: apsw.Connection, expressions: Iterable[str], rest: str) -> list[tuple[Any, ...]]:
    """Run ``SELECT expressions rest`` and return its rows bit for bit."""
    return [decode(row) for row in connection.execute(f"SELECT {exact(expressions)} {rest}")]


def same_bits(left: object, right: object) -> bool:
    """Tell whether two SQLite values are the same, type and sign of zero included."""
    return type(left) is type(right) and (repr(left) == repr(right) if isinstance(left, float) else left == right)


def insert_rows(connection: apsw.Connection, insert: str, width: int, values: list[list[Any]]) -> None:
    """Run ``insert`` for each row; text that isn't UTF-8 goes in as bytes that SQLite takes for text."""
    several = len(values) > 1  # of one row that can't be bound, nothing is there
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
