"""Change sets of this session under way, and what applying one batch did.

Invariant: a flight's change set was read with the log at its id; what the log names later, it does not hold.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from harmonylite.errors import DatabaseError
from harmonylite.model import ChangeSetId


class SchemaMovedError(DatabaseError):
    """The schema changed since the last install; install and do it again."""


@dataclass(frozen=True)
class Flight:
    """What a capture read, and then a change set of this session under way. ``log_id``: the log's newest id;
    ``folds``: how many batches of others had been folded; ``seen``: SQLite's data_version of the database.
    """

    log_id: int
    folds: int
    seen: int


@dataclass
class Applied:
    """What applying one batch did. ``locked``: seconds the database's write lock was held."""

    rows: int = 0
    merged: int = 0
    conflicts: int = 0
    locked: float = 0.0
    own: list[ChangeSetId] = field(default_factory=list)
    schema: list[str] = field(default_factory=list)
