"""What the demo plays with: a file, what each site's application writes into it, and rows worth fighting over.

Invariant: a scene only describes; it is the applications that touch the copies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias

Statement: TypeAlias = "tuple[str, Sequence[int | float | str | None]]"
"""SQL and its bindings. A clash's have no bindings: people see them."""

Transaction: TypeAlias = list[Statement]


@dataclass(frozen=True, slots=True)
class Workload:
    """What one application does in one go. ``label``: what a person would call it; one commit per transaction.

    ``left``: a query of one number that returns whether the work is in a file, and what it must answer then.
    """

    label: str
    transactions: list[Transaction]
    left: tuple[str, int]


@dataclass(frozen=True, slots=True)
class Clash:
    """Two writers at one row. ``one`` and ``two``: what each does. ``show``: reads the fought-over columns back.

    Each column that ``show`` reads is changed by at least one of the two.
    """

    table: str
    row: str
    one: Statement
    two: Statement
    show: str


class Scene(Protocol):
    """A database and the things that happen to it.

    ``remark``: what a person should know about the copies, once they are built, "" for nothing.
    """

    title: str
    file_name: str
    remark: str

    @property
    def question(self) -> tuple[str, str] | None:
        """A query that every copy must answer alike, with what it asks in words; None when there is none."""

    @property
    def touched(self) -> tuple[str, ...]:
        """The tables that the bursts and clashes write."""

    def build(self, target: Path) -> None:
        """Make the first copy at ``target``; the others are backups of it. Raises DatabaseError."""

    def burst(self, site: int, number: int) -> Workload:
        """Return what the application at ``site`` (1, 2, 3) does in burst ``number``; no two calls clash."""

    def two_columns(self) -> Clash:
        """Return a clash at one row in different columns: both must survive."""

    def one_column(self) -> Clash:
        """Return a clash in one column: one must win everywhere, the other go to the conflict journal."""

    def by_hand(self) -> tuple[str, str]:
        """Return a statement that changes something each time it is run, and a query that shows it."""
