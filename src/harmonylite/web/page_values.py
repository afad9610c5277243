"""How the page shows values of rows.

Invariant: a value of SQLite reaches the page as text beside its type, so that a number of 64 bits is shown whole.
"""

from __future__ import annotations

from typing import Any


def shown_change(change: dict[str, Any]) -> dict[str, Any]:
    """Return a change of the feed with each value as `shown`."""
    return change | {side: shown_row(change[side]) for side in ("key", "before", "after")}


def shown_row(row: dict[str, Any]) -> list[list[str]]:
    """Return name, type and text of each value of a row."""
    return [[name, *shown(value)] for name, value in row.items()]


def shown(value: Any) -> tuple[str, str]:
    """Return type and text of a value that `harmonylite.web.values.sql_json` made, shortened where it is long."""
    match value:
        case None:
            return "null", "NULL"
        case {"blob": str(text)}:
            return "blob", f"x'{_short(text)}' ({len(text) // 2:,} bytes)"
        case {"raw_text": str(text)}:
            return "text", f"not UTF-8: {_short(text)}"
        case {"real": str(text)}:
            return "real", text
        case int() | float():
            return ("integer" if isinstance(value, int) else "real"), str(value)
    return "text", _short(str(value), 2_000)


def _short(text: str, most: int = 64) -> str:
    return text if len(text) <= most else f"{text[:most]}\N{HORIZONTAL ELLIPSIS}"
