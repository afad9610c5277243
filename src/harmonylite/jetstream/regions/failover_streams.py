"""The streams of a region's failovers: create, find, close and remove them.

Invariant: of several nodes that create one at a time, one succeeds: the first shard's stream gets the number after the
last known one, and JetStream creates a name once. A failover keeps its messages until it is removed, and gets none once
it is closed. Its subjects are its own, so neither order stores a message of the other.
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

from harmonylite.changes.failover import Failover, Start
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

FAILOVER = "harmonylite-interim"
"""Metadata: mark, creation time, and where each shard begins."""


class FailoverRecord(msgspec.Struct):
    """The metadata of a failover's first stream. ``mark``: part of a file's name on every node.

    ``starts``: by shard, the identity of the primary order, the last message that counts, and the last one copied.
    """

    mark: Annotated[str, Meta(pattern=r"\A[0-9A-Za-z]{1,64}\Z")]
    since: Seconds
    starts: Annotated[dict[Shard, tuple[Line, Seq, Seq]], Meta(min_length=1, max_length=1024)]


CODEC = Codec("where a failover begins", FailoverRecord)


class FailoverStreams:
    """The failovers of the region ``home.region``."""

    def __init__(self, link: NatsLink, settings: StreamSettings, home: PrimaryRegion) -> None:
        self._api = JetStream(link, home.region)
        self._settings = replace(settings, domain=home.region)
        self._home = home
        self.seen: tuple[Failover, ...] = ()
        """The result of the last `all`."""
        self.failed_over = False
        """True while this node's mirror is in a failover, also in one that is closed."""
        self.base: Path | None = None
        """The file with the mirror's state before that, if there is one."""

    async def all(self) -> list[Failover]:
        """Return all failovers, the newest last; raises StreamError."""
        names = await self._names()
        first = stream_name(self._settings.stream_prefix, 0)
        pattern = re.compile(re.escape(failover_stream_name(first, 0)[:-1]) + r"(\d+)")
        found = []
        for number in sorted(int(match[1]) for name in names if (match := pattern.fullmatch(name))):
            with suppress(StreamLostError):
                failover = _read(number, await self._stream(0, number).details())
                whole = all(self._name(shard, number) in names for shard in failover.starts)
                found.append(replace(failover, whole=whole))
        self.seen = tuple(found)
        return found

    async def copied(self) -> dict[int, tuple[str, int]]:
        """Return by shard the identity of the copied order and the copy's last message; raises StreamError."""
        found = {}
        for shard in range(self._settings.shards):
            name = stream_name(self._settings.stream_prefix, shard)
            details = await Stream(self._api, name, shard).details()
            if not details.role.copy_of:
                raise StreamError(f"stream {name} of region {self._home.region} is no copy of the primary region's")
            found[shard] = details.info.created, details.info.last
        return found

    async def make(self, starts: Mapping[int, Start]) -> bool:
        """Create a failover that begins at ``starts``; False: another node was faster. Raises StreamError."""
        known = await self.all()
        if any(failover.open for failover in known):
            return False
        number = 1 + max((failover.number for failover in known), default=0)
        failover = Failover(number, secrets.token_hex(8), starts, time.time())
        if not await self._create(failover, 0):
            return False
        await self.complete(failover)
        return True

    async def complete(self, failover: Failover) -> None:
        """Create the streams of the other shards, if the failover's creator did not; raises StreamError."""
        for shard in failover.starts:
            if shard:
                await self._create(failover, shard)

    async def close(self, failover: Failover) -> None:
        """Make a failover accept no more messages; another call resumes. Raises StreamError."""
        for shard in failover.starts:
            stream = self._stream(shard, failover.number)
            with suppress(StreamLostError):
                details = await stream.details()
                if not details.role.shut:
                    await close_stream(stream, details)
                    log.warning(
                        "closed failover stream %(stream)s: the primary region is back", {"stream": stream.name}
                    )

    async def ends(self, failover: Failover) -> dict[int, int]:
        """Return the last sequence of each shard; raises StreamError."""
        found = {}
        for shard, start in failover.starts.items():
            found[shard] = start.upto
            with suppress(StreamLostError):
                found[shard] = (await self._stream(shard, failover.number).details()).info.last
        return found

    async def remove(self, failover: Failover) -> None:
        """Delete the streams, the first shard's last, because `all` finds a failover by it. Raises StreamError."""
        for shard in sorted(failover.starts, reverse=True):
            stream = self._stream(shard, failover.number)
            with suppress(StreamLostError):
                await stream.details()
                await self._api.call(f"STREAM.DELETE.{stream.name}", seconds=CREATE_SECONDS)

    def use(self, failover: Failover | None) -> None:
        """Read and publish in ``failover`` from now on; None: in the primary order."""
        if self._home.failover != failover:
            log.warning(
                "following %(order)s",
                {"order": "the primary order" if failover is None else f"failover {failover.mark}"},
            )
        self._home.failover = failover

    @property
    def needed(self) -> bool:
        """False in the primary region, which has the order itself."""
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

    async def _create(self, failover: Failover, shard: int) -> bool:
        """Create one shard's stream; False when another cluster created one of this name."""
        start, name = failover.starts[shard], self._name(shard, failover.number)
        starts = {s: (each.parent, each.upto, each.copied) for s, each in failover.starts.items()}
        said = FailoverRecord(failover.mark, failover.since, starts)
        subject = failover_subject(self._settings.subject_prefix, self._home.region, failover.number, shard, "*")
        config: dict[str, Any] = {
            **stream_config(self._settings, shard),
            "name": name,
            "subjects": [subject],
            # No snapshot covers a failover, so it keeps all messages.
            "max_msgs": -1,
            "first_seq": start.upto + 1,
            "metadata": {ORDER: failover.order(shard), FAILOVER: CODEC.encode(said).decode()},
        }
        try:
            await create(self._api, config)
        except ApiError as error:
            if error.code != STREAM_EXISTS:
                raise
            return False
        log.warning(
            "created failover stream %(stream)s after message %(seq)d of the primary order",
            {"stream": name, "seq": start.upto},
        )
        return True


def _read(number: int, details: Details) -> Failover:
    """Return the failover that a first shard's stream names; raises StreamError."""
    text = (details.config.get("metadata") or {}).get(FAILOVER, "")
    try:
        said = CODEC.decode(text.encode())
    except ForeignError as error:
        raise StreamError(f"stream {details.config.get('name')} is no failover: {error.message}") from None
    if said.starts.keys() != set(range(len(said.starts))):
        raise StreamError(f"stream {details.config.get('name')} is no failover: it is of shards {[*said.starts]}")
    starts = {shard: Start(*start) for shard, start in said.starts.items()}
    return Failover(number, said.mark, starts, said.since, open=not details.role.shut)
