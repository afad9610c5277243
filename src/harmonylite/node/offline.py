"""Snapshots without a running node: after the loss of a machine, what the store and the streams have as a file.

Invariant: only the store and the streams are read; nothing is written but the file that was asked for and, beside it
and gone afterwards, a folder to work in. Where NATS can't be reached, or none is left, the store alone is asked.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

from harmonylite.changes.epochs import Lineage
from harmonylite.config import Settings
from harmonylite.db.sqlite.thread import SqliteThread
from harmonylite.errors import NotRunningError, StreamError
from harmonylite.jetstream.shard import JetStreamShard
from harmonylite.nats.link import NatsLink
from harmonylite.node.control import Parts
from harmonylite.node.history import History
from harmonylite.node.region import RegionControl
from harmonylite.node.wait_log import log_events
from harmonylite.node.wiring import equip, link_settings, replica_options, snapshot_signing
from harmonylite.snapshots.replay import Replay
from harmonylite.snapshots.repository import PointerStore, RepositorySettings, SnapshotRepository
from harmonylite.status import NodeStatus
from harmonylite.stores import open_store

log = logging.getLogger(__name__)

NAME = "offline"


@asynccontextmanager
async def offline(settings: Settings, status: NodeStatus, folder: Path) -> AsyncIterator[History]:
    """Give what can be asked without a node; ``folder``: where there is room to work.

    Raises NotRunningError, StreamError when the snapshots themselves are in a NATS that is not there.
    """
    async with AsyncExitStack() as stack:
        stack.callback(log_events, status)
        regional, shards = await _streams(stack, settings, status)
        nats = regional.objects(bucket=settings.snapshot_bucket) if regional is not None else None
        pointers: PointerStore = regional.objects() if regional is not None else NoPointers()
        store = open_store(settings.snapshot, owner=NAME, nats=nats)
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=".harmonylite-", dir=folder)))
        thread = SqliteThread()
        stack.push_async_callback(thread.aclose)
        cluster = settings.nats.stream_prefix
        repository = SnapshotRepository(
            store,
            pointers,
            RepositorySettings(work, NAME, cluster, keep=0),
            status,
            copy=_nothing_to_save,
            signing=snapshot_signing(settings.snapshot),
        )
        parts = Parts(repository=repository)
        past = History(thread, parts)
        equip(settings)
        options = replica_options(settings, NAME, NAME)
        past.replaying = Replay(work, options, shards)
        yield past


class NoPointers:
    """The pointers of a cluster whose NATS is not there: none. Implements `snapshots.repository.Pointers`."""

    async def pointer(self, key: str) -> tuple[bytes, int] | None:
        """Return None."""

    async def set_pointer(self, key: str, value: bytes, *, revision: int) -> bool:
        """Return False: nothing can be set."""
        return False


async def _streams(
    stack: AsyncExitStack, settings: Settings, status: NodeStatus
) -> tuple[RegionControl | None, Sequence[JetStreamShard]]:
    """Return what NATS has, or nothing where the store can be asked without it."""
    needed = settings.snapshot.store == "nats" or not settings.snapshot.enable
    if not settings.nats.urls:
        if needed:
            raise NotRunningError(
                "no node runs, and the snapshots are in its own NATS server", advice="start it with `harmonylite`"
            )
        return None, ()
    link = NatsLink(replace(link_settings(settings, NAME), connect_retries=1), status)
    try:
        await stack.enter_async_context(link)
        regional = RegionControl(settings, link, status)
        shards = regional.shards(NAME)
        for shard in shards:
            await shard.info()
    except StreamError as error:
        if needed and not link.connected:
            raise
        log.warning("asking the store alone: %(error)s", {"error": error})
        return (regional, ()) if link.connected else (None, ())
    return regional, shards


def _nothing_to_save(target: Path, *, beginning: object = None) -> Lineage:
    raise NotRunningError(f"there is no mirror to save as {target}")
