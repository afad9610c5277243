"""Facts of database and mirror: single values by name, in a table that both have.

Invariant: a fact changes in the transaction of the rows that it is about.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import apsw

from harmonylite.db.sqlite.connection import value
from harmonylite.schema.sql import PRIVATE, quote

STATE = quote(PRIVATE + "state")
HISTORY = "history"
"""The fact that names the epoch."""


def get_state(connection: apsw.Connection, schema: str, name: str) -> Any:
    """Return a fact of ``main`` or ``mirror``, None if it is missing."""
    return value(connection, f"SELECT value FROM {schema}.{STATE} WHERE name = ?", (name,))


def set_state(connection: apsw.Connection, schema: str, name: str, new: str | bytes | float | None) -> None:
    """Set a fact of ``main`` or ``mirror``."""
    connection.execute(f"INSERT OR REPLACE INTO {schema}.{STATE} VALUES (?, ?)", (name, new))


def get_names(connection: apsw.Connection, schema: str, fact: str) -> set[str]:
    """Return a fact of ``main`` or ``mirror`` that is a set of names."""
    names = str(get_state(connection, schema, fact) or "")
    return set(names.split("\0")) if names else set()  # no name of SQLite's holds NUL


def set_names(connection: apsw.Connection, schema: str, fact: str, names: Collection[str]) -> None:
    """Set a fact that `get_names` reads, if it changed, within a transaction."""
    if get_names(connection, schema, fact) != set(names):
        set_state(connection, schema, fact, "\0".join(sorted(names)))


def history_of(connection: apsw.Connection, schema: str) -> str:
    """Return the name of the epoch (stored as history) of ``main`` or ``mirror``."""
    return get_state(connection, schema, HISTORY) or ""
