"""The streams of a region's interim orders: made, found, closed and removed.

Invariant: of several nodes that make one at a time, one succeeds: the first shard's stream is made under the number
that follows the last one known, and JetStream makes a name once. What an interim order holds stays until it is removed;
once it is closed nothing is added. Its subjects are its own: neither order ever takes what is meant for the other.
"""

from __future__ import annotations

import logging
import re
import secrets
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from harmonylite.changes.failover import Interim, Start
from harmonylite.errors import ForeignError, StreamError, StreamLostError
from harmonylite.foreign import Codec, Line, Seconds, Seq, Shard
from harmonylite.jetstream.api import STREAM_EXISTS, ApiError, JetStream, as_names
from harmonylite.jetstream.regions.mirror_streams import close_stream
from harmonylite.jetstream.replicas import create
from harmonylite.jetstream.settings import StreamSettings
from harmonylite.jetstream.stream import Details, Stream
from harmonylite.jetstream.stream_metadata import ORDER, PrimaryRegion, failover_stream_name, failover_subject
from harmonylite.jetstream.streams import CREATE_SECONDS, stream_config
from harmonylite.nats.link import NatsLink
from harmonylite.nats.names import stream_name

log = logging.getLogger(__name__)

INTERIM = "harmonylite-interim"
"""Metadata: mark, time of making, and where each shard begins."""


class FailoverRecord(msgspec.Struct):
    """What the metadata of an interim order's first stream says. ``mark``: part of a file's name at every node.

    ``starts``: by shard the identity of home's order, up to where it goes, and what was copied of it.
    """

    mark: Annotated[str, Meta(pattern=r"\A[0-9A-Za-z]{1,64}\Z")]
    since: Seconds
    starts: Annotated[dict[Shard, tuple[Line, Seq, Seq]], Meta(min_length=1, max_length=1024)]


CODEC = Codec("where an interim order begins", FailoverRecord)


