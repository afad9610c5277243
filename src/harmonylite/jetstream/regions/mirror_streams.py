"""The streams of one region: those that accept messages, or copies of them.

Invariant: a copy is created only of a stream that accepts messages, and carries that stream's identity; a stream that
accepts messages is never deleted here.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace

from harmonylite.backoff import Backoff, Retry
from harmonylite.errors import ConfigError, StreamError, StreamLostError
from harmonylite.jetstream.api import STREAM_EXISTS, ApiError, JetStream
from harmonylite.jetstream.replicas import create
from harmonylite.jetstream.settings import StreamSettings
from harmonylite.jetstream.stream import Details, Stream
from harmonylite.jetstream.stream_metadata import LEFT_FOR, PrimaryRegion, Role, closed_subject, mirrored
from harmonylite.jetstream.streams import CREATE_SECONDS, compared, ensure_stream, stream_config, until_there
from harmonylite.nats.link import NatsLink
from harmonylite.nats.names import stream_name
from harmonylite.status import NodeStatus, Part

log = logging.getLogger(__name__)

CHECK_EVERY = 2.0
"""Seconds between checks of the primary region from another one; three times as many in the primary region itself."""

LOSSES = 2
"""Checks in a row that must fail before the primary region counts as unreachable: one lost answer is not an outage."""

FOLLOW_AFTER = 5
"""Checks in a row that must find other streams in the primary region than the copied ones before those are copied."""

PART = "primary region"


async def ensure_region_streams(
    link: NatsLink, settings: StreamSettings, home: PrimaryRegion, part: Part | None = None
) -> list[str]:
    """Create the streams of this region unless they exist; wait for JetStream and, if needed, for the primary region.

    Existing streams say which region is the primary one, and ``home`` learns it. Returns and raises as
    `ensure_streams`.
    """
    part = part or Part("streams")
    warnings: list[str] = []
    configured = home.now
    for shard in range(settings.shards):
        regional = RegionStream(link, settings, shard, home)
        warnings += await until_there(link, regional.own, part, regional.ensure, settings.replicas)
    part.ok()
    if home.now != configured:
        warnings.append(f"the streams name {home.now} as primary region, primary_region names {configured}; correct it")
    return warnings


class RegionStream:
    """A shard's stream in every region. ``own``: the one of this region."""

    def __init__(self, link: NatsLink, settings: StreamSettings, shard: int, home: PrimaryRegion) -> None:
        self.link = link
        self.settings = replace(settings, domain=home.region)
        self._home = home
        self.shard = shard
        self.name = stream_name(settings.stream_prefix, shard)
        self.own = self.of(home.region)

    def of(self, region: str) -> Stream:
        """Return the stream of ``region``."""
        return Stream(JetStream(self.link, region), self.name, self.shard)

    async def ensure(self) -> list[str]:
        """Create this region's stream, or compare it with the settings; return differences. Raises StreamError."""
        try:
            details = await self.own.details()
        except StreamLostError:
            if self._home.here:
                return await ensure_stream(self.own, self.settings)
            await self.copy(*await self.order(self._home.now))
            details = await self.own.details()
        except StreamError as error:
            if isinstance(error, ApiError) or not (trouble := self._domain_trouble()):
                raise
            raise StreamError(f"{error.message}; {trouble}") from None
        await self._check_only_order(details)
        self._home.follow(details.role)
        if details.role.takes_messages:
            return await compared(
                self.own, details, stream_config(self.settings, self.shard), update=self.settings.update_existing
            )
        if not details.role.copy_of:
            return []
        wanted = {"num_replicas": self.settings.replicas} if self.settings.replicas else {}
        return await compared(
            self.own,
            replace(details, config={**details.config, "subjects": []}),
            wanted,
            update=self.settings.update_existing,
        )

    def _domain_trouble(self) -> str:
        """Say that the NATS server is in another JetStream domain than its region's, "" when it is not."""
        found = self.link.now().domain
        if found == self._home.region:
            return ""
        return (
            f"JetStream of the server has {f'domain {found}' if found else 'no domain'}: set domain: "
            f"{self._home.region} in the jetstream block of every server of this region"
        )

    async def _check_only_order(self, details: Details) -> None:
        """Raise ConfigError when another region is configured as primary, but this one has always made the order.

        Each would accept the other's messages. Once a region was promoted, the streams are right and the configuration
        is outdated.
        """
        home, region = self._home.now, self._home.region
        if home == region or details.role.moves or not details.role.takes_messages:
            return
        try:
            there = (await self.of(home).details()).role
        except StreamLostError:
            there = Role("")
        except StreamError as error:
            raise StreamError(
                f"primary_region is {home}, but the streams of region {region} take messages already, and {home} "
                f"can't be asked whether its streams do, too: {error.message}"
            ) from None
        if there.copy_of != region:
            raise ConfigError(
                f"primary_region is {home}, but the streams of region {region} take messages already",
                advice=f'set primary_region = "{region}" on every node and move the primary region with '
                f"`harmonylite region promote`; or let region {region} join {home} with its rows: see docs/regions.md",
            )

    async def order(self, region: str) -> tuple[str, Details]:
        """Return the stream that accepts messages, and its region; ``region`` is asked first. Raises StreamError."""
        asked: list[str] = []
        while region and region not in asked:
            asked.append(region)
            try:
                details = await self.of(region).details()
            except StreamLostError:
                raise StreamError(f"region {region} has not made stream {self.name} yet") from None
            except StreamError as error:
                raise StreamError(f"primary region {region} can't be reached: {error.message}") from None
            if details.role.takes_messages:
                return region, details
            region = details.role.left_for or details.role.copy_of
        raise StreamError(f"no region takes messages for stream {self.name}; asked were {', '.join(asked)}")

    async def copy(self, region: str, details: Details) -> None:
        """Create this region's stream as a copy of ``region``'s; it must not exist. Raises StreamError."""
        config = mirrored(details.role, region, details.config, self.settings.replicas)
        try:
            count = await create(self.own.api, config)
        except ApiError as error:
            # Another node was faster.
            if error.code != STREAM_EXISTS:
                raise
        else:
            log.info(
                "created mirror stream %(stream)s of region %(region)s with %(replicas)d replicas",
                {"stream": self.name, "region": region, "replicas": count},
            )


