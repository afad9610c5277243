"""The object store and the pointers of a cluster with regions: those of the primary region, over the leaf links.

Invariant: all nodes see one store at a time, that of the primary region; each region's store has its own names, so no
store accepts objects of another. A cluster that became a region has an earlier store. It is only read and cleaned up,
and serves what the new one lacks, so that no node misses the cluster's beginning.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from harmonylite.errors import ObjectMissingError
from harmonylite.jetstream.object_store import JetStreamObjects
from harmonylite.jetstream.settings import StreamSettings
from harmonylite.jetstream.stream_metadata import PrimaryRegion
from harmonylite.nats.link import NatsLink
from harmonylite.ports import Progress


class RegionObjects:
    """Objects and pointers of the cluster. Implements `harmonylite.ports.Objects`."""

    def __init__(
        self, link: NatsLink, settings: StreamSettings, home: PrimaryRegion, *, bucket: str = "", replicas: int = 0
    ) -> None:
        self._link = link
        self._settings = settings
        self._home = home
        self._bucket = bucket
        self._replicas = replicas
        self._made: dict[tuple[str, str], JetStreamObjects] = {}

    def of_region(self) -> JetStreamObjects:
        """Return the pointers of this node's own region, which stay there when another region is promoted."""
        return self._in(self._home.region, f"-{self._home.region}")

    def _now(self) -> JetStreamObjects:
        region = self._home.store
        return self._in(region, f"-{region}")

    def _earlier(self) -> JetStreamObjects | None:
        """Return the primary region's store from before it was a region, None once a region was promoted."""
        return None if self._home.moves or self._home.store != self._home.now else self._in(self._home.now, "")

    def _in(self, region: str, mark: str) -> JetStreamObjects:
        if (region, mark) not in self._made:
            settings = replace(self._settings, domain=region, stream_prefix=f"{self._settings.stream_prefix}{mark}")
            bucket = f"{self._bucket}{mark}" if self._bucket else ""
            self._made[region, mark] = JetStreamObjects(self._link, settings, bucket=bucket, replicas=self._replicas)
        return self._made[region, mark]

    @property
    def place(self) -> str:
        """Where the objects are, in words for a person; see `Store.place`."""
        return self._now().place

    async def put(self, name: str, source: Path, progress: Progress | None = None) -> None:
        """Store a file; see `Store.put`."""
        await self._now().put(name, source, progress)

    async def get(self, name: str, target: Path, progress: Progress | None = None) -> None:
        """Fetch a file; see `Store.get`."""
        try:
            await self._now().get(name, target, progress)
        except ObjectMissingError:
            if (earlier := self._earlier()) is None:
                raise
            await earlier.get(name, target, progress)

    async def delete(self, name: str) -> None:
        """Delete an object; see `Store.delete`."""
        await self._now().delete(name)
        if (earlier := self._earlier()) is not None:
            await earlier.delete(name)

    async def names(self) -> list[str]:
        """Return the names of all objects; see `Store.names`."""
        found = await self._now().names()
        earlier = self._earlier()
        return found if earlier is None else sorted({*found, *await earlier.names()})

    async def pointer(self, key: str) -> tuple[bytes, int] | None:
        """Return a pointer; see `Objects.pointer`. One of the earlier store has revision 0: it can be set here."""
        found = await self._now().pointer(key)
        if found is not None or (earlier := self._earlier()) is None:
            return found
        before = await earlier.pointer(key)
        return (before[0], 0) if before is not None else None

    async def set_pointer(self, key: str, value: bytes, *, revision: int) -> bool:
        """Set a pointer; see `Objects.set_pointer`."""
        return await self._now().set_pointer(key, value, revision=revision)