class FailoverStreams:
    """The interim orders of the region ``home.region``."""

    def __init__(self, link: NatsLink, settings: StreamSettings, home: PrimaryRegion) -> None:
        self._api = JetStream(link, home.region)
        self._settings = replace(settings, domain=home.region)
        self._home = home
        self.seen: tuple[Interim, ...] = ()
        """What `all` found last."""
        self.apart = False
        """True while this node's mirror is in an interim order, also in one that is closed."""
        self.base: Path | None = None
        """The mirror as it was before that, where there is one."""

    async def all(self) -> list[Interim]:
        """Return all that are there, the newest last; raises StreamError."""
        names = await self._names()
        first = stream_name(self._settings.stream_prefix, 0)
        pattern = re.compile(re.escape(failover_stream_name(first, 0)[:-1]) + r"(\d+)")
        found = []
        for number in sorted(int(match[1]) for name in names if (match := pattern.fullmatch(name))):
            with suppress(StreamLostError):
                interim = _read(number, await self._stream(0, number).details())
                whole = all(self._name(shard, number) in names for shard in interim.starts)
                found.append(replace(interim, whole=whole))
        self.seen = tuple(found)
        return found

    async def copied(self) -> dict[int, tuple[str, int]]:
        """Return by shard whose order the region's copy holds, and its last message there; raises StreamError."""
        found = {}
        for shard in range(self._settings.shards):
            name = stream_name(self._settings.stream_prefix, shard)
            details = await Stream(self._api, name, shard).details()
            if not details.role.copy_of:
                raise StreamError(f"stream {name} of region {self._home.region} is no copy of home's")
            found[shard] = details.info.created, details.info.last
        return found

    async def make(self, starts: Mapping[int, Start]) -> bool:
        """Make an interim order that begins at ``starts``; False: another node was faster. Raises StreamError."""
        known = await self.all()
        if any(interim.open for interim in known):
            return False
        number = 1 + max((interim.number for interim in known), default=0)
        interim = Interim(number, secrets.token_hex(8), starts, time.time())
        if not await self._create(interim, 0):
            return False
        await self.complete(interim)
        return True

    async def complete(self, interim: Interim) -> None:
        """Make the streams of the other shards, where a maker did not come to it; raises StreamError."""
        for shard in interim.starts:
            if shard:
                await self._create(interim, shard)

    async def close(self, interim: Interim) -> None:
        """Let an interim order take nothing any more; called again it goes on. Raises StreamError."""
        for shard in interim.starts:
            stream = self._stream(shard, interim.number)
            with suppress(StreamLostError):
                details = await stream.details()
                if not details.role.shut:
                    await close_stream(stream, details)
                    log.warning("stream %s takes nothing any more: home is back", stream.name)

    async def ends(self, interim: Interim) -> dict[int, int]:
        """Return the last sequence of each shard; raises StreamError."""
        found = {}
        for shard, start in interim.starts.items():
            found[shard] = start.upto
            with suppress(StreamLostError):
                found[shard] = (await self._stream(shard, interim.number).details()).info.last
        return found

    async def remove(self, interim: Interim) -> None:
        """Delete the streams, the first shard's last: without it none is found. Raises StreamError."""
        for shard in sorted(interim.starts, reverse=True):
            stream = self._stream(shard, interim.number)
            with suppress(StreamLostError):
                await stream.details()
                await self._api.call(f"STREAM.DELETE.{stream.name}", seconds=CREATE_SECONDS)

    def use(self, interim: Interim | None) -> None:
        """Read and publish in ``interim`` from now on; None: in home's order."""
        if self._home.interim != interim:
            log.warning(
                "this node goes on %s", "in home's order" if interim is None else f"in interim order {interim.mark}"
            )
        self._home.interim = interim

    @property
    def needed(self) -> bool:
        """False in the home region, which has the order itself."""
        return not self._home.here

    def _name(self, shard: int, number: int) -> str:
        return failover_stream_name(stream_name(self._settings.stream_prefix, shard), number)

    def _stream(self, shard: int, number: int) -> Stream:
        return Stream(self._api, self._name(shard, number), shard)

    async def _names(self) -> set[str]:
        names: set[str] = set()
        while True:
            found = as_names(await self._api.call("STREAM.NAMES", {"offset": len(names)}))
            names.update(found.streams or [])
            if not found.streams or len(names) >= found.total:
                return names

    async def _create(self, interim: Interim, shard: int) -> bool:
        """Make one shard's stream; False when there is one under this name that somebody else made."""
        start, name = interim.starts[shard], self._name(shard, interim.number)
        starts = {s: (each.parent, each.upto, each.copied) for s, each in interim.starts.items()}
        said = FailoverRecord(interim.mark, interim.since, starts)
        subject = failover_subject(self._settings.subject_prefix, self._home.region, interim.number, shard, "*")
        config: dict[str, Any] = {
            **stream_config(self._settings, shard),
            "name": name,
            "subjects": [subject],
            # No snapshot covers an interim order: it keeps everything for as long as it is needed.
            "max_msgs": -1,
            "first_seq": start.upto + 1,
            "metadata": {ORDER: interim.order(shard), INTERIM: CODEC.encode(said).decode()},
        }
        try:
            await create(self._api, config)
        except ApiError as error:
            if error.code != STREAM_EXISTS:
                raise
            return False
        log.warning("stream %s made: an interim order after message %d of home's", name, start.upto)
        return True


def _read(number: int, details: Details) -> Interim:
    """Return the interim order that a first shard's stream tells of; raises StreamError."""
    text = (details.config.get("metadata") or {}).get(INTERIM, "")
    try:
        said = CODEC.decode(text.encode())
    except ForeignError as error:
        raise StreamError(f"stream {details.config.get('name')} is no interim order: {error.message}") from None
    if said.starts.keys() != set(range(len(said.starts))):
        raise StreamError(f"stream {details.config.get('name')} is no interim order: it is of shards {[*said.starts]}")
    starts = {shard: Start(*start) for shard, start in said.starts.items()}
    return Interim(number, said.mark, starts, said.since, open=not details.role.shut)
