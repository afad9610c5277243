"""The interim orders of a region, as turning needs them.

`harmonylite.jetstream.regions.failover_streams` is the real thing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from harmonylite.changes.failover import Interim


class FailoverStreamsPort(Protocol):
    """The interim orders of this node's region; `harmonylite.jetstream.regions.failover_streams` is the real thing."""

    seen: tuple[Interim, ...]
    apart: bool
    base: Path | None

    @property
    def needed(self) -> bool:
        """False where there is nothing to go on apart from."""

    async def all(self) -> list[Interim]:
        """Return all that are there, the newest last; raises StreamError."""

    async def ends(self, interim: Interim) -> dict[int, int]:
        """Return the last sequence of each shard; raises StreamError."""

    async def remove(self, interim: Interim) -> None:
        """Delete one; raises StreamError."""

    def use(self, interim: Interim | None) -> None:
        """Read and publish there from now on; None: in home's order."""
