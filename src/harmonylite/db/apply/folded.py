"""What a fold did to each table, which is what the merge has to bring over.

Invariant: an `Effect` never says less than was done.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from harmonylite.db.tracking.tracked_table import TrackedTable


@dataclass
class Effect:
    """What may have become of touched rows in the mirror: some went, ``gone``; some are new, ``new``; in others columns
    changed, by index, ``columns`` (None: any). It bounds what a merge writes; more than was done costs time only.
    """

    gone: bool = True
    new: bool = True
    columns: frozenset[int] | None = None

    def removes(self) -> None:
        """Count a delete."""
        self.gone = True

    def adds(self) -> None:
        """Count an insert; in the place of a row that went it brings other values in every column."""
        self.new = True
        if self.gone:
            self.columns = None

    def changes(self, columns: Iterable[int]) -> None:
        """Count an update."""
        if self.columns is not None:
            self.columns |= frozenset(columns)

    @property
    def only_removes(self) -> bool:
        """Whether none of the touched rows is left in the mirror."""
        return self.gone and not self.new and self.columns == frozenset()

    def anything(self) -> None:
        """Count what has no bound: rows that displace others, or get other numbers."""
        self.gone, self.new, self.columns = True, True, None


@dataclass
class Folded:
    """The effect of a fold on one table. ``fresh``: only inserts of missing rows so far, all of them in ``incoming``.

    ``touched``: the scratch table of that name has keys (never while ``fresh``); ``rows``: how many are fresh.
    ``waiting``: sizes of the parts at the end of ``incoming``, which are not in the mirror yet.
    ``effect``: what may have become of rows that are not fresh.
    """

    table: TrackedTable
    fresh: bool = False
    touched: bool = False
    present: tuple[int, ...] = ()
    rows: int = 0
    waiting: list[int] = field(default_factory=list)
    effect: Effect = field(default_factory=Effect)
