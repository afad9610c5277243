"""Settings of failback, and its hooks into other parts.

Invariant: failback reaches other parts by these alone.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from harmonylite.changes.failover import Failover
from harmonylite.snapshots.repository import FetchedCopy


@dataclass(frozen=True, slots=True)
class FailbackSettings:
    """``folder``: the node's private one.

    ``may_bring_back``: False for a node that publishes nothing, or whose database holds only its own rows.
    """

    node: str
    folder: Path
    may_bring_back: bool


@dataclass(frozen=True, slots=True)
class FailbackHooks:
    """``copy``: copies the mirror. ``answers``: returns whether a node answers now.

    ``idle``: returns once everything that was committed so far is in the order. ``request_snapshot``: asks the other
    nodes for one, returns whether one was saved.
    """

    copy: FetchedCopy
    answers: Callable[[str], Awaitable[bool]]
    idle: Callable[[], Awaitable[None]]
    request_snapshot: Callable[[], Awaitable[bool]]


class FailoverStreamsPort(Protocol):
    """The failovers of this node's region; `harmonylite.jetstream.regions.failover_streams` is the real thing."""

    seen: tuple[Failover, ...]
    failed_over: bool
    base: Path | None

    @property
    def needed(self) -> bool:
        """False in the primary region."""

    async def all(self) -> list[Failover]:
        """Return all that are there, the newest last; raises StreamError."""

    async def ends(self, failover: Failover) -> dict[int, int]:
        """Return the last sequence of each shard; raises StreamError."""

    async def remove(self, failover: Failover) -> None:
        """Delete one; raises StreamError."""

    def use(self, failover: Failover | None) -> None:
        """Read and publish there from now on; None: in the primary order."""
