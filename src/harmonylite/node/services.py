"""Upkeep: what keeps a node's files and the cluster's snapshots well, put together for one node.

Invariant: everything here continues by itself; what it can't do now it says in the status, and replication continues.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from harmonylite.changes.epochs import Lineage
from harmonylite.config import Settings
from harmonylite.db.repair import damage
from harmonylite.db.replica import Replica
from harmonylite.db.replica_options import ReplicaOptions
from harmonylite.db.snapshot import save_mirror
from harmonylite.db.sqlite.thread import SqliteThread
from harmonylite.errors import (
    DatabaseBusyError,
    DatabaseDamagedError,
    DatabaseReplacedError,
    MirrorDamagedError,
    NotRunningError,
)
from harmonylite.model import Position
from harmonylite.node.anti_entropy import AntiEntropy
from harmonylite.node.control import Control
from harmonylite.node.feed_publisher import LEASE, LEASE_SECONDS, FeedPublisher, FeedTarget
from harmonylite.node.feeds import Feeds
from harmonylite.node.region import RegionControl
from harmonylite.node.wiring import snapshot_signing
from harmonylite.ports import Peers, ShardStream
from harmonylite.recovery.failover.failback import Failback
from harmonylite.recovery.failover.failback_settings import FailbackHooks, FailbackSettings
from harmonylite.recovery.recover import Recovery
from harmonylite.recovery.recovery_settings import RecoveryHooks, RecoverySettings
from harmonylite.snapshots import requests
from harmonylite.snapshots.lease import Lease
from harmonylite.snapshots.replay import Replay
from harmonylite.snapshots.repository import PASSING, PointerStore, RepositorySettings, SnapshotRepository
from harmonylite.snapshots.requests import Answering
from harmonylite.snapshots.scheduler import SnapshotScheduler
from harmonylite.status import NodeStatus
from harmonylite.stores import open_store

log = logging.getLogger(__name__)

FILE_EVERY = 1.0
"""Seconds between checks that the database is still the file that was opened."""
STATE_EVERY = 2
"""Every so many of these checks, also check whether the file went back to an earlier state, if another process has
written."""
STATE_RARELY = 30
"""The same where none has."""


class Services:
    """The parts that save snapshots and recover, from the settings of one node."""

    def __init__(
        self,
        settings: Settings,
        options: ReplicaOptions,
        thread: SqliteThread,
        status: NodeStatus,
        control: Control,
        regional: RegionControl,
        peers: Peers,
        shards: Sequence[ShardStream],
    ) -> None:
        section = settings.snapshot
        self._settings = settings
        self._options = options
        self._thread = thread
        self._status = status
        self._control = control
        self._peers = peers
        self._loop = asyncio.get_running_loop()
        pointers = regional.objects()
        nats = regional.objects(bucket=settings.snapshot_bucket, replicas=section.nats.replicas)
        store = open_store(section, owner=options.node, nats=nats)
        cluster = settings.nats.stream_prefix
        self.repository = SnapshotRepository(
            store,
            pointers,
            RepositorySettings(options.folder, options.node, cluster, section.keep),
            status,
            copy=self._copy,
            signing=snapshot_signing(section),
        )
        self.feed = self._feed_publisher(regional, pointers) if settings.feed.subject else None
        self.failback = self._failback(regional, shards)
        self.recovery = Recovery(
            thread,
            status,
            self.repository,
            shards,
            peers,
            RecoverySettings(options.node, settings.publish),
            RecoveryHooks(regional.ensure, control.requests.request_snapshot),
            self.failback,
        )
        self.replaying = Replay.of(options, shards)
        self.lease = Lease(pointers, options.node, options.session, seconds=section.lease_ttl / 1000)
        self.answering = Answering(self.repository, self.lease, status)
        self.scheduler = SnapshotScheduler(
            self.repository,
            self.lease,
            peers,
            status,
            interval=section.interval / 1000,
            history=lambda: self.recovery.history,
            past=lambda: self.recovery.past,
            away=lambda: self.failback is not None and self.failback.failed_over,
        )

    def _feed_publisher(self, regional: RegionControl, pointers: PointerStore) -> FeedPublisher:
        feed, options = self._settings.feed, self._options
        lease = Lease(
            pointers, options.node, options.session, seconds=LEASE_SECONDS, key=LEASE, duty="publishes the feed"
        )
        feeds = Feeds(self._status, self._thread, self._control.parts)
        target = FeedTarget(feed.subject, feed.stream, feed.max_events)
        return FeedPublisher(target, feeds, regional.link, pointers, lease, self._status)

    def _failback(self, regional: RegionControl, shards: Sequence[ShardStream]) -> Failback | None:
        pointers = regional.own_pointers()
        if regional.failover_controller is None or pointers is None:
            return None
        settings, control = self._settings, self._control

        async def idle() -> None:
            if control.parts.engine is None:
                raise NotRunningError("the node is not replicating yet")
            await control.parts.engine.sender.idle()

        async def answers(node: str) -> bool:
            return node in await regional.siblings(self._peers)

        return Failback(
            self._thread,
            self._status,
            self.repository,
            pointers,
            regional.failover_controller,
            shards,
            FailbackSettings(self._options.node, self._options.folder, settings.publish and settings.replicate),
            FailbackHooks(self._copy, answers, idle, control.requests.request_snapshot),
        )

    def _copy(self, target: Path, *, beginning: Callable[[Lineage], Lineage] | None = None) -> Lineage:
        try:
            return save_mirror(self._options, target, beginning=beginning)
        except DatabaseDamagedError as error:
            self._loop.call_soon_threadsafe(self._thread.hurt, error)
            raise

    @property
    def covering(self) -> SnapshotScheduler | None:
        """What publishing has to wait for; None where it does not."""
        waits = self._settings.replication_log.wait_for_snapshot
        return self.scheduler if waits and self._settings.snapshot.enable else None

    def start(self, group: asyncio.TaskGroup, replica: Replica, unchecked: list[Path]) -> None:
        """Start what runs beside the engine. ``unchecked``: files to look through; what was is taken out of it."""
        group.create_task(_check(unchecked, self._options.mirror), name="check the files")
        group.create_task(self.recovery.serve(), name="answer with this node's state")
        group.create_task(self.recovery.schema_resync.serve(), name="answer schema resyncs")
        serving = self._peers.serve(requests.TOPIC, requests.REQUEST.decode, self.answering.answer)
        group.create_task(serving, name="answer with snapshots")
        if self.feed is not None:
            group.create_task(self.feed.run(), name="feed")
        if self.failback is not None:
            group.create_task(self.failback.finish(replica), name="bring failovers home")
        group.create_task(self._watch_file(replica), name="watch the file")
        group.create_task(self._thread.damage(), name="watch for damage")
        if self._settings.snapshot.enable:
            group.create_task(self.scheduler.run(), name="snapshots")
            group.create_task(self.scheduler.serve(), name="receive snapshot requests")
        anti_entropy = AntiEntropy(
            self._thread, self._status, self._control, self.recovery, self.repository, self._peers
        )
        self._control.parts.anti_entropy, self._control.parts.recovery = anti_entropy, self.recovery
        group.create_task(anti_entropy.serve(), name="receive deviation reports")
        if self._settings.verify.interval:
            leads = self.lease if self._settings.snapshot.enable else None
            local = self._settings.replicate
            group.create_task(
                anti_entropy.run(self._settings.verify.interval / 1000, leads, local=local), name="compare"
            )

    async def positions(self, replica: Replica) -> dict[int, Position]:
        """Return where the mirror is in the primary order; nothing while it is in a failover."""
        if self.failback is None or self.failback.failed_over:
            return {}
        return await self._thread.run(replica.positions)

    async def asleep(self) -> None:
        """Leave a snapshot behind, if that is this node's duty."""
        if self._settings.snapshot.enable:
            with suppress(*PASSING):
                if await self.lease.renew():
                    await self.repository.save()
            await self.scheduler.release()

    async def _watch_file(self, replica: Replica) -> None:
        """Raise DatabaseReplacedError when the file is another one, or went back to an earlier state."""
        file = FileCheck(replica)
        await self._thread.run(file.open)
        await self._thread.until(file.check, FILE_EVERY)


