"""The cluster's streams: create missing ones, compare others with the settings, wait while JetStream elects.

Invariant: a stream that exists is never changed unless `StreamSettings.update_existing` says so.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

from harmonylite.backoff import Backoff
from harmonylite.errors import ConfigError, StreamError, StreamLostError
from harmonylite.jetstream.api import STREAM_EXISTS, ApiError, JetStream
from harmonylite.jetstream.backup import check_not_sealed
from harmonylite.jetstream.replicas import create
from harmonylite.jetstream.settings import StreamSettings
from harmonylite.jetstream.stream import Details, Stream
from harmonylite.jetstream.stream_metadata import ORDER, new_identity
from harmonylite.nats.link import NatsLink
from harmonylite.nats.names import stream_name
from harmonylite.status import Part

log = logging.getLogger(__name__)

CREATE_SECONDS = 10.0
"""Deadline of one request that creates or changes a stream; an election takes some seconds."""

_FATAL = frozenset({10052, 10074, 10136, 10025})
"""Invalid configuration, or more replicas than a single server can keep: waiting won't help."""


async def ensure_streams(link: NatsLink, settings: StreamSettings, part: Part | None = None) -> list[str]:
    """Create the streams of all shards that don't exist; wait while JetStream has no leader for them.

    Return a sentence for each setting of an existing stream that differs and was not changed. Raises ConfigError when
    waiting can't help: the subjects belong to another stream, more replicas than servers in a standalone server.
    Cancelling leaves each stream complete or absent.
    """
    part = part or Part("streams")
    api = JetStream(link, settings.domain)
    warnings: list[str] = []
    for shard in range(settings.shards):
        stream = Stream(api, stream_name(settings.stream_prefix, shard), shard)
        warnings += await until_there(link, stream, part, partial(ensure_stream, stream, settings), settings.replicas)
    part.ok()
    return warnings


async def until_there(
    link: NatsLink, stream: Stream, part: Part, ensure: Callable[[], Awaitable[list[str]]], replicas: int = 0
) -> list[str]:
    """Return what ``ensure`` returns, retried until JetStream lets it; raises ConfigError when waiting can't help."""
    backoff = Backoff(first=0.1, most=2.0)
    while True:
        try:
            await link.connection()
            return await ensure()
        except StreamError as error:
            if isinstance(error, ApiError) and error.code in _FATAL:
                raise ConfigError(f"stream {stream.name} can't be made: {error.message}") from None
            if not link.connected:
                await link.connection()
                continue
            now = time.monotonic()
            reason = "; ".join([error.message, link.surroundings(), *await _lacking(link, replicas)])
            part.waiting(f"streams not ready, waiting: {reason}", error)
            await asyncio.sleep(backoff.failed(now))


async def _lacking(link: NatsLink, replicas: int) -> list[str]:
    """Say which configured servers are unreachable, and whether ``replicas`` needs more servers than there are."""
    missing = await link.missing()
    found = [f"not reached: {', '.join(missing)}"] if missing else []
    return found + ([f"{replicas} servers are needed (replicas = {replicas})"] if link.servers < replicas else [])


async def ensure_stream(stream: Stream, settings: StreamSettings) -> list[str]:
    """Create or compare one stream that accepts messages; return sentences on differences. Raises StreamError."""
    wanted = stream_config(settings, stream.shard)
    try:
        details = await stream.details()
    except StreamLostError:
        # A server that receives two equal requests at once may create the stream twice, and report either creation
        # time afterwards. As each request has a unique identity, the server refuses the second.
        try:
            made = {**wanted, "metadata": {ORDER: new_identity()}}
            count = await create(stream.api, made)
        except ApiError as error:
            # Another node was faster; the next check compares the settings.
            if error.code != STREAM_EXISTS:
                raise
        else:
            log.info("created stream %(stream)s with %(replicas)d replicas", {"stream": stream.name, "replicas": count})
        details = await stream.details()
    if details.role.copy_of:
        raise ConfigError(
            f"stream {stream.name} is a copy of region {details.role.copy_of}'s, and this node is in no region",
            advice="set region and primary_region in [nats], as the other nodes here have them",
        )
    check_not_sealed(stream.name, details.config)
    return await compared(stream, details, wanted, update=settings.update_existing)


async def compared(stream: Stream, details: Details, wanted: Mapping[str, Any], *, update: bool) -> list[str]:
    """Compare a stream with the wanted settings; see `ensure_streams`. Raises StreamError without a leader."""
    cluster = details.cluster
    if cluster and not cluster.get("leader"):
        raise StreamError(f"stream {stream.name} has no leader: {_missing_peers(cluster)}")
    subjects = details.config.get("subjects") or []
    if sorted(subjects) != sorted(wanted.get("subjects") or []):
        raise ConfigError(
            f"stream {stream.name} holds {subjects}, not {wanted.get('subjects')}",
            advice="another cluster has it: set stream_prefix and subject_prefix in pairs",
        )
    differing = {key: value for key, value in wanted.items() if _differs(details.config.get(key), value)}
    if not differing:
        return []
    if update:
        config = {**details.config, **differing}
        await stream.api.call(f"STREAM.UPDATE.{stream.name}", config, seconds=CREATE_SECONDS)
        log.info("updated stream %(stream)s: %(settings)s", {"stream": stream.name, "settings": differing})
        return []
    return [
        f"stream {stream.name} has {key} = {details.config.get(key)}, configured is {value}; it is left as it is "
        "(set update_existing to change it)"
        for key, value in differing.items()
    ]


async def ensure_feed_stream(link: NatsLink, name: str, subject: str, most: int) -> None:
    """Create the stream ``name`` for ``subject`` and all below it; one that exists keeps its settings.

    ``most``: messages that it keeps, 0 = all. Raises StreamError, ConfigError.
    """
    stream = Stream(JetStream(link), name, 0)
    try:
        await stream.details()
    except StreamLostError:
        config = {
            "name": name,
            "subjects": [subject, f"{subject}.>"],
            "storage": "file",
            "discard": "old",
            "max_msgs": most or -1,
            "duplicate_window": int(120e9),
        }
        try:
            count = await create(stream.api, config)
        except ApiError as error:
            if error.code != STREAM_EXISTS:
                raise
        else:
            log.info(
                "created stream %(stream)s for the events on %(subject)s, with %(replicas)d replicas",
                {"stream": name, "subject": subject, "replicas": count},
            )


def _differs(found: object, wanted: object) -> bool:
    return (found or None) != (wanted or None)


def _missing_peers(cluster: Mapping[str, Any]) -> str:
    offline = [peer.get("name", "?") for peer in cluster.get("replicas") or [] if peer.get("offline")]
    return f"offline are {', '.join(offline)}" if offline else "an election is under way, or there is no quorum"


def stream_config(settings: StreamSettings, shard: int) -> dict[str, Any]:
    """Return the configuration of a shard's stream, as JetStream's API takes it; see `replicas.create`."""
    return {
        "name": stream_name(settings.stream_prefix, shard),
        "subjects": [f"{settings.subject_prefix}.{shard}.*"],
        "storage": "file",
        "retention": "limits",
        "discard": "old",
        "max_msgs": settings.max_entries or -1,
        "max_bytes": -1,
        "max_msg_size": -1,
        "max_consumers": -1,
        **({"num_replicas": settings.replicas} if settings.replicas else {}),
        "compression": "none",
        # Long enough for any retry with the same message id; the fence on the subject's last sequence does the rest.
        "duplicate_window": int(120e9),
    }
