"""SQLite values and conflicts as JSON, exact and distinct from ordinary text; and as the page shows them.

Invariant: numbers, text and null mean themselves; what JSON can't hold is an object with one key that names it. On the
page a value is text beside its type, so that a number of 64 bits is shown whole.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import fields
from functools import cached_property
from typing import Any

import msgspec

from harmonylite.model import Conflict, RawText, SqlValue
from harmonylite.schema.names import ROWIDS


def sql_json(value: SqlValue) -> Any:
    """Return ``value`` as JSON: ``{"blob": hex}``, ``{"raw_text": hex}`` and ``{"real": "inf"}`` where it must be."""
    if isinstance(value, bytes):
        return {"blob": value.hex()}
    if isinstance(value, RawText):
        return {"raw_text": value.data.hex()}
    if isinstance(value, float) and not math.isfinite(value):
        return {"real": str(value)}
    return value


def row_json(values: Mapping[str, SqlValue]) -> dict[str, Any]:
    """Return a row's values, or some of them, as `sql_json`."""
    return {column: sql_json(value) for column, value in values.items()}


def key_json(key: Mapping[str, SqlValue]) -> dict[str, Any]:
    """Return a key as `row_json`, without the rowid beside a whole key: that is NULL, and names nothing."""
    return row_json({c: value for c, value in key.items() if value is not None or c not in ROWIDS or len(key) == 1})


def conflict_json(conflict: Conflict) -> dict[str, Any]:
    """Return every field of ``conflict`` under its own name; ``at`` stays seconds since the epoch."""
    plain = {f.name: getattr(conflict, f.name) for f in fields(conflict)}
    return plain | {
        "key": key_json(conflict.key),
        "winning": sql_json(conflict.winning),
        "overruled": sql_json(conflict.overruled),
        "extra": dict(conflict.extra),
    }


class ShownEntry(dict[str, Any]):
    """An entry as a reader gets it. Its bytes are made once, however many readers get them."""

    @cached_property
    def line(self) -> bytes:
        """The entry as JSON on a line."""
        return json_of(self) + b"\n"

    @cached_property
    def event(self) -> bytes:
        """The entry as a server-sent event (WHATWG HTML, 9.2); one without changes only moves the reader's position."""
        name = f"id: {self['position']}\n" if self["position"] else ""
        kind = "changes" if self["changes"] else "skipped" if "skipped" in self else "position"
        return f"{name}event: {kind}\ndata: ".encode() + self.line + b"\n"


def json_of(values: Mapping[str, Any]) -> bytes:
    """Return JSON in ASCII, for some readers also end a line where Unicode has a line separator."""
    try:
        text = msgspec.json.encode(values)
    except UnicodeEncodeError:  # a name that isn't UTF-8
        return json.dumps(values).encode()
    return text if text.isascii() else json.dumps(values).encode()


def shown_change(change: dict[str, Any]) -> dict[str, Any]:
    """Return a change of the feed with each value as `shown`."""
    return change | {side: shown_row(change[side]) for side in ("key", "before", "after")}


def shown_row(row: dict[str, Any]) -> list[list[str]]:
    """Return name, type and text of each value of a row."""
    return [[name, *shown(value)] for name, value in row.items()]


def shown(value: Any) -> tuple[str, str]:
    """Return type and text of a value that `sql_json` made, shortened where it is long."""
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