class FileCheck:
    """Checks the file of ``replica``, on the SQLite thread."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self._path = replica.options.database
        self._opened = 0, 0
        self._joined = False
        self._since = -1
        self._version = -1

    def open(self) -> None:
        """Note which file it is."""
        self._opened = _identity(self._path)

    def check(self) -> bool:
        """Raise DatabaseReplacedError when it is another file, or went back to an earlier state; False otherwise."""
        if _identity(self._path) != self._opened:
            raise DatabaseReplacedError(f"the database {self._path} was replaced or removed while the node ran")
        self._since += 1
        if self._since > 0 and self._since % STATE_EVERY == 0:
            version = self._replica.version()
            if version != self._version or self._since >= STATE_RARELY:
                with suppress(DatabaseBusyError):
                    self._joined = _check_state(self._replica, self._joined) or self._joined
                    self._since, self._version = 0, version
        return False


async def _check(unchecked: list[Path], mirror: Path) -> None:
    """Check files that were opened unchecked; raises MirrorDamagedError, DatabaseDamagedError."""
    for path in list(unchecked):
        if why := await asyncio.to_thread(damage, path):
            kind = MirrorDamagedError if path == mirror else DatabaseDamagedError
            raise kind(f"{path} is damaged: {why}")
        unchecked.remove(path)


def _identity(path: Path) -> tuple[int, int]:
    """Return what distinguishes a file from another of the same name; it is not opened."""
    try:
        found = path.stat()
    except OSError:
        return 0, 0
    return found.st_dev, found.st_ino


def _check_state(replica: Replica, was_joined: bool) -> bool:
    """Return whether the database is joined; raise DatabaseReplacedError when it is not any more, or went back."""
    what = f"the database {replica.options.database} went back to an earlier state while the node ran"
    if not replica.joined:
        if was_joined:
            raise DatabaseReplacedError(what)
        return False
    database, mirror = replica.lineage("main"), replica.lineage("mirror")
    behind = any(position.seq > database.positions[shard].seq for shard, position in mirror.positions.items())
    back = database.history in mirror.past or (database.history == mirror.history and behind)
    if back or replica.lacks_own(newest=True):
        raise DatabaseReplacedError(what)
    return True
