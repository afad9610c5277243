"""Move a cluster's streams from one NATS to another: from embedded servers to an external cluster, and back.

Invariant: the old streams take nothing from the moment of the copy on, and say where they went; what applications
write meanwhile queues in the nodes and is published at the new place. When a move fails, the old place continues.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace

from harmonylite.backoff import Backoff
from harmonylite.config import Settings
from harmonylite.errors import ConfigError, StreamError, StreamLostError
from harmonylite.identity import acquire_lock, identify, make_folder
from harmonylite.jetstream.api import JetStream
from harmonylite.jetstream.backup import TransferredStream, discard, release, seal, transfer
from harmonylite.jetstream.buckets import bucket_name
from harmonylite.jetstream.replicas import MOST
from harmonylite.jetstream.stream import PATIENT_SECONDS, Stream
from harmonylite.nats.connection import minor
from harmonylite.nats.link import NatsLink
from harmonylite.nats.names import host_port, stream_name
from harmonylite.nats_server.server import EmbeddedServer
from harmonylite.node.wiring import embedded_settings, link_settings, private_folder, stream_settings

TRIES = 10
"""Rounds over the servers before a move gives up; nothing was changed by then."""

ELECTION_SECONDS = 60.0
"""How long the target's servers may take to elect a leader."""

NEW_BACKUP = (2, 15)
"""The nats-server since which backups of streams have a form that earlier ones can't read (seen with 2.10 to 2.14)."""

Report = Callable[[str], None]


async def move(source: Settings, target: Settings, report: Report) -> list[TransferredStream]:
    """Carry all streams of ``source`` to the NATS of ``target``; ``report`` is called with a sentence on each step.

    Raises ConfigError, StreamError, EmbeddedServerError; the old streams take messages again then.
    """
    _check(source, target)
    async with AsyncExitStack() as stack:
        here = JetStream(await stack.enter_async_context(reach(source)))
        there = JetStream(await stack.enter_async_context(reach(target)))
        check_versions(here.link.now().version, there.link.now().version)
        streams = [stream for name in _names(source) if (stream := await _found(here, name)) is not None]
        if not streams:
            raise StreamError("there are no streams to move", advice="start a node once, or correct the prefixes")
        for stream in streams:
            await _until_decided(there, stream.name)
        carried = []
        try:
            for stream in streams:
                await seal(stream, _place(target))
            report(f"{len(streams)} streams at {_place(source)} take nothing any more; what is written now queues")
            for stream in streams:
                replicas = target.replication_log.replicas or min(MOST, there.link.servers)
                done = await transfer(stream, there, replicas)
                report(
                    f"{done.name}: {done.messages} messages, {done.bytes} bytes of backup, last sequence {done.last}"
                )
                carried.append(done)
        except BaseException:
            await asyncio.shield(
                _undo(streams, [Stream(there, done.name, 0, seconds=PATIENT_SECONDS) for done in carried])
            )
            raise
    return carried


def check_versions(source: str, target: str) -> None:
    """Raise StreamError where a nats-server of version ``target`` can't read a backup that ``source`` makes."""
    old, new = minor(source), minor(target)
    if old and new and new < NEW_BACKUP <= old:
        raise StreamError(
            f"the streams are kept by nats-server {source}, whose backups nats-server {target} can't read; nothing was "
            "changed",
            advice=f"upgrade the target's servers to {'.'.join(map(str, NEW_BACKUP))} or later, then move",
        )


async def _undo(streams: list[Stream], copies: list[Stream]) -> None:
    """Let the old streams take messages again, once no copy of them is left that could."""
    for copy in copies:
        await discard(copy)
    for stream in streams:
        await release(stream)


async def release_all(settings: Settings) -> list[str]:
    """Let held streams of ``settings`` take messages again; return their names. Raises StreamError."""
    async with reach(settings) as link:
        api = JetStream(link)
        streams = [stream for name in _names(settings) if (stream := await _found(api, name)) is not None]
        return [stream.name for stream in streams if await release(stream)]


@asynccontextmanager
async def reach(settings: Settings) -> AsyncIterator[NatsLink]:
    """Give a link to the NATS of ``settings``; its embedded server is started for that time unless it runs already."""
    node = identify(settings.db_path, settings.node_id).node_id
    base = replace(link_settings(settings, node), name="harmonylite-move", connect_retries=TRIES)
    async with AsyncExitStack() as stack:
        if settings.nats.urls:
            link = NatsLink(base)
        else:
            server = EmbeddedServer(embedded_settings(settings, node))
            if not await server.attach():
                stack.enter_context(acquire_lock(make_folder(private_folder(settings))))
                await stack.enter_async_context(server)
            link = NatsLink(replace(server.link_settings(base), connect_retries=TRIES))
        yield await stack.enter_async_context(link)


@asynccontextmanager
async def serving(settings: Settings) -> AsyncIterator[EmbeddedServer]:
    """Run only the embedded server of ``settings``. Raises ConfigError when there is none to run."""
    if settings.nats.urls:
        raise ConfigError("nats.urls names an external NATS, so there is no embedded server to run")
    with acquire_lock(make_folder(private_folder(settings))):
        node = identify(settings.db_path, settings.node_id).node_id
        async with EmbeddedServer(embedded_settings(settings, node)) as server:
            yield server


def _check(source: Settings, target: Settings) -> None:
    for settings in (source, target):
        if settings.nats.region:
            raise ConfigError(
                "`nats move` can't move streams that regions share",
                advice="move the primary region with `harmonylite region`; see docs/regions.md",
            )
    for name in ("subject_prefix", "stream_prefix"):
        old, new = getattr(source.nats, name), getattr(target.nats, name)
        if old != new:
            raise ConfigError(
                f"nats.{name} is {old!r} here and {new!r} there", advice="the names move with the streams"
            )
    if source.replication_log.shards != target.replication_log.shards:
        raise ConfigError("replication_log.shards differ", advice="the number of shards is fixed")
    if _place(source) == _place(target):
        raise ConfigError(f"both configurations name {_place(source)}", advice="name the file of the new place")


def _place(settings: Settings) -> str:
    if settings.nats.urls:
        return ", ".join(host_port(url.get_secret_value()) for url in settings.nats.urls)
    return f"the embedded servers ({settings.nats.cluster_addr or settings.db_path})"


def _names(settings: Settings) -> list[str]:
    streams = stream_settings(settings)
    prefix = streams.stream_prefix
    objects = settings.snapshot.nats.bucket or bucket_name(prefix, "snapshots")
    return [
        *(stream_name(prefix, shard) for shard in range(streams.shards)),
        f"OBJ_{objects}",
        f"KV_{bucket_name(prefix, 'pointers')}",
    ]


async def _until_decided(api: JetStream, name: str) -> None:
    """Wait until the target knows whether it has the stream ``name``: servers that just started elect for a while."""
    backoff = Backoff(first=0.1, most=1.0)
    end = time.monotonic() + ELECTION_SECONDS
    while True:
        try:
            await _found(api, name)
        except StreamError as error:
            if time.monotonic() > end:
                raise StreamError(f"the target is not ready: {error.message}; {api.link.surroundings()}") from None
            await asyncio.sleep(backoff.failed(time.monotonic()))
        else:
            return


async def _found(api: JetStream, name: str) -> Stream | None:
    stream = Stream(api, name, 0, seconds=PATIENT_SECONDS)
    try:
        details = await stream.details()
    except StreamLostError:
        return None
    if details.cluster and not details.cluster.get("leader"):
        raise StreamError(f"stream {name} has no leader", advice="a majority of the NATS servers must be up")
    return stream
