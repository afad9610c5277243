"""What a node's answers are in a program: frozen records with Python's own values.

Invariant: a value is None, int, float, str or bytes, and is what SQLite stores: nothing is rounded or left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Value = None | int | float | str | bytes
"""A value of SQLite. Text that isn't UTF-8 is a str with surrogate escapes (PEP 383)."""


@dataclass(frozen=True, slots=True)
class Change:
    """A row that a transaction changed.

    ``before``, ``after``: the columns that changed, as the writer last saw them and as it wrote them; all columns of an
    insert, or a delete.
    """

    table: str
    kind: Literal["insert", "update", "delete"]
    key: Mapping[str, Value]
    before: Mapping[str, Value]
    after: Mapping[str, Value]


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry of the change feed: a transaction, a part of a large one, or, without ``changes``, a position only.

    ``position``: continue from here once you have processed the entry; None: more of the same transaction follows.
    ``id``: name of the change set. ``origin``: the node whose application wrote it. ``at``, ``written``: when the
    stream stored it and when its node captured it, in seconds since 1970. ``skipped``: why a message was left out.
    """

    position: str | None
    changes: tuple[Change, ...] = ()
    id: str = ""
    origin: str = ""
    at: float = 0.0
    written: float = 0.0
    skipped: str = ""


@dataclass(frozen=True, slots=True)
class ConflictEntry:
    """A value that was overruled: ``overruled`` gave way to ``winning``, written by ``loser`` and ``winner``.

    ``kind``: of the conflict, as `harmonylite conflicts` shows it. ``at``: seconds since 1970. ``shard``, ``seq``:
    the message that decided it.
    """

    at: float
    table: str
    key: Mapping[str, Value]
    column: str
    kind: str
    winning: Value
    overruled: Value
    winner: str | None
    loser: str | None
    shard: int
    seq: int


@dataclass(frozen=True, slots=True)
class NodeReport:
    """The state of a node.

    ``ready``: healthy, caught up, waiting for nothing. ``pending_rows``: committed here and not acknowledged by the
    streams yet. ``waits``: what it waits for, a sentence each. ``report``: everything, as `harmonylite status -json`.
    """

    node_id: str
    version: str
    healthy: bool
    ready: bool
    caught_up: bool
    pending_rows: int
    waits: tuple[str, ...]
    warnings: Mapping[str, str]
    report: Mapping[str, Any]


def value_of(data: Any) -> Value:
    """Return a value as `harmonylite.web.values.sql_json` wrote it."""
    if not isinstance(data, dict):
        return data  # type: ignore[no-any-return]  # JSON's null, numbers and texts are themselves
    if "blob" in data:
        return bytes.fromhex(data["blob"])
    if "raw_text" in data:
        return bytes.fromhex(data["raw_text"]).decode("utf-8", "surrogateescape")
    return float(data["real"])


def _row(data: Mapping[str, Any]) -> dict[str, Value]:
    return {column: value_of(each) for column, each in data.items()}


def entry_of(data: Mapping[str, Any]) -> Entry:
    """Return a line of the feed."""
    changes = tuple(
        Change(each["table"], each["kind"], _row(each["key"]), _row(each["before"]), _row(each["after"]))
        for each in data["changes"]
    )
    names = ("id", "origin", "at", "written", "skipped")
    return Entry(data["position"], changes, **{name: data[name] for name in names if name in data})


def conflict_of(data: Mapping[str, Any]) -> ConflictEntry:
    """Return an entry of the conflict journal."""
    plain = {name: data[name] for name in ("at", "table", "column", "kind", "winner", "loser", "shard", "seq")}
    winning, overruled = value_of(data["winning"]), value_of(data["overruled"])
    return ConflictEntry(key=_row(data["key"]), winning=winning, overruled=overruled, **plain)


def report_of(data: Mapping[str, Any]) -> NodeReport:
    """Return a node's report."""
    return NodeReport(
        data["node_id"],
        data["version"],
        data["status"] == "healthy",
        data["ready"],
        data["caught_up"],
        data["pending_rows"],
        tuple(data["waits"]),
        data["warnings"],
        data,
    )
