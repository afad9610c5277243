"""A node's role in regions: which kind of streams and objects it gets, and how the primary region is moved.

Invariant: without a region in the configuration nothing here has an effect.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from harmonylite.config import Settings
from harmonylite.db.snapshot import save_copy
from harmonylite.errors import ConfigError, NotRunningError, SnapshotError
from harmonylite.jetstream.api import JetStream
from harmonylite.jetstream.buckets import bucket_name
from harmonylite.jetstream.object_store import JetStreamObjects
from harmonylite.jetstream.regions.failover_streams import FailoverStreams
from harmonylite.jetstream.regions.mirror_streams import RegionWatch, ensure_region_streams
from harmonylite.jetstream.regions.promotion import MoveError, promote, rejoin
from harmonylite.jetstream.regions.region_objects import RegionObjects
from harmonylite.jetstream.regions.region_shard import RegionShard
from harmonylite.jetstream.replicas import ReplicaGrowth
from harmonylite.jetstream.shard import JetStreamShard
from harmonylite.jetstream.stream_metadata import PrimaryRegion
from harmonylite.jetstream.streams import ensure_streams
from harmonylite.model import Position
from harmonylite.nats.link import NatsLink
from harmonylite.nats.names import stream_name
from harmonylite.node.failover_controller import FailoverController, Sibling, siblings
from harmonylite.node.wiring import stream_settings
from harmonylite.ports import Peers
from harmonylite.snapshots.repository import SnapshotRepository
from harmonylite.status import NodeStatus

log = logging.getLogger(__name__)

Where = Callable[[], Awaitable[Mapping[int, Position]]]


class RegionControl:
    """What of a node depends on its region. ``streams``: the streams' settings; ``link``: the way to NATS."""

    def __init__(self, settings: Settings, link: NatsLink, status: NodeStatus) -> None:
        self.streams = stream_settings(settings)
        self.link = link
        self._status = status
        nats = settings.nats
        self._home = PrimaryRegion(nats.region, nats.primary_region) if nats.region else None
        self._after = nats.failover_after
        self.failover_controller = FailoverStreams(link, self.streams, self._home) if self._home is not None else None

    async def ensure(self) -> None:
        """Make this region's streams, or find them; see `ensure_streams`."""
        part = self._status.part("streams")
        if self._home is None:
            warnings = await ensure_streams(self.link, self.streams, part)
        else:
            warnings = await ensure_region_streams(self.link, self.streams, self._home, part)
        self._status.stream_warnings = tuple(warnings)
        for warning in warnings:
            log.warning("%s", warning)

    def shards(self, node: str) -> list[JetStreamShard]:
        """Return the shards' streams as the node ``node`` sees them."""
        parts = [self._status.part(f"shard {shard}") for shard in range(self.streams.shards)]
        if self._home is None:
            return [JetStreamShard(self.link, self.streams, shard, node, part=part) for shard, part in enumerate(parts)]
        return [
            RegionShard(self.link, self.streams, shard, node, self._home, part=part) for shard, part in enumerate(parts)
        ]

    def objects(self, *, bucket: str = "", replicas: int = 0) -> JetStreamObjects | RegionObjects:
        """Return the object store and the pointers; arguments as `JetStreamObjects`."""
        if self._home is None:
            return JetStreamObjects(self.link, self.streams, bucket=bucket, replicas=replicas)
        return RegionObjects(self.link, self.streams, self._home, bucket=bucket, replicas=replicas)

    async def raise_replicas(self, *, objects: str, replicas: int) -> None:
        """Raise the replicas of this region's streams and buckets as servers join, without end.

        Returns at once where the configuration names a number. ``objects``, ``replicas``: the object store's bucket,
        and on how many servers it is to be kept (0: as many as the streams).
        """
        if self.streams.replicas:
            return
        region = self._home.region if self._home is not None else ""
        mark, prefix = f"-{region}" if region else "", self.streams.stream_prefix
        names = [stream_name(prefix, shard) for shard in range(self.streams.shards)]
        names.append(f"KV_{bucket_name(f'{prefix}{mark}', 'pointers')}")
        if not replicas:
            names.append(f"OBJ_{objects}{mark}")
        await ReplicaGrowth(JetStream(self.link, region), names).run()

    def own_pointers(self) -> JetStreamObjects | None:
        """Return the pointers of this node's own region, None where there are no regions."""
        return RegionObjects(self.link, self.streams, self._home).of_region() if self._home is not None else None

    async def watch(self, peers: Peers, where: Where, turn: Callable[[], None]) -> None:
        """Look after the region, without end; returns at once where there is none.

        ``where``: this node's positions in the primary order, none while it is in another; ``turn``: called when this
        node may have to go to a failover or back.
        """
        home = self._home
        if home is None or self.failover_controller is None:
            return

        async def own() -> Sibling | None:
            found = {shard: (p.created, p.seq, p.resume) for shard, p in (await where()).items()}
            reaches = bool(self._status.region.get("reachable", True))
            return Sibling(self._status.node_id, home.region, reaches, found)

        failover_controller = FailoverController(
            self.failover_controller, home.region, peers, after=self._after, turn=turn, own=own
        )
        watch = RegionWatch(
            self.link, self.streams, home, self._status, rejoin=self.rejoin, after=failover_controller.check
        )
        async with asyncio.TaskGroup() as group:
            group.create_task(failover_controller.serve(), name="answer siblings")
            group.create_task(watch.run(), name="watch the region")

    async def siblings(self, peers: Peers) -> set[str]:
        """Return the nodes of this region that answer; raises StreamError."""
        return set(await siblings(peers, self._home.region)) if self._home is not None else set()

    async def promote(self, repository: SnapshotRepository | None, *, force: bool) -> dict[str, Any]:
        """Make this node's region the primary region. Raises HarmonyLiteError.

        Before that the region's own store gets a snapshot, so that anyone who joins then finds the cluster's beginning.
        """
        home = self._needed()
        if repository is None:
            raise NotRunningError("the node is not connected to the store yet")
        failover_controller = self.failover_controller
        failed_over = failover_controller is not None and failover_controller.failed_over
        if failed_over and not force:
            raise MoveError(
                f"region {home.region} failed over, and fails back first",
                advice="try again a minute after the leaf link is back; or, if the primary region is lost, with -force",
            )
        # What a failover holds is brought to the new primary region as it would be to the old one: the beginning is
        # before.
        base = failover_controller.base if failover_controller is not None else None
        if not home.here and (base is not None or not failed_over):
            with home.storing(home.region):
                if await repository.save(copy=partial(save_copy, base) if base is not None else None) is None:
                    raise SnapshotError(f"no snapshot could be saved in region {home.region}")
        said = await promote(self.link, replace(self.streams, domain=home.region), home, force=force)
        return {"region": home.region, "primary": home.now, "said": said}

    async def rejoin(self) -> dict[str, Any]:
        """Make this region's streams copies of the primary region's again. Raises HarmonyLiteError."""
        home = self._needed()
        said = await rejoin(self.link, replace(self.streams, domain=home.region), home)
        return {"region": home.region, "primary": home.now, "said": said}

    def _needed(self) -> PrimaryRegion:
        if self._home is None:
            raise ConfigError("this node is in no region", advice="set region and primary_region in [nats]")
        return self._home
