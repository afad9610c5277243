"""The object store and the pointers where there are regions: those of the home region, reached over the leaf links.

Invariant: all nodes see one store at a time, that of the region which is home; each region's store has names of its
own, so that none of them takes what is meant for another.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from harmonylite.jetstream.link import NatsLink
from harmonylite.jetstream.objects import JetStreamObjects
from harmonylite.jetstream.regions import Home
from harmonylite.jetstream.settings import StreamSettings
from harmonylite.replication.ports import Progress


class RegionObjects:
    """Objects and pointers of the cluster. Implements `harmonylite.replication.ports.Objects`."""

    def __init__(
        self, link: NatsLink, settings: StreamSettings, home: Home, *, bucket: str = "", replicas: int = 0
    ) -> None:
        self._link = link
        self._settings = settings
        self._home = home
        self._bucket = bucket
        self._replicas = replicas
        self._made: dict[str, JetStreamObjects] = {}

    def _now(self) -> JetStreamObjects:
        region = self._home.store
        if region not in self._made:
            settings = replace(self._settings, domain=region, stream_prefix=f"{self._settings.stream_prefix}-{region}")
            bucket = f"{self._bucket}-{region}" if self._bucket else ""
            self._made[region] = JetStreamObjects(self._link, settings, bucket=bucket, replicas=self._replicas)
        return self._made[region]

    async def put(self, name: str, source: Path, progress: Progress | None = None) -> None:
        """Store a file; see `Store.put`."""
        await self._now().put(name, source, progress)

    async def get(self, name: str, target: Path, progress: Progress | None = None) -> None:
        """Fetch a file; see `Store.get`."""
        await self._now().get(name, target, progress)

    async def delete(self, name: str) -> None:
        """Delete an object; see `Store.delete`."""
        await self._now().delete(name)

    async def names(self) -> list[str]:
        """Return the names of all objects; see `Store.names`."""
        return await self._now().names()

    async def pointer(self, key: str) -> tuple[bytes, int] | None:
        """Return a pointer; see `Objects.pointer`."""
        return await self._now().pointer(key)

    async def set_pointer(self, key: str, value: bytes, *, revision: int) -> bool:
        """Set a pointer; see `Objects.set_pointer`."""
        return await self._now().set_pointer(key, value, revision=revision)
