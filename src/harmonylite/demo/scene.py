"""The vocabulary of a scene: statements, what each site's application writes, and rows that two sites change at once.

Invariant: a scene only describes; the applications write the copies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

Statement: TypeAlias = "tuple[str, Sequence[int | float | str | None]]"
"""SQL and its bindings. A clash's have no bindings: people see them."""

Transaction: TypeAlias = list[Statement]


@dataclass(frozen=True, slots=True)
class Workload:
    """What one application does at once. ``label``: its name for a person; one commit per transaction.

    ``left``: a query whose number shows whether a file has the work, and that number.
    """

    label: str
    transactions: list[Transaction]
    left: tuple[str, int]


@dataclass(frozen=True, slots=True)
class Clash:
    """Two writers of one row. ``one`` and ``two``: their statements. ``show``: reads the columns that they change."""

    table: str
    row: str
    one: Statement
    two: Statement
    show: str
