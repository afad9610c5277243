"""A node's part in regions: which kind of streams and objects it gets, and how home is moved.

Invariant: without a region in the configuration everything is as if there were none.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

from harmonylite.config import Settings
from harmonylite.errors import ConfigError, NotRunningError, SnapshotError
from harmonylite.jetstream import JetStreamObjects, JetStreamShard, NatsLink, ensure_streams
from harmonylite.jetstream.moving import promote, rejoin
from harmonylite.jetstream.region_objects import RegionObjects
from harmonylite.jetstream.region_shard import RegionShard
from harmonylite.jetstream.region_streams import RegionWatch, ensure_region_streams
from harmonylite.jetstream.regions import Home
from harmonylite.node.wiring import stream_settings
from harmonylite.snapshots.keeper import Keeper
from harmonylite.status import NodeStatus

log = logging.getLogger(__name__)


class Regional:
    """What of a node depends on its region. ``streams``: the streams' settings."""

    def __init__(self, settings: Settings, link: NatsLink, status: NodeStatus) -> None:
        self.streams = stream_settings(settings)
        self._link = link
        self._status = status
        nats = settings.nats
        self._home = Home(nats.region, nats.home_region) if nats.region else None

    async def ensure(self) -> None:
        """Make this region's streams, or find them; see `ensure_streams`."""
        part = self._status.part("streams")
        if self._home is None:
            warnings = await ensure_streams(self._link, self.streams, part)
        else:
            warnings = await ensure_region_streams(self._link, self.streams, self._home, part)
        self._status.stream_warnings = tuple(warnings)
        for warning in warnings:
            log.warning("%s", warning)

    def shards(self, node: str) -> list[JetStreamShard]:
        """Return the shards' streams as the node ``node`` sees them."""
        parts = [self._status.part(f"shard {shard}") for shard in range(self.streams.shards)]
        if self._home is None:
            return [
                JetStreamShard(self._link, self.streams, shard, node, part=part) for shard, part in enumerate(parts)
            ]
        return [
            RegionShard(self._link, self.streams, shard, node, self._home, part=part)
            for shard, part in enumerate(parts)
        ]

    def objects(self, *, bucket: str = "", replicas: int = 0) -> JetStreamObjects | RegionObjects:
        """Return the object store and the pointers; arguments as `JetStreamObjects`."""
        if self._home is None:
            return JetStreamObjects(self._link, self.streams, bucket=bucket, replicas=replicas)
        return RegionObjects(self._link, self.streams, self._home, bucket=bucket, replicas=replicas)

    async def watch(self) -> None:
        """Look after the region, without end; returns at once where there is none."""
        if self._home is not None:
            await RegionWatch(self._link, self.streams, self._home, self._status, rejoin=self.rejoin).run()

    async def promote(self, keeper: Keeper | None, *, force: bool) -> dict[str, Any]:
        """Make this node's region the home region. Raises HarmonyLiteError.

        Before that the region's own store gets a snapshot, so that whoever joins then finds the cluster's beginning.
        """
        home = self._needed()
        if keeper is None:
            raise NotRunningError("the node is not connected to the store yet")
        if not home.here:
            with home.storing(home.region):
                if await keeper.save() is None:
                    raise SnapshotError(f"no snapshot could be saved in region {home.region}")
        said = await promote(self._link, replace(self.streams, domain=home.region), home, force=force)
        return {"region": home.region, "home": home.now, "said": said}

    async def rejoin(self) -> dict[str, Any]:
        """Make this region's streams copies of the home region's again. Raises HarmonyLiteError."""
        home = self._needed()
        said = await rejoin(self._link, replace(self.streams, domain=home.region), home)
        return {"region": home.region, "home": home.now, "said": said}

    def _needed(self) -> Home:
        if self._home is None:
            raise ConfigError("this node is in no region", advice="set region and home_region in [nats]")
        return self._home
