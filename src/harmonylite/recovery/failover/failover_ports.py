"""The failovers of a region, as turning needs them.

`harmonylite.jetstream.regions.failover_streams` is the real thing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from harmonylite.changes.failover import Failover


class FailoverStreamsPort(Protocol):
    """The failovers of this node's region; `harmonylite.jetstream.regions.failover_streams` is the real thing."""

    seen: tuple[Failover, ...]
    apart: bool
    base: Path | None

    @property
    def needed(self) -> bool:
        """False where there is nothing to continue apart from."""

    async def all(self) -> list[Failover]:
        """Return all that are there, the newest last; raises StreamError."""

    async def ends(self, failover: Failover) -> dict[int, int]:
        """Return the last sequence of each shard; raises StreamError."""

    async def remove(self, failover: Failover) -> None:
        """Delete one; raises StreamError."""

    def use(self, failover: Failover | None) -> None:
        """Read and publish there from now on; None: in the primary order."""
