"""Promote a region: its mirror streams begin to accept messages, and those of the former primary region become mirror
streams.

Invariant: at no moment do two streams of one shard accept messages as the order. If the primary region is reachable,
nothing is lost and every position stays valid. Without it (``force``) the copy gets a new identity that names the last
message it shares with the old order; a node that folded more than that gets an error and does not continue.

JetStream: an update without ``mirror`` promotes a mirror (nats-server 2.12 and later); a stream can't become a mirror,
so it is deleted and created again.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from harmonylite.errors import HarmonyLiteError, StreamError, StreamLostError
from harmonylite.jetstream.api import as_names
from harmonylite.jetstream.regions.mirror_streams import RegionStream, close_stream
from harmonylite.jetstream.settings import StreamSettings
from harmonylite.jetstream.stream import Details, Stream
from harmonylite.jetstream.stream_metadata import PrimaryRegion, Role, closed_subject
from harmonylite.jetstream.streams import CREATE_SECONDS, stream_config
from harmonylite.nats.link import NatsLink

log = logging.getLogger(__name__)

COPY_SECONDS = 60.0
"""How long the copies may take to catch up while no region accepts messages; then the promotion is undone."""


POLL_EVERY = 0.05
"""Seconds between polls of how far a copy is."""


class MoveError(HarmonyLiteError):
    """The region can't be promoted; nothing was changed."""


async def promote(link: NatsLink, settings: StreamSettings, home: PrimaryRegion, *, force: bool = False) -> list[str]:
    """Make the region ``home.region`` the primary region; return sentences on what was done.

    ``force``: without the current primary region, which must be unreachable; messages that it acknowledged and did not
    send here are left behind. Raises MoveError, StreamError; another call resumes.
    """
    shards = [RegionStream(link, settings, shard, home) for shard in range(settings.shards)]
    own = [await shard.own.details() for shard in shards]
    if all(details.role.takes_messages for details in own):
        return [f"region {home.region} is the primary region already"]
    if any(details.role.left_for for details in own):
        raise MoveError(
            f"region {own[0].role.left_for} was promoted while {home.region} was away",
            advice="run `harmonylite region rejoin` here first",
        )
    if not force and any(details.role.shut for details in own):
        raise MoveError(
            f"a move was cut off half way, and nothing is taken in region {home.region} since",
            advice="run `harmonylite region promote` again where it was begun, or with -force here",
        )
    copies = [(shard, details) for shard, details in zip(shards, own, strict=True) if details.role.copy_of]
    there = await _reached(copies, force=force)
    former = home.now  # the node's own check of its streams may say otherwise before this is through
    if force:
        await _take_over(shards, settings)
        said = [f"region {home.region} is the primary region now; region {former} was not asked"]
    else:
        await _shut_all(copies, there)
        for shard, details in zip(shards, own, strict=True):
            if not details.role.takes_messages:
                await _open(shard, settings, details)
        said = [f"region {home.region} is the primary region now, region {former or '?'} no more"]
        for shard, details in copies:
            said += await _turn(shard, details.role.copy_of, home.region)
    home.follow((await shards[0].own.details()).role)
    for sentence in said:
        log.warning("%s", sentence)
    return said


async def rejoin(link: NatsLink, settings: StreamSettings, home: PrimaryRegion) -> list[str]:
    """Make this region's streams copies of the primary region's again, whatever they held; return what was done.

    For a former primary region that was away during a promotion, and for copies of streams that were recreated. Raises
    MoveError when this region is the primary region, StreamError when the primary region can't be reached; in both
    cases nothing has changed.
    """
    said: list[str] = []
    for shard in (RegionStream(link, settings, shard, home) for shard in range(settings.shards)):
        try:
            own = await shard.own.details()
        except StreamLostError:
            own = None
        if own is not None and own.role.takes_messages:
            raise MoveError(f"region {home.region} is the primary region: stream {shard.name} takes messages here")
        asked = (own.role.left_for or own.role.copy_of if own is not None else "") or home.now
        region, order = await shard.order(asked)
        if own is not None and own.role.copy_of == region and own.info.created == order.info.created:
            continue
        if own is not None:
            await shard.own.api.call(f"STREAM.DELETE.{shard.name}", seconds=CREATE_SECONDS)
        await shard.copy(region, order)
        said.append(f"stream {shard.name} of region {home.region} is a copy of region {region} now")
        home.follow((await shard.own.details()).role)
    return said or [f"the streams of region {home.region} are copies of region {home.now}; nothing to do"]


async def _reached(copies: Sequence[tuple[RegionStream, Details]], *, force: bool) -> list[Details]:
    """Return the primary region's streams; raise MoveError when it can't be reached, or with ``force`` when it can."""
    there: list[Details] = []
    for shard, details in copies:
        region = details.role.copy_of
        try:
            found = await shard.of(region).details()
        except StreamError as error:
            if force:
                continue
            raise MoveError(
                f"primary region {region} can't be reached: {error.message}",
                advice="wait for the link; if the region is lost for good, `harmonylite region promote -force`",
            ) from None
        same = found.info.created == details.info.created
        if force and same and not found.role.left_for:
            raise MoveError(f"primary region {region} can be reached", advice="leave -force out: nothing is lost then")
        if not force and (not same or found.role.copy_of or found.role.left_for):
            raise MoveError(
                f"stream {shard.name} of region {region} is not the one that is copied here",
                advice="`harmonylite region rejoin` follows it, `harmonylite region promote -force` does not",
            )
        there.append(found)
    return there


