"""The page's requests to its node, as a node answers them.

Invariant: nothing of the web stack is needed to answer: a node has it in memory only once a client asks.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from harmonylite.web.last_hour import LastHour
from harmonylite.web.page_guard import PageGuard


class PageActions(Protocol):
    """The page's requests to a node; `harmonylite.node.page` answers. May raise `HarmonyLiteError`."""

    async def details(self) -> dict[str, Any]:
        """Return nodes, tables, snapshots and the last comparison; ``errors`` says what of it is not known, and why."""

    async def conflicts(self, table: str, words: str, limit: int) -> Sequence[dict[str, Any]]:
        """Return the newest conflicts that have all ``words``, of ``table`` ("" = of all)."""

    async def changes(self) -> AsyncGenerator[dict[str, Any], None]:
        """Return the last changes, and those that come."""

    def log(self) -> Sequence[dict[str, str]]:
        """Return the last lines of the log, the oldest first."""

    async def put_back(self, conflict: str) -> dict[str, Any]:
        """Write the value that was overruled in the conflict of that id."""

    async def save_snapshot(self) -> dict[str, Any]:
        """Save a snapshot now."""

    async def verify(self) -> dict[str, Any]:
        """Compare database, mirror and nodes now."""


@dataclass(frozen=True, slots=True)
class PageSource:
    """Where the page's data comes from, and who may have it. ``name``: of the database among the ``databases`` of its
    process, each of which has a tab; "" and none where it is the only one.
    """

    actions: PageActions
    hour: LastHour
    guard: PageGuard
    name: str = ""
    databases: Callable[[], Sequence[Any]] = tuple
