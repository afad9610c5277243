"""Bootstrap: bring this node's files to where replication can begin.

Invariant: nothing that only this database holds is lost, and no file that is damaged is deleted. The first snapshot is
the beginning of the cluster; anyone who saves it first is the first node, and everyone else is merged with it.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TypeVar

from harmonylite.backoff import Backoff, Retry
from harmonylite.changes.epochs import drift, further
from harmonylite.db.mirror.positions import adopt_lineage, have_diverged
from harmonylite.db.overwritten import take_in_at_start
from harmonylite.db.repair import damage, set_aside, was_set_aside
from harmonylite.db.replica import Replica
from harmonylite.db.replica_options import ReplicaOptions
from harmonylite.db.snapshot import has_tables, install_mirror, save_mirror
from harmonylite.db.sqlite.clean_shutdown import taken
from harmonylite.db.sqlite.encryption import is_encrypted
from harmonylite.db.sqlite.thread import SqliteThread
from harmonylite.errors import (
    DatabaseBusyError,
    DatabaseDamagedError,
    DatabaseEncryptedError,
    DatabaseError,
    DiskFullError,
    MirrorDamagedError,
    ObjectMissingError,
    OtherClusterError,
    PoisonError,
    SchemaWaitError,
    SnapshotDamagedError,
    SnapshotError,
    StreamError,
)
from harmonylite.ports import ShardStream
from harmonylite.recovery.build_database import DatabaseBuilder
from harmonylite.recovery.membership import must_belong, newest_of_cluster
from harmonylite.recovery.recover import SILENT, Recovery
from harmonylite.snapshots.divergence import is_lost
from harmonylite.snapshots.manifest import Snapshot
from harmonylite.snapshots.repository import SnapshotRepository
from harmonylite.status import NodeStatus

log = logging.getLogger(__name__)

T = TypeVar("T")
AGAIN = 1.0
"""Seconds between checks for a snapshot, or for the database file."""


class Bootstrap:
    """Opens a replica at every start. ``request_snapshot``: ask the other nodes to save a snapshot; ``suspects``: files
    that are to be checked from the first to the last page.
    """

    def __init__(
        self,
        options: ReplicaOptions,
        thread: SqliteThread,
        status: NodeStatus,
        *,
        request_snapshot: Callable[[], Awaitable[bool]],
        suspects: Collection[str] = (),
    ) -> None:
        self._options = options
        self._thread = thread
        self._status = status
        self._request_snapshot = request_snapshot
        self._suspects = set(suspects)
        self._part = status.part("join")
        self._damaged = False
        self._rested: set[Path] | None = None
        self._fresh: set[Path] = set()
        self.unchecked: list[Path] = []
        """Files that were opened as the last stop had left them; they are still to be checked."""

    # opening ---------------------------------------------------------------------------------------------------

    async def open(self) -> Replica | None:
        """Open the database as it is, before NATS is reachable, so that its writes are logged; None if there is none.

        A damaged mirror is quarantined; `join` heals a damaged database, which also comes back only with everything
        that the cluster has. Raises DatabaseDamagedError for a damaged file that never was replicated here.
        """
        path = self._options.database
        backoff = Backoff(first=0.05, most=1.0)
        mirror = Retry(log, "opening the mirror", Backoff(first=0.05, most=60.0, calm=120.0), logging.ERROR)
        while True:
            try:
                await self._thread.run(self._check_files)
                if self._damaged or not path.exists() or not await self._thread.run(has_tables, path):
                    return None
                replica = Replica(self._options)
                await self._thread.run(replica.open)
            except MirrorDamagedError as error:
                pause = mirror.failed(error, time.monotonic())
                self._put_mirror_aside(str(error))
                self._part.waiting(str(error))
                await asyncio.sleep(pause)  # what damages each new one would fill the disk with them
            except (DatabaseBusyError, DiskFullError) as error:
                self._part.waiting(str(error))
                await asyncio.sleep(backoff.failed(time.monotonic()))
            else:
                self._status.comes_back = await self._thread.run(_is_older, replica)
                return replica

    def _damage(self, path: Path) -> str:
        """Return what is wrong with a file, "" also if it was idle and is checked later."""
        if str(path) in self._suspects:  # until it is made again
            return damage(path, thorough=True)
        if path in self._fresh:  # this process has just made it
            self._fresh.discard(path)
            return ""
        if self._rested is None:
            self._rested = taken(self._options.folder)
        if path in self._rested:
            self._rested.discard(path)
            self.unchecked.append(path)
            return ""
        return damage(path)

    def _check_files(self) -> None:
        """Check both files; a damaged mirror is quarantined. Runs on the SQLite thread."""
        database, mirror = self._options.database, self._options.mirror
        replicated = mirror.exists() or was_set_aside(mirror)
        if mirror.exists() and (why := self._damage(mirror)):
            self._put_mirror_aside(why)
        if not database.exists():
            self._damaged = False
            return
        take_in_at_start(self._options)
        why = self._damage(database)
        if why and is_encrypted(database):  # neither put aside nor healed, also where it was plain before
            raise DatabaseEncryptedError(database)
        if why and not replicated:
            raise DatabaseDamagedError(
                f"the database {database} is damaged, or no SQLite file: {why}",
                advice="correct db_path, or move the file away to start from the cluster's newest snapshot",
            )
        if why and not self._damaged:
            log.error("found database %(database)s damaged: %(reason)s", {"database": database, "reason": why})
        self._damaged = bool(why)

    def _put_mirror_aside(self, why: str) -> None:
        aside = set_aside(self._options.mirror)
        self._suspects.discard(str(self._options.mirror))
        log.error(
            "quarantined the mirror as %(file)s, a snapshot replaces it: %(reason)s", {"file": aside, "reason": why}
        )

    # joining ---------------------------------------------------------------------------------------------------

    async def join(
        self,
        replica: Replica | None,
        repository: SnapshotRepository,
        recovery: Recovery,
        streams: Sequence[ShardStream],
    ) -> Replica:
        """Return the replica with a mirror that has a beginning; see DESIGN, section 3."""
        opened = replica if replica is not None else await self._without_database(repository, recovery, streams)
        start = time.monotonic()
        while not await self._thread.run(lambda: opened.whole):
            newest = await self._patiently(partial(newest_of_cluster, repository, opened, self._thread))
            if newest is not None or await self._thread.run(lambda: opened.joined):
                await self._from_snapshot(opened, repository, recovery, time.monotonic() - start)
            else:
                await self._begin(opened, repository, streams)
        await self._settle_diverged(opened, streams)
        self._part.ok()
        return opened

    async def _settle_diverged(self, replica: Replica, streams: Sequence[ShardStream]) -> None:
        """Bring a database to its mirror that is older, or of an earlier history: restored, or the mirror is new."""
        if not await self._thread.run(lambda: replica.joined):
            return
        database = await self._thread.run(replica.lineage, "main")
        mirror = await self._thread.run(replica.lineage, "mirror")
        way = drift(database, mirror)
        if await self._thread.run(have_diverged, replica.connection) and database.history == mirror.history:
            # Nothing but the new mirror says what was deleted, and it may not know of what the streams have lost.
            found = [await self._patiently(partial(is_lost, s, database.positions[s.shard])) for s in streams]
            way = "diverged" if any(found) else way
        if way == "same":
            return
        log.warning(
            "reconciling the database with its mirror, which do not share an ancestor (%(relation)s)", {"relation": way}
        )
        if way == "ahead":
            await self._patiently(lambda: self._thread.run(replica.keep_mine, further(database, mirror)))
            return
        conflicts = await self._patiently(
            lambda: self._thread.run(replica.reconcile, first=way == "diverged", keep_log=True)
        )
        self._status.counters.conflicts += conflicts

    async def _begin(self, replica: Replica, repository: SnapshotRepository, streams: Sequence[ShardStream]) -> None:
        """Be the first node; where another one is faster, the mirror is empty again and its beginning is ours."""
        infos = [await self._patiently(stream.info) for stream in streams]
        await self._thread.run(replica.set_created, {info.shard: info.created for info in infos})
        # A name of its own: a node with another beginning notices that it is not the cluster's.
        history = secrets.token_hex(8)
        newest = await self._patiently(lambda: self._thread.run(replica.copy_into_mirror, history))
        self._part.waiting("saving the first snapshot")
        if await self._patiently(lambda: repository.save(first=True)) is not None:
            await self._patiently(lambda: self._thread.run(replica.join_first, newest))
            self._part.event("bootstrapped a new cluster from this node's content")
            return
        await self._thread.run(replica.close)
        await self._patiently(lambda: self._thread.run(_drop_mirror, self._options))
        await self._patiently(lambda: self._thread.run(replica.open))

    async def _from_snapshot(
        self, replica: Replica, repository: SnapshotRepository, recovery: Recovery, seconds: float
    ) -> None:
        """Use the newest snapshot as the mirror; the database is merged with it once it is folded to the end."""
        self._part.waiting("fetching the newest snapshot")
        fetched, why = None, "there is no snapshot"
        try:
            fetched = await repository.fetch()
        except (SnapshotDamagedError, ObjectMissingError) as error:
            why = str(error)
        except (StreamError, SnapshotError) as error:
            self._part.waiting(f"the mirror is lost, and no snapshot can be fetched now: {error}", error)
            await asyncio.sleep(AGAIN)
            return
        if fetched is not None:
            try:
                await must_belong(replica, self._thread, *fetched)
                await self._thread.run(replica.must_fit, fetched[1])
            except (SchemaWaitError, OtherClusterError) as error:
                self._part.waiting(str(error), error)
                fetched[1].unlink(missing_ok=True)
                await self._request_snapshot()
                await asyncio.sleep(AGAIN)
                return
            await self._thread.run(replica.close)
            await self._patiently(lambda: self._thread.run(install_mirror, self._options, fetched[1]))
            await self._patiently(lambda: self._thread.run(replica.open))
            snapshot = fetched[0]
            said = "bootstrapped the mirror from snapshot %(snapshot)s of node %(node)s"
            self._part.event(said, snapshot=snapshot.name, node=snapshot.node)
            return
        self._part.waiting(f"the mirror is lost; another node is asked for a snapshot: {why}")
        if await self._request_snapshot() or seconds < SILENT:
            await asyncio.sleep(AGAIN)
            return
        self._part.event(
            "started a new epoch from this database: its mirror is lost and no node has a snapshot", warning=True
        )
        await self._thread.run(replica.copy_into_mirror)
        await self._thread.run(lambda: adopt_lineage(replica.connection))
        with suppress(SnapshotError, StreamError):
            await recovery.begin(replica)

    async def _without_database(
        self, repository: SnapshotRepository, recovery: Recovery, streams: Sequence[ShardStream]
    ) -> Replica:
        """Make the database from the newest snapshot, or heal it; or wait until the application or a snapshot is there.

        It is put in its place once it holds all that the shards hold, and not before.
        """
        path = self._options.database
        builder = DatabaseBuilder(self._options, self._thread, self._status, recovery, streams)
        backoff = Backoff(first=0.2, most=5.0)
        useless, why = "", f"there is no table in {path} and no snapshot yet: waiting for either"
        while True:
            fetched = await self._patiently(partial(self._base, repository, useless))
            opened = await self.open()
            if opened is not None:
                if fetched is not None:
                    fetched[1].unlink(missing_ok=True)
                return opened
            if fetched is None:
                self._part.waiting(why)
                await asyncio.sleep(AGAIN)
                continue
            source, file = fetched
            try:
                await self._offered(builder, source, file)
            except DatabaseDamagedError:
                raise
            except (SchemaWaitError, PoisonError) as error:
                useless, why = source, f"{error}; {source} is of no use, waiting for a newer one"
                self._part.waiting(why)
            except (StreamError, SnapshotError, DatabaseError) as error:
                self._part.waiting(str(error), error)
                await asyncio.sleep(backoff.failed(time.monotonic()))
            else:
                opened = await self.open()
                if opened is not None:
                    return opened
            finally:
                await asyncio.to_thread(file.unlink, missing_ok=True)  # it may be the mirror by now

    async def _base(self, repository: SnapshotRepository, useless: str) -> tuple[str, Path] | None:
        """Return the source of the database, and its name; None while there is none.

        The newest good snapshot, or, for a database that is damaged, its mirror. ``useless``: what could not be used;
        the node asks the others for a newer one.
        """
        mirror = self._options.mirror
        if self._damaged and mirror.exists():
            file = self._options.folder / "healing.db"
            file.unlink(missing_ok=True)
            await self._thread.run(save_mirror, self._options, file)
            return "its mirror", file
        newest = await repository.newest() if useless else None
        if newest is not None and _called(newest) == useless:
            await self._request_snapshot()
            return None
        fetched = await self._fetch(repository)
        return None if fetched is None else (_called(fetched[0]), fetched[1])

    async def _fetch(self, repository: SnapshotRepository) -> tuple[Snapshot, Path] | None:
        """Fetch the newest good snapshot; ask for another one where none is any use, not where the store is away."""
        try:
            return await repository.fetch()
        except (SnapshotDamagedError, ObjectMissingError):
            await self._request_snapshot()
            raise

    async def _offered(self, builder: DatabaseBuilder, source: str, file: Path) -> None:
        if self._damaged:
            aside, saved = await builder.heal(file)
            self._damaged = False
            self._suspects.discard(str(self._options.database))
            log.warning(
                "repaired database %(database)s from %(source)s; quarantined the damaged one as %(file)s; "
                "saved %(rows)d unpublished rows from it; applications that had it open have to open it again",
                {"database": self._options.database, "source": source, "file": aside, "rows": saved},
            )
            return
        await builder.make(file)
        self._fresh |= {self._options.database, self._options.mirror}
        log.info(
            "created database %(database)s from %(source)s", {"database": self._options.database, "source": source}
        )

    async def _patiently(self, call: Callable[[], Awaitable[T]]) -> T:
        backoff = Backoff(first=0.2, most=5.0)
        while True:
            try:
                return await call()
            except DatabaseDamagedError:
                raise
            except (StreamError, SnapshotError, DatabaseError) as error:
                self._part.waiting(str(error), error)
                await asyncio.sleep(backoff.failed(time.monotonic()))


def _is_older(replica: Replica) -> bool:
    """Return whether a joined database may be older than what this node knew: not at its mirror's positions."""
    if not replica.joined:
        return False  # where it differs from the cluster, its own values give way
    way = drift(replica.lineage("main"), replica.lineage("mirror"))
    return way != "same" or have_diverged(replica.connection)


def _called(snapshot: Snapshot) -> str:
    return f"snapshot {snapshot.name} of node {snapshot.node}"


def _drop_mirror(options: ReplicaOptions) -> None:
    with options.readers.alone():
        for name in ("", "-wal", "-shm"):
            Path(f"{options.mirror}{name}").unlink(missing_ok=True)