async def _shut_all(copies: Sequence[tuple[RegionStream, Details]], there: Sequence[Details]) -> None:
    """Close the primary region's streams, and wait until the copies are complete; reopen them if that fails."""
    former = [(shard, shard.of(details.role.copy_of)) for shard, details in copies]
    try:
        # First wait while messages still arrive, so that a copy that lags delays no node.
        async with asyncio.timeout(COPY_SECONDS):
            for shard, stream in former:
                await _whole(shard.own, stream)
        for (_, stream), details in zip(former, there, strict=True):
            await close_stream(stream, details)
        async with asyncio.timeout(COPY_SECONDS):
            for shard, stream in former:
                await _whole(shard.own, stream)
    except (StreamError, TimeoutError) as error:
        for (_, stream), details in zip(former, there, strict=True):
            with suppress(StreamError):
                await stream.api.call(f"STREAM.UPDATE.{stream.name}", details.config, seconds=CREATE_SECONDS)
        why = str(error) or f"the copies did not get everything within {COPY_SECONDS:g} s"
        raise MoveError(f"the primary region stays the same: {why}") from None


async def _whole(copy: Stream, order: Stream) -> None:
    end = (await order.details()).info
    while (await copy.details()).info.last < end.last:  # noqa: ASYNC110 - another server decides, not a task of ours
        await asyncio.sleep(POLL_EVERY)


async def _open(shard: RegionStream, settings: StreamSettings, details: Details) -> None:
    """Make a copy accept messages, under its present identity."""
    role = details.role
    if role.copy_of:
        role = replace(role, moves=role.moves + 1, came_from=role.copy_of)
    await _update(shard.own, {**_kept(details), **stream_config(settings, shard.shard)}, role)


async def _turn(shard: RegionStream, region: str, to: str) -> list[str]:
    """Make the former primary region's stream a copy of the new one; return why it was not possible."""
    stream = shard.of(region)
    try:
        details = await stream.details()
        await close_stream(stream, details, left_for=to)
        replicas = int(details.config.get("num_replicas") or 1)
        await stream.api.call(f"STREAM.DELETE.{stream.name}", seconds=CREATE_SECONDS)
        there = RegionStream(
            shard.link, replace(shard.settings, replicas=replicas), shard.shard, PrimaryRegion(region, to)
        )
        await there.copy(to, await shard.own.details())
    except StreamError as error:
        return [
            f"stream {shard.name} of region {region} is no copy yet ({error.message}): run "
            "`harmonylite region rejoin` there"
        ]
    return []


async def _take_over(shards: Sequence[RegionStream], settings: StreamSettings) -> None:
    """Make copies accept messages without the region that they are copies of."""
    mark = f"{time.time_ns():x}-{secrets.token_hex(4)}"
    for shard in shards:
        details = await shard.own.details()
        if details.role.takes_messages:
            continue
        if details.role.copy_of:
            # Once no message can arrive, the stream's end is the fork point of the new identity.
            role = replace(details.role, came_from=details.role.copy_of)
            await _update(shard.own, {**_kept(details), "subjects": [closed_subject(shard.name)]}, role)
            details = await shard.own.details()
        # A retry after an interrupted promotion forks again, at the same message, as none arrived meanwhile.
        role, last = details.role, details.info.last
        forks = tuple((old, min(upto, last)) for old, upto in (*role.forks, (role.order, last)))
        role = replace(role, order=f"{role.order.partition('/')[0]}/{mark}", forks=forks, moves=role.moves + 1)
        await _update(shard.own, _kept(details), role)
        log.warning(
            "promoted stream %(stream)s from message %(seq)d without region %(region)s",
            {"stream": shard.name, "seq": last, "region": role.came_from},
        )
        await _end_consumers(shard.own)
        await _update(shard.own, {**_kept(details), **stream_config(settings, shard.shard)}, role)


def _kept(details: Details) -> dict[str, Any]:
    return {key: value for key, value in details.config.items() if key != "mirror"}


async def _update(stream: Stream, config: Mapping[str, Any], role: Role) -> None:
    metadata = {key: value for key, value in (config.get("metadata") or {}).items() if not key.startswith("_nats")}
    body = {**config, "metadata": metadata | role.metadata()}
    await stream.api.call(f"STREAM.UPDATE.{stream.name}", body, seconds=CREATE_SECONDS)


async def _end_consumers(stream: Stream) -> None:
    """End every consumer, so that each reader checks the stream again before it gets another message."""
    names = as_names(await stream.api.call(f"CONSUMER.NAMES.{stream.name}"))
    for name in names.consumers or []:
        await stream.api.call(f"CONSUMER.DELETE.{stream.name}.{name}")
