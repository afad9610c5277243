"""Names as SQLite compares them: ASCII letters without case, all other characters exactly.

Invariant: two names are equal here exactly if SQLite considers them equal.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from fnmatch import fnmatchcase

HELPERS = (
    "_litestream_*",
    "_alembic_tmp_*",
    "crsql_*",
    "*__crsql_clock",
    "*__crsql_pks",
    "cloudsync_*",
    "*_cloudsync",
    "__marmot__*",
)
"""Tables that other programs keep in a file for themselves: Litestream, Alembic, cr-sqlite, SQLite Sync, Marmot."""

ROWIDS = ("rowid", "_rowid_", "oid")
"""SQLite's names of a rowid (SQLite: lang_createtable, rowid)."""

_LOWER = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}


def folded(name: str) -> str:
    """Return ``name`` so that names which SQLite considers equal are equal (SQLite: lang_keywords, sqlite3_stricmp)."""
    return name.lower() if name.isascii() else name.translate(_LOWER)


def fits(name: str, patterns: Iterable[str]) -> bool:
    """Return whether ``name`` matches one of ``patterns`` (``*``, ``?``, ``[abc]``)."""
    return any(fnmatchcase(folded(name), folded(each)) for each in patterns)


def find(name: str, known: Iterable[str]) -> str | None:
    """Return which of ``known`` is ``name``, None if none is."""
    return next((each for each in known if folded(each) == folded(name)), None)


def advice(name: str, known: Iterable[str]) -> str:
    """Return advice for a person who wrote ``name``, which is none of ``known``."""
    by_folded = {folded(each): each for each in known}
    if close := get_close_matches(folded(name), by_folded, n=1, cutoff=0.6):
        return f"did you mean {by_folded[close[0]]}?"
    return f"known are {', '.join(sorted(by_folded.values())) or 'none'}"
