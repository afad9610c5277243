"""The one place that puts names into SQL.

Invariant: a name reaches SQL only through `quote` or `text`, so SQLite reads no name, however odd, as anything else.
"""

from __future__ import annotations

from functools import lru_cache

PRIVATE = "__harmonylite__"
"""The prefix of every object that we create in the application's file."""
OURS_GLOB = PRIVATE + "*"
"""The same for SQLite, which then hands over only what is the application's: most of a catalogue is our triggers."""


@lru_cache(maxsize=4096)
def quote(name: str) -> str:
    """Return ``name`` as a SQL identifier (SQLite: a double quote in it is doubled)."""
    if "\x00" in name:
        raise ValueError("a name can't hold a NUL character")
    return '"' + name.replace('"', '""') + '"'


def text(value: str) -> str:
    """Return ``value`` as a SQL string literal."""
    return "'" + value.replace("'", "''") + "'"


def is_private(name: str) -> bool:
    """Return whether ``name`` is one of ours: the exact prefix, never a pattern (``_`` is a wildcard in LIKE)."""
    return name.startswith(PRIVATE)