class RegionWatch:
    """Supervises one region: whether the primary region answers, and whether the copies are still copies of its
    streams.

    ``after``: called after each check in which this region's own streams answered; ``steady``: checks in a row in which
    the primary region answered.
    """

    def __init__(
        self,
        link: NatsLink,
        settings: StreamSettings,
        home: PrimaryRegion,
        status: NodeStatus,
        *,
        rejoin: Callable[[], Awaitable[object]],
        every: float = CHECK_EVERY,
        wall: Callable[[], float] = time.time,
        after: Callable[[RegionWatch], Awaitable[None]] | None = None,
    ) -> None:
        self._shards = [RegionStream(link, settings, shard, home) for shard in range(settings.shards)]
        self._settings = settings
        self._home = home
        self._status = status
        self._part = status.part(PART)
        self._rejoin = rejoin
        self._others = 0
        self._every = every
        self._wall = wall
        self._lost = 0
        self._since = 0.0
        self._after = after
        self._lost_at = 0.0
        self.steady = 0
        status.region = {"region": home.region, "primary": home.now}

    async def run(self) -> None:
        """Check without end."""
        retry = Retry(log, "looking at the regions' streams", Backoff(first=self._every, most=3 * self._every))
        while True:
            pause = self._every * (3 if self._home.here else 1)
            try:
                await self.check()
                if self._after is not None:
                    await self._after(self)
            except StreamError as error:
                pause = retry.failed(error, time.monotonic())
            else:
                retry.worked()
            await asyncio.sleep(pause)

    @property
    def unreachable_for(self) -> float:
        """Seconds since the primary region became unreachable, 0.0 while it answers."""
        return time.monotonic() - self._lost_at if self._lost >= LOSSES else 0.0

    async def check(self) -> None:
        """Check once and update the status. Raises StreamError when this region's own streams can't be asked."""
        own = [await self._own(shard) for shard in self._shards]
        self._home.follow(own[0].role)
        start = time.monotonic()
        try:
            order = [await shard.of(self._home.now).details() for shard in self._shards]
        except StreamLostError as error:
            self._part.waiting(f"primary region {self._home.now}: {error.message}; it is made again there")
            self.steady = 0
            return
        except StreamError as error:
            self._unreachable(error)
            return
        seconds = (time.monotonic() - start) / len(own)
        self._lost, self._since = 0, 0.0
        self.steady += 1
        lag = sum(max(0, there.info.last - here.info.last) for here, there in zip(own, order, strict=True))
        self._show(reachable=True, round_trip=seconds, lag=lag, moves=max(details.role.moves for details in own))
        self._judge(own, order)
        other = any(here.info.created != there.info.created for here, there in zip(own, order, strict=True))
        self._others = self._others + 1 if other and all(there.role.takes_messages for there in order) else 0
        if self._others > FOLLOW_AFTER and not self._home.left:
            # The primary region lost its streams and started a new epoch; every node here has folded the copies.
            self._others = 0
            self._part.event(
                "copying the streams of primary region %(region)s again: they are not those copied before",
                warning=True,
                region=self._home.now,
            )
            await self._rejoin()
        if self._home.here:
            await self._shut_what_was_left(own)

    async def _own(self, shard: RegionStream) -> Details:
        try:
            return await shard.own.details()
        except StreamLostError:
            if self._home.here:
                raise
            log.warning("recreating missing mirror stream %(stream)s", {"stream": shard.name})
            await shard.copy(*await shard.order(self._home.now))
            return await shard.own.details()

    def _unreachable(self, error: StreamError) -> None:
        self.steady = 0
        self._lost_at = self._lost_at if self._lost else time.monotonic()
        self._lost += 1
        if self._lost < LOSSES:
            return
        self._since = self._since or self._wall()
        self._show(reachable=False, round_trip=0.0, lag=0, moves=0)
        if self._home.here:
            self._part.waiting(f"the streams of this region can't be asked: {error.message}")
            return
        failover = self._home.failover
        if failover is not None:
            self._part.ok()
            return
        self._part.waiting(
            f"can't reach primary region {self._home.now} since {_utc(self._since)}: changes queue here, this region's "
            "copy is applied; publishing resumes once the leaf link is back"
        )

    def _show(self, *, reachable: bool, round_trip: float, lag: int, moves: int) -> None:
        failover = self._home.failover
        note = (
            f"can't reach primary region {self._home.now} since {_utc(self._since)}; this region's nodes failed over at"
            f" {_utc(failover.since)} and fail back once the leaf link is back"
            if failover is not None and not reachable
            else ""
        )
        self._status.region = {
            "region": self._home.region,
            "primary": self._home.now,
            "reachable": reachable,
            "unreachable_since": self._since,
            "round_trip_seconds": round(round_trip, 4),
            "copy_behind": lag,
            "moves": moves,
            "failover": failover is not None,
            "failover_since": failover.since if failover is not None else 0.0,
            "note": note,
        }

    def _judge(self, own: list[Details], order: list[Details]) -> None:
        """Report in the status whether the copies here still belong to the streams there."""
        if self._home.left:
            self._part.failed(
                f"region {self._home.now} was promoted while this region was away; nothing is published from here:"
                " run `harmonylite region rejoin` on one node of this region (docs/regions.md)"
            )
        elif any(here.info.created != there.info.created for here, there in zip(own, order, strict=True)):
            self._part.waiting(
                f"the streams of primary region {self._home.now} are not those that were copied here; this region "
                "follows them soon, unless `harmonylite region promote -force` promotes this region's copies"
            )
        elif not all(there.role.takes_messages for there in order):
            self._part.waiting(f"region {self._home.now} takes no messages now: another region is being promoted")
        else:
            self._part.ok()

    async def _shut_what_was_left(self, own: list[Details]) -> None:
        """If a forced promotion left two orders, close the one that was promoted earlier."""
        for shard, details in zip(self._shards, own, strict=True):
            role = details.role
            if not role.came_from or not role.takes_messages:
                continue
            former = shard.of(role.came_from)
            try:
                found = await former.details()
            except StreamError:
                continue
            if found.role.copy_of or found.role.left_for:
                continue
            if (found.role.moves, found.role.order) < (role.moves, role.order):
                await close_stream(former, found, left_for=self._home.region)
                log.warning(
                    "closed stream %(stream)s of region %(region)s, which was demoted unreached",
                    {"stream": shard.name, "region": role.came_from},
                )
            elif found.role.order != role.order:
                await close_stream(shard.own, details, left_for=role.came_from)
                log.warning(
                    "closed stream %(stream)s here: region %(region)s was promoted again",
                    {"stream": shard.name, "region": role.came_from},
                )


async def close_stream(stream: Stream, details: Details, *, left_for: str = "") -> None:
    """Close a stream: its subjects become one on which no node publishes. Raises StreamError.

    ``left_for``: permanently, because that region was promoted.
    """
    metadata = dict(details.config.get("metadata") or {})
    if left_for:
        metadata[LEFT_FOR] = left_for
    config = {**details.config, "subjects": [closed_subject(stream.name)], "metadata": metadata}
    await stream.api.call(f"STREAM.UPDATE.{stream.name}", config, seconds=CREATE_SECONDS)


def _utc(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))
