"""Names as SQLite compares them: letters of ASCII without their case, all others as they are.

Invariant: two names that SQLite holds equal are equal here, and no others.
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
"""Tables that other programs keep in a file for their own sake: Litestream, Alembic, cr-sqlite, SQLite Sync, Marmot."""

ROWIDS = ("rowid", "_rowid_", "oid")
"""SQLite's names of a rowid (SQLite: lang_createtable, rowid)."""

_LOWER = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}


def folded(name: str) -> str:
    """Return ``name`` such that names which SQLite holds equal are one (SQLite: lang_keywords, sqlite3_stricmp)."""
    return name.translate(_LOWER)


def fits(name: str, patterns: Iterable[str]) -> bool:
    """Return whether ``name`` is what one of ``patterns`` (``*``, ``?``, ``[abc]``) says."""
    return any(fnmatchcase(folded(name), folded(each)) for each in patterns)


def find(name: str, known: Iterable[str]) -> str | None:
    """Return which of ``known`` is meant by ``name``, None where none is."""
    return next((each for each in known if folded(each) == folded(name)), None)


def advice(name: str, known: Iterable[str]) -> str:
    """Return what a person may have meant who wrote ``name``, which is none of ``known``."""
    by_folded = {folded(each): each for each in known}
    if close := get_close_matches(folded(name), by_folded, n=1, cutoff=0.6):
        return f"did you mean {by_folded[close[0]]}?"
    return f"known are {', '.join(sorted(by_folded.values())) or 'none'}"
